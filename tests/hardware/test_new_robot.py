from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cli
from hardware.arm_urdf import ArmUrdf, find_mesh, read_arm
from hardware.errors import RobotError
from hardware.kinematics import Kinematics
from hardware.meshes import load_mesh, simplified, write_obj
from hardware.reach import TASK_BOX
from hardware.robot import Robot, load_robot, robot_names

XARM6, IIWA = "xarm/xarm6_robot.urdf", "kuka_iiwa/model.urdf"
PEGS = {XARM6: 0.14, IIWA: 0.185}


def new(urdf: Path, out: Path, *more: str, name: str = "mine") -> int:
    return cli.main(["new", "--urdf", str(urdf), "--name", name, "--out", str(out), *more])


@pytest.fixture(scope="module")
def data_folder() -> Path:
    return Path(pytest.importorskip("pybullet_data").getDataPath())


@pytest.fixture(scope="module", params=PEGS)
def made(request, data_folder: Path, tmp_path_factory) -> tuple[Path, Path]:
    """The URDF of an arm, and the robot file that `jepa-arm new` made of it."""
    urdf, out = data_folder / request.param, tmp_path_factory.mktemp("robots")
    assert new(urdf, out, "--peg", str(PEGS[request.param])) == 0
    return urdf, out / "mine.yaml"


def tilt(robot: Robot, q: np.ndarray) -> float:
    """How far (rad) the tool is from pointing straight down."""
    return float(np.arccos(np.clip(-Kinematics(robot).tool_pose(q)[1][2, 2], -1.0, 1.0)))


# What comes out for the arms of pybullet_data


def test_joints_and_position_limits_are_the_urdfs(made):
    urdf, robot_file = made
    robot = load_robot(robot_file)
    limits = {
        joint.get("name"): joint.find("limit").attrib
        for joint in ElementTree.parse(urdf).getroot().findall("joint")
        if joint.get("type") == "revolute"
    }
    assert robot.joint_names == tuple(limits)
    for joint in robot.joints:
        assert joint.lower == pytest.approx(float(limits[joint.name]["lower"]), abs=2e-6)
        assert joint.upper == pytest.approx(float(limits[joint.name]["upper"]), abs=2e-6)
        assert joint.velocity == float(limits[joint.name]["velocity"])


def test_home_points_straight_down_over_the_middle_of_the_workspace(made):
    robot = load_robot(made[1])
    assert tilt(robot, robot.home) < math.radians(0.1)
    tool = Kinematics(robot).tool_position(robot.home)
    middle = (robot.workspace_min + robot.workspace_max) / 2
    np.testing.assert_allclose(tool[:2], middle[:2], atol=2e-3)
    assert np.all(robot.workspace_min < tool) and np.all(tool < robot.workspace_max)


def test_the_workspace_holds_what_the_tasks_use_and_the_camera_looks_there(made):
    robot = load_robot(made[1])
    assert np.all(robot.workspace_min <= TASK_BOX[0]) and np.all(robot.workspace_max >= TASK_BOX[1])
    assert np.all(robot.workspace_max - robot.workspace_min <= [0.321, 0.561, 0.401])
    middle_x = (robot.workspace_min[0] + robot.workspace_max[0]) / 2
    assert robot.camera.target == pytest.approx((middle_x, 0.0, 0.03), abs=0.01)
    assert robot.camera.position[0] > robot.workspace_max[0]


def test_every_guess_has_a_check_beside_it(made):
    text = made[1].read_text()
    joints = [line for line in text.splitlines() if "- {name:" in line]
    assert joints and all("acceleration, jerk" in line.partition("# CHECK:")[2] for line in joints)
    for guess in ("home", "workspace:", "camera:", "tool_link", "base_link", "the arm stands"):
        place = text.index(guess)
        assert "# CHECK:" in text[max(0, place - 300) : place + 100], guess


def test_the_simulator_drives_the_arm_with_its_tool_kept_upright(made):
    tasks = pytest.importorskip("sim.tasks")
    robot = load_robot(made[1])
    loop = tasks.make_loop(tasks.make_task("push"), robot)
    try:
        start = loop.tool_position()
        for _ in range(8):
            loop.execute([0.01, 0.01])
        moved = loop.tool_position() - start
        assert np.all(moved[:2] > 0.05)
        assert tilt(robot, loop.world.joint_state().positions) < math.radians(2)
        assert loop.gate.status.stops == 0
        assert loop.world.render().std() > 10
    finally:
        loop.world.close()


def test_the_meshes_are_low_poly_and_lie_beside_the_robot_file(made):
    robot = load_robot(made[1])
    meshes = list(ElementTree.parse(robot.urdf).getroot().iter("mesh"))
    assert meshes
    for mesh in meshes:
        path = robot.urdf.parent / mesh.get("filename")
        assert path.is_file()
        assert path.read_text().count("\nf ") <= 300


def test_an_existing_robot_is_not_overwritten(made, capsys):
    urdf, robot_file = made
    before = robot_file.read_text()
    assert new(urdf, robot_file.parent, "--peg", "0.2") == 2
    assert "exists already" in capsys.readouterr().err
    assert robot_file.read_text() == before


# What holds for every robot that is shipped, over the box that the tasks use


SMALL = ("koch", "so101")  # arms that do not reach over that box


def places() -> st.SearchStrategy[np.ndarray]:
    return st.tuples(*[st.floats(low, high) for low, high in zip(*TASK_BOX)]).map(np.array)


@pytest.mark.parametrize("name", [name for name in robot_names() if name not in SMALL])
@settings(max_examples=60)
@given(place=places())
def test_a_shipped_robot_reaches_every_place_of_the_tasks_with_its_tool_down(name, place):
    robot = load_robot(name)
    kinematics = Kinematics(robot)
    rotation = kinematics.tool_pose(robot.home)[1]
    q = robot.home
    for _ in range(10):
        q = kinematics.inverse(place, rotation, q).positions
    np.testing.assert_allclose(kinematics.tool_position(q), place, atol=1e-3)
    assert tilt(robot, q) < math.radians(2)
    assert np.all(q >= robot.position_lower) and np.all(q <= robot.position_upper)
    assert kinematics.joint_origins(q)[1:, 2].min() > 0.0


# The tool link and the peg


def test_the_tool_is_where_the_longest_chain_ends_and_before_the_fingers_branch_off(data_folder):
    assert read_arm(data_folder / XARM6).tool_link == "link6"
    assert read_arm(data_folder / "franka_panda/panda.urdf").tool_link == "panda_hand"
    assert read_arm(data_folder / XARM6, "link3").joints[-1].name == "joint3"


def test_the_peg_lengthens_the_tool_along_its_z_axis(tmp_path):
    def tip(length_m: float) -> np.ndarray:
        import pinocchio

        arm = read_arm(write(tmp_path, ARM))
        if length_m:
            arm.add_peg(length_m)
        arm.write(tmp_path / "peg.urdf", "with a peg")
        model = pinocchio.buildModelFromUrdf(str(tmp_path / "peg.urdf"))
        data = model.createData()
        pinocchio.framesForwardKinematics(model, data, np.full(model.nq, 0.3))
        pose = data.oMf[model.getFrameId(arm.tool_link)]
        return np.array([pose.translation, pose.rotation[:, 2]])

    plain, peg = tip(0.0), tip(0.2)
    np.testing.assert_allclose(peg[0], plain[0] + 0.2 * plain[1], atol=1e-9)
    np.testing.assert_allclose(peg[1], plain[1], atol=1e-9)


# What the URDF does not say, and what it must say

LIMIT = '<limit lower="-2" upper="2" velocity="1.5" effort="30"/>'
BOX = '<box size="0.1 0.1 0.1"/>'
SOLID = f"<geometry>{BOX}</geometry>"
ARM = f"""<robot name="small">
  <link name="base"/>
  <joint name="pan" type="revolute"><parent link="base"/><child link="upper"/>
    <origin xyz="0 0 0.3"/><axis xyz="0 0 1"/>{LIMIT}</joint>
  <link name="upper"><inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/>
    </inertial><visual>{SOLID}</visual><collision>{SOLID}</collision></link>
  <joint name="lift" type="revolute"><parent link="upper"/><child link="hand"/>
    <origin xyz="0.3 0 0"/><axis xyz="0 1 0"/>{LIMIT}</joint>
  <link name="hand"/>
</robot>"""


def write(folder: Path, text: str, name: str = "arm.urdf") -> Path:
    (folder / name).write_text(text)
    return folder / name


def changed(folder: Path, old: str, with_new: str) -> Path:
    assert old in ARM
    return write(folder, ARM.replace(old, with_new, 1))


def lift(arm: ArmUrdf) -> ElementTree.Element:
    return next(joint for joint in arm.root.findall("joint") if joint.get("name") == "lift")


def test_a_missing_velocity_limit_is_a_guess_that_is_named(tmp_path):
    arm = read_arm(changed(tmp_path, ' velocity="1.5"', ""))
    assert arm.joints[0].velocity > 0 and arm.joints[0].guessed == ("velocity",)
    assert arm.joints[1].guessed == ()


def test_a_velocity_limit_that_no_joint_has_is_kept_and_doubted(tmp_path):
    joint = read_arm(changed(tmp_path, 'velocity="1.5"', 'velocity="100"')).joints[0]
    assert joint.velocity == 100 and "velocity" in joint.guessed[0]


def test_a_continuous_joint_gets_one_turn_and_is_named(tmp_path):
    text = ARM.replace('name="lift" type="revolute"', 'name="lift" type="continuous"')
    arm = read_arm(
        write(
            tmp_path, text.replace(f'{LIMIT}</joint>\n  <link name="hand"', '</joint>\n  <link name="hand"')
        )
    )
    joint = arm.joints[1]
    assert (joint.lower, joint.upper) == pytest.approx((-math.pi, math.pi), abs=1e-5)
    assert set(joint.guessed) == {"lower", "upper", "velocity"}
    assert lift(arm).get("type") == "revolute"
    assert float(lift(arm).find("limit").get("effort")) > 0


@pytest.mark.parametrize(
    "old, with_new, words",
    [
        (' effort="30"', "", "pan has no effort limit"),
        ('<mass value="1"/>', '<mass value="0"/>', "upper has no mass"),
        (f"<collision>{SOLID}</collision>", "", "upper has no collision geometry"),
    ],
)
def test_what_the_simulator_needs_and_lacks_is_filled_in_and_named(tmp_path, old, with_new, words):
    arm = read_arm(changed(tmp_path, old, with_new))
    arm.replace_meshes(tmp_path, "meshes")
    assert [guess for guess in arm.guesses if words in guess]
    for link in arm.root.findall("link"):
        assert float(link.find("inertial/mass").get("value")) > 0
    assert arm.root.find("link[@name='upper']/collision/geometry/box") is not None
    assert all(float(limit.get("effort")) > 0 for limit in arm.root.iter("limit"))


XACRO = '<xacro:arm xmlns:xacro="http://ros.org/wiki/xacro"/></robot>'
RING = '<joint name="ring" type="fixed"><parent link="hand"/><child link="base"/></joint></robot>'
REFUSED = {
    "not XML": (ARM.replace("<robot", "<<robot"), "not a readable URDF"),
    "something else": ("<sdf/>", "root element is <sdf>"),
    "a xacro": (
        ARM.replace("</robot>", XACRO),
        "is a xacro file; give the URDF that `xacro arm.urdf` prints",
    ),
    "no joints": ('<robot name="stone"><link name="stone"/></robot>', "no chain of movable joints"),
    "no limit": (ARM.replace(LIMIT, "", 1), "joint pan has no <limit>"),
    "limits turned over": (ARM.replace('lower="-2"', 'lower="3"'), "limit 3 is not below upper limit 2"),
    "limit that is no number": (ARM.replace('upper="2"', 'upper="many"'), "upper='many' is not a finite"),
    "infinite limit": (ARM.replace('upper="2"', 'upper="inf"'), "upper='inf' is not a finite number"),
    "mimic in the chain": (ARM.replace(LIMIT, LIMIT + '<mimic joint="lift"/>', 1), "pan on the way to hand"),
    "planar in the chain": (ARM.replace('"revolute"', '"planar"', 1), "pan on the way to hand is of type"),
    "links in a ring": (ARM.replace("</robot>", RING), "links form a ring"),
    "missing mesh": (ARM.replace(BOX, '<mesh filename="gone.stl"/>'), "mesh 'gone.stl' is not found"),
    "mesh that is none": (ARM.replace(BOX, '<mesh filename="arm.urdf"/>'), "not a readable mesh"),
    "scale that is none": (ARM.replace(BOX, '<mesh filename="arm.urdf" scale="big"/>'), "scale 'big'"),
    "a tool that cannot point down": (ARM, "2 joints reach no box over the table"),
}


@pytest.mark.parametrize("text, words", REFUSED.values(), ids=REFUSED)
def test_a_urdf_that_cannot_do_is_refused_in_one_line_and_leaves_nothing(tmp_path, capsys, text, words):
    out = tmp_path / "out"
    assert new(write(tmp_path, text), out) == 2
    error = capsys.readouterr().err
    assert words in error and "arm.urdf" in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_tool_that_no_joint_moves_is_refused(tmp_path):
    with pytest.raises(RobotError, match="no movable joint between base and base"):
        read_arm(write(tmp_path, ARM), "base")


WRONG = {
    "no such file": (["--urdf", "gone.urdf"], "gone.urdf: no such URDF"),
    "no such tool": (["--tool-link", "claw"], "no link 'claw'; its links: base, upper, hand"),
    "peg too short": (["--peg", "0.01"], "a peg of 0.01 m"),
    "peg that is no number": (["--peg", "nan"], "a peg of nan m"),
    "name with a path": (["--name", "a/b"], "--name 'a/b'"),
    "name of a file": (["--name", "arm.yaml"], "--name 'arm.yaml'"),
}


@pytest.mark.parametrize("arguments, words", WRONG.values(), ids=WRONG)
def test_a_wrong_argument_is_refused_in_one_line(tmp_path, capsys, arguments, words):
    assert new(write(tmp_path, ARM), tmp_path / "out", *arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


# Meshes


def sphere(rings: int) -> tuple[np.ndarray, np.ndarray]:
    """A ball of radius 1 with 2·rings² triangles."""
    up, around = np.meshgrid(np.linspace(0, np.pi, rings + 1), np.arange(rings) * 2 * np.pi / rings)
    up, around = up.T.reshape(-1), around.T.reshape(-1)
    vertices = np.stack([np.sin(up) * np.cos(around), np.sin(up) * np.sin(around), np.cos(up)], axis=1)
    i, j = (grid.reshape(-1) for grid in np.meshgrid(np.arange(rings), np.arange(rings)))
    a, b = i * rings + j, i * rings + (j + 1) % rings
    return vertices, np.concatenate([np.stack([a, a + rings, b], 1), np.stack([b, a + rings, b + rings], 1)])


@settings(max_examples=30)
@given(st.integers(4, 40), st.integers(50, 800), st.floats(0.001, 1000.0))
def test_a_simplified_mesh_is_small_enough_and_keeps_its_shape(rings, most, size):
    vertices, triangles = sphere(rings)
    fewer = simplified(vertices * size, triangles, most)
    assert 0 < len(fewer[1]) <= most
    radius = np.linalg.norm(fewer[0][np.unique(fewer[1])], axis=1) / size
    assert radius.max() <= 1 + 1e-9 and radius.min() > 0.5
    a, b, c = (fewer[0][fewer[1][:, k]] for k in range(3))
    outwards = (np.cross(b - a, c - a) * (a + b + c)).sum(axis=1)
    assert np.mean(outwards >= 0) > 0.9


def test_a_mesh_that_is_small_enough_is_not_touched():
    vertices, triangles = sphere(10)
    same = simplified(vertices, triangles, 200)
    np.testing.assert_array_equal(same[0], vertices)
    np.testing.assert_array_equal(same[1], triangles)


def test_a_mesh_is_written_and_read_again_to_scale(tmp_path):
    vertices, triangles = sphere(6)
    write_obj(tmp_path / "ball.obj", vertices, triangles)
    again, corners = load_mesh(tmp_path / "ball.obj", (2.0, 2.0, 2.0))
    np.testing.assert_allclose(np.abs(again).max(axis=0), 2 * np.abs(vertices).max(axis=0), atol=1e-4)
    assert len(corners) > 0


def test_a_package_mesh_is_found_in_the_folders_above(tmp_path):
    source = tmp_path / "arm_description" / "urdf" / "arm.urdf"
    mesh = tmp_path / "arm_description" / "meshes" / "link.stl"
    for path in (source, mesh):
        path.parent.mkdir(parents=True)
        path.touch()
    assert find_mesh("package://arm_description/meshes/link.stl", source) == mesh
    assert find_mesh("../meshes/link.stl", source).samefile(mesh)
    assert find_mesh(f"file://{mesh}", source) == mesh
    with pytest.raises(RobotError, match="package://other/link.stl"):
        find_mesh("package://other/link.stl", source)
