"""`jepa-arm up` on real devices, as a user types it: a camera's file, emulated servos, a bundle for that arm.

For ros2_control the simulator stands in: it takes and gives the controllers' topics.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from jepa_arm_bringup.graph import node_environment
from jepa_arm_interfaces.action import PursueGoal
from jepa_arm_interfaces.msg import PlanStatus, SafetyStatus
from jepa_arm_ros import qos
from jepa_arm_ros.messages import image_message
from rclpy.action import ActionClient
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

import cli
from hardware.arm.config import ARMS_DIR, arm_config_for
from hardware.arm.emulator.process import FakeArm
from hardware.camera.contract import Frame
from hardware.kinematics import Kinematics
from hardware.robot import load_robot
from perception.dataset import DatasetInfo

from ..conftest import EPISODES, TINY_SETTINGS, describe, draw_episodes
from .conftest import STARTS_WITHIN_S, Peer, now_ns
from .up_command import ROOT, StartUp, Up

pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]  # it trains and exports first

PICTURES, PLAYED = 40, 6000  # at 30 Hz: longer than any of these tests takes
SETPOINTS = "joint_trajectory_controller/joint_trajectory"
MOVED_RAD, MOVES_WITHIN_S = 0.02, 90.0
LATELY_S, MOST_S, FRAME_S = 0.05, 0.2, 1 / 30
AT_REST = (SafetyStatus.IDLE, SafetyStatus.STOPPED)
INTERRUPTED = 130

StartControllers = Callable[[int], None]


@pytest.fixture(scope="module")
def so101_bundle(make_dataset: Callable[..., DatasetInfo], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for the SO-101, of drawn episodes around its home: real in all but its skill."""
    robot = load_robot("so101")
    folder = tmp_path_factory.mktemp("so101")
    data, run, bundle, recipe = (folder / name for name in ("data", "run", "so101-push", "tiny.yaml"))
    given = {"robot": "so101", "camera": robot.camera.model_dump(mode="json")}
    drawn = draw_episodes(describe(**given), EPISODES)
    home = Kinematics(robot).tool_position(robot.home)
    around_home = drawn.tool + np.append(home[:2], 0.0) - drawn.tool.mean((0, 1)) * (1.0, 1.0, 0.0)
    make_dataset(data, replace(drawn, tool=around_home.astype(np.float32)), **given)
    recipe.write_text(yaml.safe_dump(TINY_SETTINGS))
    for command in (
        ["train", "--data", str(data), "--out", str(run), "--config", str(recipe)],
        ["export", "--run", str(run), "--out", str(bundle)],
    ):
        assert cli.main(command) == 0, command
    return bundle


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A folder of pictures in which something moves to and fro for some minutes."""
    folder = tmp_path / "film"
    folder.mkdir()
    (tmp_path / "pictures").mkdir()
    play(folder)
    for i in range(PLAYED):
        (folder / f"{i:05}.png").symlink_to(tmp_path / "pictures" / f"{i % PICTURES}.png")
    return folder


def play(film: Path, frozen: bool = False) -> None:
    """From now on its pictures show something that moves; `frozen`: they all have the same bytes."""
    for i in range(PICTURES):
        picture = np.full((128, 128, 3), 90, np.uint8)
        at = 20 + 2 * (0 if frozen else min(i, PICTURES - i))
        picture[50:70, at : at + 20] = (30, 30, 200)
        cv2.imwrite(str(film.parent / "new.png"), picture)
        (film.parent / "new.png").replace(film.parent / "pictures" / f"{i}.png")


class User:
    """Someone at a terminal beside the graph, who gives it a goal picture and watches."""

    def __init__(self, graph: Up) -> None:
        self.peer = Peer(graph.domain_id)
        self.safety = SafetyStatus()
        self.plans = 0
        self.setpoints: list[JointTrajectory] = []
        self.joints: list[JointState] = []
        node = self.peer.node
        node.create_subscription(SafetyStatus, "safety/status", self.on_safety, qos.STATUS)
        node.create_subscription(PlanStatus, "planner/status", self.on_plan, qos.RECORD)
        node.create_subscription(JointTrajectory, SETPOINTS, self.setpoints.append, qos.COMMAND)
        node.create_subscription(JointState, "joint_states", self.joints.append, qos.JOINT_STATES)
        self.reset = node.create_client(Trigger, "safety/reset")
        self.action = ActionClient(node, PursueGoal, "pursue_goal")

    def close(self) -> None:
        self.peer.close()

    def on_safety(self, message: SafetyStatus) -> None:
        self.safety = message

    def on_plan(self, message: PlanStatus) -> None:
        self.plans += 1

    def pursue(self, picture: Path) -> None:
        assert self.peer.spin_until(self.action.server_is_ready), "there is no action pursue_goal"
        image = cv2.cvtColor(cv2.imread(str(picture)), cv2.COLOR_BGR2RGB)
        goal = PursueGoal.Goal(goal_image=image_message(Frame(image, now_ns(), "camera_optical_frame")))
        accepted = self.action.send_goal_async(goal)
        assert self.peer.spin_until(accepted.done) and accepted.result().accepted

    def pursue_until(self, picture: Path, turned_rad: Callable[[], float]) -> None:
        """Until the arm has moved. A gate that stops it before, for surprise or a busy machine, is reset."""
        give_up_s = time.monotonic() + MOVES_WITHIN_S
        self.pursue(picture)
        while turned_rad() < MOVED_RAD or not self.plans or not self.setpoints:
            assert time.monotonic() < give_up_s, f"{self.plans} plans, {self.safety}"
            self.peer.executor.spin_once(timeout_sec=0.02)
            if self.safety.state == SafetyStatus.STOPPED:
                answer = self.reset.call_async(Trigger.Request())
                assert self.peer.spin_until(answer.done)
                self.pursue(picture)


@pytest.fixture
def sit_down() -> Iterator[Callable[[Up], User]]:
    users: list[User] = []

    def make(graph: Up) -> User:
        users.append(User(graph))
        return users[-1]

    yield make
    for user in users:
        user.close()


@pytest.fixture
def start_controllers(activate: Callable[[str, int], str]) -> Iterator[StartControllers]:
    """The simulator as robot and controllers of a domain; what its camera sees goes elsewhere."""
    started: list[subprocess.Popen[bytes]] = []

    def start(domain_id: int) -> None:
        command = [sys.executable, "-m", "jepa_arm_ros.sim_node", "--ros-args"]
        for topic in ("camera/image_raw", "camera/camera_info"):
            command += ["-r", f"{topic}:=sim/{topic}"]
        started.append(subprocess.Popen(command, cwd=ROOT, env=node_environment(domain_id)))
        assert activate("sim", domain_id) == "active"

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("bus", ["feetech", "dynamixel"])
def test_a_goal_picture_moves_a_servo_arm_and_ctrl_c_leaves_it_held(
    bus: str,
    so101_bundle: Path,
    film: Path,
    up: StartUp,
    sit_down: Callable[[Up], User],
    tmp_path: Path,
) -> None:
    arm = "feetech" if bus == "feetech" else dynamixel_file(tmp_path)
    robot = load_robot("so101")
    config = arm_config_for(arm, robot)
    with FakeArm(config, {joint.name: joint.home for joint in robot.joints}) as port:
        driven = ("--robot", "so101", "--arm", arm, "--port", port.path)
        graph = up(*driven, "--camera", f"file:{film}", "--bundle", str(so101_bundle))
        graph.wait_for("ready", STARTS_WITHIN_S)
        for node in ("camera", "arm", "encoder", "planner", "gate"):
            graph.wait_for(f"{node}: active", STARTS_WITHIN_S)
        before = port.positions()

        def turned_rad() -> float:
            now = port.positions()
            return max(abs((now[s.id] - before[s.id]) / s.ticks_per_rad) for s in config.servos)

        user = sit_down(graph)
        user.pursue_until(film / "00000.png", turned_rad)
        loops = loops_of(graph)
        assert set(loops) == {"gate loop", "arm loop"}, loops
        assert graph.end(signal.SIGINT) == INTERRUPTED
        assert "Traceback" not in graph.output, graph.output
        assert all(port.torques().values()), "the arm file says on_disconnect: hold"


def test_the_arm_rests_within_200_ms_when_the_camera_freezes(
    so101_bundle: Path, film: Path, up: StartUp, sit_down: Callable[[Up], User]
) -> None:
    """Its frames go on, with new stamps, and show the same."""
    robot = load_robot("so101")
    config = arm_config_for("feetech", robot)
    with FakeArm(config, {joint.name: joint.home for joint in robot.joints}) as port:
        driven = ("--robot", "so101", "--arm", "feetech", "--port", port.path)
        graph = up(*driven, "--camera", f"file:{film}", "--bundle", str(so101_bundle))
        graph.wait_for("ready", STARTS_WITHIN_S)
        graph.wait_for("gate: active", STARTS_WITHIN_S)
        user = sit_down(graph)

        def moved_lately() -> float:
            now_s, moved_s = port.moved()
            return MOVED_RAD if now_s - moved_s < LATELY_S else 0.0

        give_up_s = time.monotonic() + MOVES_WITHIN_S
        while user.safety.reason not in ("command_stale", "image_stale"):
            # This bundle has no skill: what it does may surprise it first, which holds or stops the arm too.
            assert time.monotonic() < give_up_s, user.safety
            play(film)
            user.pursue_until(film / "00000.png", moved_lately)
            frozen_s, _ = port.moved()
            play(film, frozen=True)
            assert user.peer.spin_until(lambda: user.safety.state in AT_REST), user.safety
        # The first of the pictures that are all the same is a new one.
        assert port.moved()[1] - frozen_s <= MOST_S + FRAME_S
        graph.end(signal.SIGINT)
        assert "every frame has the same bytes" in graph.output, graph.output


def test_a_goal_picture_moves_an_arm_that_ros2_control_drives(
    bundle: Path, film: Path, up: StartUp, sit_down: Callable[[Up], User], start_controllers: StartControllers
) -> None:
    driven = ("--robot", "panda", "--arm", "ros2_control")
    graph = up(*driven, "--camera", f"file:{film}", "--bundle", str(bundle))
    graph.wait_for("ready", STARTS_WITHIN_S)
    for node in ("camera", "controller", "encoder", "planner", "gate"):
        graph.wait_for(f"{node}: active", STARTS_WITHIN_S)
    start_controllers(graph.domain_id)
    user = sit_down(graph)
    assert user.peer.spin_until(lambda: len(user.joints) > 1, STARTS_WITHIN_S)
    before = np.array(user.joints[-1].position)

    def turned_rad() -> float:
        return float(np.abs(np.array(user.joints[-1].position) - before).max())

    user.pursue_until(film / "00000.png", turned_rad)
    assert set(loops_of(graph)) == {"gate loop"}, "its driver is elsewhere"
    assert graph.end(signal.SIGINT) == INTERRUPTED
    assert "Traceback" not in graph.output, graph.output


def test_a_core_that_is_not_there_is_refused_before_anything_starts(up: StartUp) -> None:
    graph = up("--core", "4096")
    assert graph.wait_for_end(STARTS_WITHIN_S) == 2
    assert "--core 4096: this machine lets us run on [0" in graph.output


def dynamixel_file(folder: Path) -> str:
    """The SO-101's joints on Dynamixel servos."""
    content = yaml.safe_load((ARMS_DIR / "so101-feetech.yaml").read_text()) | {"bus": "dynamixel"}
    for servo in content["servos"]:
        servo |= {"model": "xl330-m288", "max_current_ma": 1200.0}
    path = folder / "so101-dynamixel.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def loops_of(graph: Up) -> dict[str, str]:
    """What `jepa-arm status` says of each control loop."""
    command = [sys.executable, "-m", "cli", "status", "--domain-id", str(graph.domain_id)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=STARTS_WITHIN_S)
    first, *rest = done.stdout.splitlines()
    assert done.returncode == 0 and first.startswith(f"ROS domain {graph.domain_id}: the gate is"), done
    assert all(re.search(r": 100 Hz, late by \S+ ms \(median\)", line) for line in rest), done.stdout
    return dict(line.strip().split(": ", 1) for line in rest)
