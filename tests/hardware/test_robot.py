from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from hardware.errors import RobotError
from hardware.kinematics import Kinematics
from hardware.robot import ROBOTS_DIR, Robot, load_robot, robot_names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with copies of the Panda's robot files and URDFs, to be spoilt."""
    for name in ("panda.yaml", "panda_peg.urdf", "panda_hand.yaml", "panda_hand.urdf"):
        shutil.copy(ROBOTS_DIR / name, tmp_path / name)
    return tmp_path


def edit(folder: Path, change, name: str = "panda.yaml") -> Path:
    path = folder / name
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def edit_urdf(folder: Path, old: str, new: str) -> Path:
    path = folder / "panda_peg.urdf"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return folder / "panda.yaml"


def message(path: Path) -> str:
    """The message with which the robot file is refused: one line that names the file."""
    with pytest.raises(RobotError) as caught:
        load_robot(path)
    text = str(caught.value)
    assert "\n" not in text
    assert path.name in text
    return text


def test_every_robot_that_is_shipped_loads():
    assert "panda" in robot_names()
    for name in robot_names():
        assert load_robot(name).name == name


def test_a_robot_is_found_by_name_and_by_path(folder):
    assert load_robot("panda").joint_names == load_robot(folder / "panda.yaml").joint_names
    assert load_robot(str(folder / "panda.yaml")).urdf == folder / "panda_peg.urdf"


def test_the_panda_at_home_points_its_peg_straight_down_over_the_table(robot):
    position, rotation = Kinematics(robot).tool_pose(robot.home)
    np.testing.assert_allclose(position, [0.45, 0.0, 0.12], atol=1e-4)
    np.testing.assert_allclose(rotation[:, 2], [0.0, 0.0, -1.0], atol=1e-4)


def test_limits_come_in_the_order_of_the_joints(robot):
    assert robot.joint_names == tuple(f"panda_joint{i}" for i in range(1, 8))
    np.testing.assert_array_equal(robot.velocity_limits, [2.175] * 4 + [2.61] * 3)
    np.testing.assert_array_equal(robot.acceleration_limits, [15, 7.5, 10, 12.5, 15, 20, 20])
    np.testing.assert_array_equal(robot.jerk_limits, [7500, 3750, 5000, 6250, 7500, 10000, 10000])
    assert robot.position_lower[3] == -3.0718 and robot.position_upper[3] == -0.0698
    assert np.all(robot.position_lower < robot.home) and np.all(robot.home < robot.position_upper)
    np.testing.assert_array_less(robot.workspace_min, robot.workspace_max)


def test_a_robot_does_not_change_after_loading(robot):
    with pytest.raises(ValueError):
        robot.name = "other"
    with pytest.raises(ValueError):
        robot.home[0] = 1.0


SPOILT = {
    "unknown key": (lambda c: c.update(colour="red"), "colour: unknown key"),
    "unknown key in a joint": (lambda c: c["joints"][2].update(velocty=1.0), "joints.2.velocty: unknown key"),
    "missing key": (lambda c: c.pop("tool_link"), "tool_link: missing key"),
    "missing key in the camera": (lambda c: c["camera"].pop("up"), "camera.up: missing key"),
    "no joints": (lambda c: c.update(joints=[]), "joints:"),
    "lower above upper": (
        lambda c: c["joints"][0].update(lower=3.0),
        "panda_joint1: lower limit 3 is not below",
    ),
    "equal limits": (lambda c: c["joints"][0].update(lower=1.0, upper=1.0), "panda_joint1: lower limit"),
    "home outside": (lambda c: c["joints"][3].update(home=0.5), "panda_joint4: home 0.5 is outside"),
    "no velocity": (
        lambda c: c["joints"][1].update(velocity=0.0),
        "joints.1.velocity: input should be greater",
    ),
    "negative acceleration": (lambda c: c["joints"][1].update(acceleration=-1.0), "joints.1.acceleration:"),
    "infinite jerk": (lambda c: c["joints"][1].update(jerk=float("inf")), "joints.1.jerk:"),
    "NaN limit": (lambda c: c["joints"][6].update(upper=float("nan")), "joints.6.upper:"),
    "text for a number": (lambda c: c["joints"][6].update(upper="2.9"), "joints.6.upper:"),
    "limits wider than the URDF": (
        lambda c: c["joints"][6].update(upper=3.1),
        "joints.6: limits -2.8973 to 3.1",
    ),
    "workspace turned over": (lambda c: c["workspace"].update(min=[0.3, -0.2, 0.5]), "on the z axis"),
    "workspace in the plane": (lambda c: c["workspace"].update(min=[0.3, -0.2]), "workspace.min"),
    "no pixels": (lambda c: c["camera"].update(width=0), "camera.width:"),
    "half a pixel": (lambda c: c["camera"].update(width=127.5), "camera.width:"),
    "field of view in degrees": (lambda c: c["camera"].update(vertical_fov=43.0), "camera.vertical_fov:"),
    "camera looking at itself": (lambda c: c["camera"].update(target=c["camera"]["position"]), "camera:"),
    "camera looking along up": (
        lambda c: c["camera"].update(position=[0, 0, 1], target=[0, 0, 0]),
        "camera:",
    ),
    "missing URDF": (lambda c: c.update(urdf="gone.urdf"), "urdf: "),
    "no such base link": (
        lambda c: c.update(base_link="floor"),
        "base_link: panda_peg.urdf has no link 'floor'",
    ),
    "no such tool link": (
        lambda c: c.update(tool_link="hand"),
        "tool_link: panda_peg.urdf has no link 'hand'",
    ),
    "no such joint": (lambda c: c["joints"][4].update(name="elbow"), "no joint 'elbow'"),
    "fixed joint": (lambda c: c["joints"][4].update(name="peg_joint"), "peg_joint is not a revolute"),
    "no such gripper": (
        lambda c: c.update(gripper={"joint": "finger", "closed": 0.0, "open": 0.04}),
        "gripper.joint: panda_peg.urdf has no joint 'finger'",
    ),
    "joint left out": (lambda c: c["joints"].pop(3), "must list the movable joints"),
    "joints in another order": (lambda c: c["joints"].reverse(), "panda_joint1, panda_joint2"),
    "joint twice": (lambda c: c["joints"].append(c["joints"][6]), "must list the movable joints"),
    "base that is not the root": (lambda c: c.update(base_link="panda_link1"), "name its root, panda_link0"),
}


@pytest.mark.parametrize("spoil, expected", SPOILT.values(), ids=SPOILT)
def test_a_robot_file_that_cannot_work_is_refused_naming_file_and_key(folder, spoil, expected):
    assert expected in message(edit(folder, spoil))


GRIPPER_SPOILT = {
    "not the last joint": (lambda c: c["joints"].insert(0, c["joints"].pop()), "the gripper's last"),
    "not among the joints": (lambda c: c["joints"].pop(), "panda_joint7, panda_finger_joint1"),
    "among the joints of no gripper": (lambda c: c.pop("gripper"), "must list the movable joints"),
    "the finger that follows": (
        lambda c: c["gripper"].update(joint="panda_finger_joint2"),
        "the gripper's last: .*panda_finger_joint2",
    ),
    "wider than the URDF": (
        lambda c: c["joints"][7].update(upper=0.05, home=0.04),
        "joints.7: limits 0 to 0.05",
    ),
}


@pytest.mark.parametrize("spoil, expected", GRIPPER_SPOILT.values(), ids=GRIPPER_SPOILT)
def test_a_gripper_that_is_not_the_last_joint_as_described_is_refused(folder, spoil, expected):
    assert re.search(expected, message(edit(folder, spoil, "panda_hand.yaml")))


def test_joints_that_mimic_a_driven_one_are_found():
    hand = load_robot("panda_hand")
    assert hand.mimics == {"panda_finger_joint2": "panda_finger_joint1"}
    assert hand.joint_names[-1] == hand.gripper.joint == "panda_finger_joint1"
    assert load_robot("panda").mimics == {}


def test_a_joint_that_mimics_one_outside_the_robot_file_is_left_alone(folder):
    urdf = folder / "panda_hand.urdf"
    urdf.write_text(
        urdf.read_text().replace('<mimic joint="panda_finger_joint1"', '<mimic joint="elsewhere"')
    )
    assert load_robot(folder / "panda_hand.yaml").mimics == {}


def test_the_hand_at_home_points_straight_down_and_is_open():
    hand = load_robot("panda_hand")
    position, rotation = Kinematics(hand).tool_pose(hand.home)
    np.testing.assert_allclose(position[:2], [0.45, 0.0], atol=1e-3)
    np.testing.assert_allclose(rotation[:, 2], [0.0, 0.0, -1.0], atol=1e-4)
    assert hand.home[-1] == hand.gripper.open == hand.position_upper[-1]


URDF_SPOILT = {
    "not XML": ("<robot", "<<robot", "not a readable URDF"),
    "joint without limits": (
        '<limit lower="-2.8973" upper="2.8973" velocity="2.175" effort="87"/>',
        "",
        "panda_joint1 is not a revolute or prismatic joint with limits",
    ),
    "limits that are no numbers": ('lower="-1.7628"', 'lower="low"', "panda_joint2"),
}


@pytest.mark.parametrize("old, new, expected", URDF_SPOILT.values(), ids=URDF_SPOILT)
def test_a_urdf_that_cannot_work_is_refused(folder, old, new, expected):
    assert expected in message(edit_urdf(folder, old, new))


def test_a_urdf_whose_links_form_a_ring_is_refused(folder):
    ring = (
        '<joint name="ring" type="fixed"><parent link="peg_tip"/><child link="panda_link0"/></joint></robot>'
    )
    assert "base_link" in message(edit_urdf(folder, "</robot>", ring))


@pytest.mark.parametrize("text", ["", "just words", "- a\n- list", "a: [1", "\t:"])
def test_a_file_that_holds_no_robot_is_refused(folder, text):
    path = folder / "panda.yaml"
    path.write_text(text)
    message(path)


def test_a_file_that_is_not_text_is_refused(folder):
    path = folder / "panda.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    assert "cannot be read" in message(path)


def test_a_name_nobody_knows_is_answered_with_the_known_ones():
    with pytest.raises(RobotError, match="'pandah'.*known: .*panda"):
        load_robot("pandah")


def test_a_path_that_is_not_there_is_named(tmp_path):
    assert "no such robot file" in message(tmp_path / "mine.yaml")


def test_mesh_names_become_absolute_and_a_missing_mesh_is_named(folder, tmp_path, robot: Robot):
    meshes = tmp_path / "meshes"
    for i in range(8):
        mesh = meshes / f"franka_panda/meshes/collision/link{i}.obj"
        mesh.parent.mkdir(parents=True, exist_ok=True)
        mesh.touch()
    text = robot.urdf_text(meshes)
    assert f'filename="{meshes}/franka_panda/meshes/collision/link7.obj"' in text
    assert 'filename="franka_panda' not in text
    mesh.unlink()
    with pytest.raises(RobotError, match="link7.obj"):
        robot.urdf_text(meshes)


def test_the_simulator_can_load_the_urdf_with_its_meshes(tmp_path, robot: Robot):
    pybullet = pytest.importorskip("pybullet")
    pybullet_data = pytest.importorskip("pybullet_data")
    urdf = tmp_path / "panda.urdf"
    urdf.write_text(robot.urdf_text(pybullet_data.getDataPath()))
    client = pybullet.connect(pybullet.DIRECT)
    try:
        body = pybullet.loadURDF(str(urdf), useFixedBase=True, physicsClientId=client)
        info = [pybullet.getJointInfo(body, i, physicsClientId=client) for i in range(10)]
        index = {joint[1].decode(): joint[0] for joint in info}
        tip = next(joint[0] for joint in info if joint[12].decode() == robot.tool_link)
        q = robot.home + 0.1
        for name, value in zip(robot.joint_names, q):
            pybullet.resetJointState(body, index[name], value, physicsClientId=client)
        state = pybullet.getLinkState(body, tip, computeForwardKinematics=True, physicsClientId=client)
        np.testing.assert_allclose(state[4], Kinematics(robot).tool_position(q), atol=1e-5)
    finally:
        pybullet.disconnect(client)
