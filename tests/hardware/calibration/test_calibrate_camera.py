"""`jepa-arm calibrate camera` on pictures rendered of a board on the Panda's tool."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest

import cli
from hardware.arm.config import load_arm_config
from hardware.arm.contract import JointCommand, JointState
from hardware.arm.emulator.process import FakeArm
from hardware.calibration import capture as capturing
from hardware.calibration import robot_file
from hardware.calibration.camera import make_arm
from hardware.calibration.pose import Pose
from hardware.calibration.views import SCENE, add_view, read_picture
from hardware.camera.contract import Frame
from hardware.camera.source import CameraSource
from hardware.errors import ArmError, CalibrationError, RobotError
from hardware.kinematics import Kinematics
from hardware.robot import ROBOTS_DIR, load_robot

from .rendered import BOARD, LENS, looking_at, render
from .test_moved import noisy, scene, turned

CAMERA = looking_at(np.array([0.9, 0.12, 0.45]), np.array([0.47, 0.0, 0.18]))
VIEWS = 14
OPTIONS = ["--board", "7x5", "--square-mm", "25", "--marker-mm", "18"]


@pytest.fixture(scope="session")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of views: the board faces the camera at home, then the arm's joints are turned at random."""
    folder = tmp_path_factory.mktemp("calibration") / "panda"
    rng = np.random.default_rng(2)
    robot = load_robot("panda")
    kinematics = Kinematics(robot)
    home = robot.home
    position, rotation = kinematics.tool_pose(home)
    middle = np.array([BOARD.columns, BOARD.rows, 0.0]) * BOARD.square_m / 2
    facing = Pose(CAMERA.rotation, np.array([0.5, 0.02, 0.2]) - CAMERA.rotation @ middle)
    tool_from_board = Pose(rotation, position).inverse() @ facing
    spread = np.array([0.12, 0.1, 0.25, 0.15, 0.45, 0.35, 0.6])
    views = 0
    while views < VIEWS:
        joints = home + rng.uniform(-spread, spread)
        position, rotation = kinematics.tool_pose(joints)
        camera_from_board = CAMERA.inverse() @ Pose(rotation, position) @ tool_from_board
        image = render(camera_from_board, rng)
        if BOARD.find(image) is not None:
            add_view(folder, image, dict(zip(robot.joint_names, joints)))
            views += 1
    return folder


@pytest.fixture
def folder(taken: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(taken, tmp_path / "views"))


@pytest.fixture
def robot(tmp_path: Path) -> Path:
    for name in ("panda.yaml", "panda_peg.urdf"):
        shutil.copy(ROBOTS_DIR / name, tmp_path / name)
    return tmp_path / "panda.yaml"


@pytest.fixture(scope="session")
def calibrated(taken: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The robot file after a calibration with a picture of the scene. Read it only."""
    home = tmp_path_factory.mktemp("calibrated")
    for name in ("panda.yaml", "panda_peg.urdf"):
        shutil.copy(ROBOTS_DIR / name, home / name)
    folder = Path(shutil.copytree(taken, home / "views"))
    cv2.imwrite(str(folder / SCENE), scene()[:, :, ::-1])
    assert calibrate(home / "panda.yaml", folder) == 0
    return home / "panda.yaml"


def calibrate(robot: Path, folder: Path, *more: str) -> int:
    return cli.main(["calibrate", "camera", "--robot", str(robot), "--views", str(folder), *OPTIONS, *more])


def test_the_camera_is_found_within_millimetres_and_written_into_the_robot_file(calibrated):
    found = load_robot(calibrated).camera_calibration
    assert found is not None and found.views == VIEWS
    pose = Pose.from_rotvec(found.rotation_vector, found.position)
    difference = CAMERA.inverse() @ pose
    assert np.linalg.norm(difference.position) < 0.002
    assert np.degrees(np.linalg.norm(difference.rotvec)) < 0.3
    assert np.linalg.norm(difference.position) < 4 * found.position_std_m
    assert abs(found.fx - LENS.fx) < 6.0 and abs(found.fy - LENS.fy) < 6.0
    assert found.lens_rms_px < 0.3 and found.pose_rms_px < 0.5


def test_comments_and_all_that_is_not_the_camera_stay_as_they_were(calibrated):
    before, after = (ROBOTS_DIR / "panda.yaml").read_text(), calibrated.read_text()
    comments = re.findall(r"#.*", before)
    assert [line for line in comments if line not in after] == []
    unchanged = before[: before.index("# A pinhole camera")]
    assert after.startswith(unchanged), "what has nothing to do with the camera was changed"
    found = load_robot(calibrated).camera_calibration
    assert found is not None and found.reference == calibrated.parent / "panda_camera.png"
    assert (read_picture(found.reference) == scene()).all()


def test_the_pinhole_of_the_robot_file_shows_what_the_lens_shows(calibrated):
    loaded = load_robot(calibrated)
    mount, low, high = loaded.camera, loaded.workspace.min, loaded.workspace.max
    points = np.random.default_rng(0).uniform(low, high, (200, 3))
    inverse = CAMERA.inverse()
    seen, _ = cv2.projectPoints(
        points, inverse.rotvec, inverse.position, LENS.matrix, np.array(LENS.distortion)
    )
    scale = mount.height / LENS.height
    seen = (seen.reshape(-1, 2) + 0.5 - [(LENS.width - LENS.height) / 2, 0]) * scale - 0.5
    ahead = np.subtract(mount.target, mount.position) / np.linalg.norm(
        np.subtract(mount.target, mount.position)
    )
    right = np.cross(ahead, mount.up) / np.linalg.norm(np.cross(ahead, mount.up))
    view = Pose(np.stack([right, np.cross(ahead, right), ahead], axis=1), np.array(mount.position))
    focal = mount.height / 2 / np.tan(mount.vertical_fov / 2)
    in_camera = (points - view.position) @ view.rotation
    drawn = in_camera[:, :2] / in_camera[:, 2:] * focal + (mount.width - 1) / 2
    inside = ((drawn > 0) & (drawn < mount.width - 1)).all(axis=1)
    assert inside.sum() > 50
    assert np.median(np.linalg.norm(drawn - seen, axis=1)[inside]) < 1.0


def test_the_residuals_are_drawn(robot, folder):
    assert calibrate(robot, folder, "--dry-run") == 0
    picture = read_picture(folder / "residuals.png")
    assert picture.shape[1] == 4 * 480 and picture.shape[0] >= 4 * 360
    green = (picture == (60, 220, 60)).all(axis=2).sum()
    assert green > 1000
    assert load_robot(robot).camera_calibration is None


def test_a_second_calibration_replaces_the_first(calibrated, robot, folder, capsys):
    robot.write_text(calibrated.read_text())
    first = load_robot(calibrated)
    assert calibrate(robot, folder) == 0
    shown = capsys.readouterr().out
    assert re.search(r"camera at x 0\.\d+, y 0\.\d+, z 0\.\d+ m \(± \d\.\d mm", shown)
    assert "nobody will notice if the camera is moved later" in shown
    second = load_robot(robot)
    assert second.camera_calibration is not None and first.camera_calibration is not None
    assert second.camera_calibration.position == first.camera_calibration.position
    assert second.camera_calibration.reference is None
    np.testing.assert_allclose(second.camera.target, first.camera.target, atol=2e-5)
    assert robot.read_text().count("camera_calibration") == 1


def test_a_view_whose_joints_are_wrong_is_named_and_does_no_harm(robot, folder, capsys):
    views = json.loads((folder / "views.json").read_text())
    views["003.png"]["panda_joint1"] += 0.1
    (folder / "views.json").write_text(json.dumps(views))
    assert calibrate(robot, folder) == 0
    assert "left out, as they do not fit: 003.png" in capsys.readouterr().out
    found = load_robot(robot).camera_calibration
    assert found is not None and np.linalg.norm(np.subtract(found.position, CAMERA.position)) < 0.002


def test_an_arm_that_is_not_where_it_says_is_refused_and_nothing_is_written(robot, folder, capsys):
    before = robot.read_text()
    rng = np.random.default_rng(1)
    views = json.loads((folder / "views.json").read_text())
    for joints in views.values():
        for name in joints:
            joints[name] += rng.normal(0.0, 0.05)
    (folder / "views.json").write_text(json.dumps(views))
    assert calibrate(robot, folder) == 2
    assert re.search("arm and camera agree to|do not fit the others", capsys.readouterr().err)
    assert robot.read_text() == before


def test_a_robot_file_that_would_not_load_is_not_written(robot, folder, monkeypatch):
    before = robot.read_text()
    monkeypatch.setattr(robot_file, "pinhole", lambda *_: {"vertical_fov": 9.0})
    with pytest.raises(RobotError, match="vertical_fov"):
        cli.run(
            cli.make_parser(["calibrate"]).parse_args(
                ["calibrate", "camera", "--robot", str(robot), "--views", str(folder), *OPTIONS]
            )
        )
    assert robot.read_text() == before
    assert sorted(path.name for path in robot.parent.glob(".*")) == []


def test_what_is_missing_is_named(robot, folder, tmp_path, capsys):
    views = json.loads((folder / "views.json").read_text())
    del views["000.png"]["panda_joint4"]
    (folder / "views.json").write_text(json.dumps(views))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "views.json").write_text("[")
    for arguments, words in (
        (
            ["--views", str(tmp_path / "nothing")],
            "views.json: no such file; take views with --camera and --arm",
        ),
        (["--views", str(tmp_path / "damaged")], "not a list of views"),
        (["--views", str(folder)], "000.png was taken without the joint panda_joint4"),
        (["--camera", "uvc:0"], "add --arm"),
        (["--camera", "uvc:0", "--arm", "no.such:Arm"], "--arm no.such:Arm makes no arm"),
        (["--board", "seven"], "--board seven"),
        (["--marker-mm", "30"], "markers of 30 mm do not fit squares of 25 mm"),
        (["--dictionary", "DICT_0"], "no marker dictionary DICT_0"),
        (["--check", "--camera", f"file:{folder}"], "no calibration with a picture of the scene"),
    ):
        assert cli.main(["calibrate", "camera", "--robot", str(robot), *arguments]) == 2, arguments
        shown = capsys.readouterr().err
        assert words in shown and shown.count("\n") == 1


def test_the_board_that_is_printed_is_the_one_that_is_found(tmp_path, capsys):
    path = tmp_path / "print" / "board.png"
    assert cli.main(["calibrate", "camera", "--print-board", str(path), *OPTIONS]) == 0
    assert "175 x 125 mm" in capsys.readouterr().out
    page = cv2.copyMakeBorder(read_picture(path), *[200] * 4, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    found = BOARD.find(cv2.resize(page, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA))
    assert found is not None and len(found.pixels) == 24


class HeldArm:
    """An arm that somebody's hand has put where `joints` says."""

    joint_names = ("shoulder", "elbow")

    def __init__(self) -> None:
        self.joints = np.zeros(2)
        self.drift = np.zeros(2)
        self.connected = False

    def connect(self) -> None:
        self.connected = True

    def state(self) -> JointState:
        self.joints = self.joints + self.drift
        return JointState(self.joint_names, self.joints.copy(), np.zeros(2), 1)

    def command(self, command: JointCommand) -> JointCommand:
        raise AssertionError("calibrating a camera moves no arm")

    def stop(self) -> None: ...

    def disconnect(self) -> None:
        self.connected = False


class Pointed:
    """A camera whose picture is whatever `image` is, with new noise in every frame."""

    def __init__(self) -> None:
        self.image = scene()
        self.number = 0

    def open(self) -> None: ...

    def read(self, timeout_s: float) -> Frame:
        self.number += 1
        taken_ns, image = time.time_ns(), self.image
        return Frame(noisy(image, seed=self.number), taken_ns, "camera")

    def close(self) -> None: ...


def test_views_are_taken_one_by_one_and_bad_ones_are_not(taken, tmp_path):
    arm, camera = HeldArm(), Pointed()
    pictures = [read_picture(taken / name) for name in ("000.png", "001.png")]

    def pose(image: np.ndarray, joints: tuple[float, float], drift: float = 0.0) -> Callable[[], str]:
        def step() -> str:
            camera.image, arm.joints, arm.drift = image, np.array(joints), np.full(2, drift)
            return ""

        return step

    def done() -> str:
        camera.image, arm.drift = scene(), np.zeros(2)
        return "d"

    steps = [
        pose(pictures[0], (0.1, 0.2)),
        pose(pictures[0], (0.1, 0.2), drift=0.01),  # moving
        pose(scene(), (0.1, 0.2)),  # no board
        pose(pictures[1], (0.3, 0.4)),
        done,
        lambda: "",
    ]
    told: list[str] = []
    source = CameraSource("camera", lambda: camera, None, live=True)
    capturing.capture(tmp_path / "new", source, arm, BOARD, lambda question: steps.pop(0)(), told.append)
    views = json.loads((tmp_path / "new" / "views.json").read_text())
    assert views == {
        "000.png": {"shoulder": 0.1, "elbow": 0.2},
        "001.png": {"shoulder": 0.3, "elbow": 0.4},
    }
    assert BOARD.find(read_picture(tmp_path / "new" / "001.png")) is not None
    assert np.abs(read_picture(tmp_path / "new" / SCENE).astype(int) - scene()).mean() < 5
    assert any("the arm moved" in line for line in told) and any("not found" in line for line in told)
    assert any(re.match(r"view 2, 001.png: \d+ corners over \d+% of the picture", line) for line in told)
    assert not arm.connected


def test_a_terminal_that_closes_keeps_the_views_taken_so_far(taken, tmp_path):
    arm, camera = HeldArm(), Pointed()
    camera.image = read_picture(taken / "000.png")
    answers = iter([""])

    def ask(question: str) -> str:
        try:
            return next(answers)
        except StopIteration:
            raise EOFError from None

    source = CameraSource("camera", lambda: camera, None, live=True)
    with pytest.raises(CalibrationError, match="views taken so far are kept"):
        capturing.capture(tmp_path / "new", source, arm, BOARD, ask, lambda line: None)
    assert list(json.loads((tmp_path / "new" / "views.json").read_text())) == ["000.png"]
    assert not arm.connected


def test_a_servo_arm_by_name_is_led_by_hand_and_holds_itself_for_each_view(taken, tmp_path):
    robot = load_robot("so101")
    home = {joint.name: joint.home for joint in robot.joints}
    camera = Pointed()
    camera.image = read_picture(taken / "000.png")
    held: list[bool] = []
    with FakeArm(load_arm_config("so101-feetech"), home) as port:
        board = mock.Mock(wraps=BOARD)
        board.find.side_effect = lambda image: held.append(all(port.torques().values())) or mock.DEFAULT

        def lead() -> str:
            assert limp(port), "it cannot be led"
            port.turn(1, 2048 + 300)
            return ""

        steps = [lambda: "", lambda: "", lambda: "", lead, lambda: "", lambda: "d", lambda: "s"]
        arm = make_arm("feetech", robot, port.path)
        source = CameraSource("camera", lambda: camera, None, live=True)
        capturing.capture(tmp_path / "new", source, arm, board, lambda question: steps.pop(0)(), print)
        assert limp(port), "limp at the end, as it was said"
    views = json.loads((tmp_path / "new" / "views.json").read_text())
    assert views["000.png"]["shoulder_pan"] == pytest.approx(0.0, abs=0.003)
    assert views["001.png"]["shoulder_pan"] == pytest.approx(300 * 2 * np.pi / 4096, abs=0.003)
    assert held == [True, True], "it was not held while a view was taken"
    with pytest.raises(ArmError, match="no arm file for robot 'so101' on bus dynamixel"):
        make_arm("dynamixel", robot, None)


def limp(port: FakeArm) -> bool:
    """Whether all servos are, once they have taken what was just written to them."""
    give_up_s = time.monotonic() + 10.0
    while any(port.torques().values()) and time.monotonic() < give_up_s:
        time.sleep(0.001)
    return not any(port.torques().values())


def play(folder: Path, image: np.ndarray) -> str:
    """A camera that sees this."""
    folder.mkdir()
    for i in range(12):
        cv2.imwrite(str(folder / f"{i:02}.png"), noisy(image, seed=i)[:, :, ::-1])
    return f"file:{folder}"


def test_a_camera_that_was_moved_since_is_told_with_the_pixels(calibrated, tmp_path, capsys):
    for name, image, code, words in (
        ("same", scene(), 0, "in place since its calibration"),
        ("turned", turned(scene(), 14 / LENS.fx, 0.0), 1, r"camera moved since calibration: 1[345] px"),
        ("other", scene(55), 1, "cannot tell"),
    ):
        camera = play(tmp_path / name, image)
        assert calibrate(calibrated, tmp_path, "--check", "--camera", camera) == code, name
        assert re.search(words, capsys.readouterr().out)
