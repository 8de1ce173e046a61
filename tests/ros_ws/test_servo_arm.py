"""The graph without a planner on emulated servos: commands to the gate move the arm, any fault stops it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from jepa_arm_bringup.graph import Graph
from jepa_arm_interfaces.msg import Latent, SafetyStatus
from jepa_arm_ros import qos
from jepa_arm_ros.messages import command_message
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from hardware.arm.config import ARMS_DIR, load_arm_config
from hardware.arm.contract import JointCommand
from hardware.arm.emulator.process import FakeArm
from hardware.arm.priority import PRIORITY
from hardware.robot import load_robot

from .conftest import STARTS_WITHIN_S, Peer, now_ns
from .up_command import ROOT, StartUp

pytestmark = pytest.mark.ros

MOST_S = 0.2
SPEED_RAD_S = 0.5
COMMAND_PERIOD_S = 0.04
MOVES_WITHIN_S = 30.0
ROBOT = load_robot("so101")
WITHOUT = ("planner",)


class Desk:
    """A running graph, the servos that it drives, and someone who commands the gate."""

    def __init__(self, graph: Graph, port: FakeArm, arm: str) -> None:
        self.graph, self.port = graph, port
        self.config = load_arm_config(arm)
        self.peer = Peer(graph.domain_id)
        self.states: list[JointState] = []
        self.latents = 0
        self.safety = SafetyStatus()
        self.arm_health: dict[str, str] = {}
        node = self.peer.node
        node.create_subscription(JointState, "joint_states", self.states.append, qos.JOINT_STATES)
        node.create_subscription(SafetyStatus, "safety/status", self.on_safety, qos.STATUS)
        node.create_subscription(DiagnosticArray, "/diagnostics", self.on_diagnostics, qos.RECORD)
        node.create_subscription(Latent, "latent", self.on_latent, qos.LATENT)
        self.publisher = node.create_publisher(JointTrajectory, "planner/command", qos.COMMAND)
        self.recover = node.create_client(Trigger, "arm/recover")
        self.reset = node.create_client(Trigger, "safety/reset")
        assert self.peer.spin_until(lambda: self.states and self.publisher.get_subscription_count() > 0)

    def on_safety(self, status: SafetyStatus) -> None:
        self.safety = status

    def on_latent(self, _: Latent) -> None:
        self.latents += 1

    def on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == "arm: node":
                self.arm_health = {value.key: value.value for value in status.values}

    def positions(self) -> np.ndarray:
        """Where the joints truly are, rad."""
        ticks = self.port.positions()
        return np.array([servo.position(ticks[servo.id]) for servo in self.config.servos])

    def speed(self) -> float:
        """The fastest joint, truly, rad/s."""
        ticks_s = self.port.velocities()
        return max(abs(ticks_s[servo.id] / servo.ticks_per_rad) for servo in self.config.servos)

    def command(self) -> None:
        """On with the shoulder and the wrist's roll, as a planner that is in motion sends it."""
        measured = self.states[-1]
        q = np.array([measured.position[list(measured.name).index(name)] for name in ROBOT.joint_names])
        v = np.zeros(len(q))
        v[[0, 4]] = self.direction * SPEED_RAD_S
        self.publisher.publish(
            command_message(JointCommand(ROBOT.joint_names, q + 0.12 * v, v, 0.12, now_ns()), "planner")
        )

    def move(self) -> None:
        """Until the arm moves well. A pause of this process is a stop of the gate, and another start."""
        self.direction = -1.0 if self.positions()[0] > 0 else 1.0
        give_up_s = time.monotonic() + MOVES_WITHIN_S
        while not self.drive(give_up_s):
            assert self.safety.reason == "command_stale", (self.safety, self.arm_health)
            self.go_on()

    def drive(self, give_up_s: float) -> bool:
        """Commands until the arm moves well (True), or until the gate has stopped it (False)."""
        sent_s = 0.0
        while time.monotonic() < give_up_s:
            if time.monotonic() - sent_s >= COMMAND_PERIOD_S:
                self.command()
                sent_s = time.monotonic()
            self.peer.executor.spin_once(timeout_sec=0.01)
            if self.speed() > 0.6 * SPEED_RAD_S:
                return True
            if self.safety.reason == "command_stale":
                return False
        raise AssertionError(f"the arm does not move: {self.safety}, {self.arm_health}")

    def seconds_until_rest(self, watch_s: float = 0.5) -> float:
        """From now to the last moment at which a joint truly moved, watched for so long."""
        began_s, _ = self.port.moved()
        time.sleep(watch_s)
        return max(self.port.moved()[1] - began_s, 0.0)

    def hurry(self) -> None:
        """Gate and arm before the rest of the machine, if permitted: they are timed, not how busy it is."""
        for name in ("gate", "arm"):
            for thread in Path(f"/proc/{self.graph.pid(name)}/task").iterdir():
                with contextlib.suppress(PermissionError):
                    os.sched_setscheduler(int(thread.name), os.SCHED_FIFO, os.sched_param(PRIORITY))

    def ask(self, client: object) -> Trigger.Response:
        answer = client.call_async(Trigger.Request())  # type: ignore[attr-defined]
        assert self.peer.spin_until(answer.done)
        return answer.result()

    def stopped_for(self, reason: str) -> bool:
        return self.peer.spin_until(lambda: self.safety.reason == reason)

    def go_on(self) -> None:
        """Reset the gate, which refuses while the arm still comes to rest or says nothing yet."""
        assert self.peer.spin_until(lambda: self.ask(self.reset).success)


@pytest.fixture(scope="module", params=["feetech", "dynamixel"])
def desk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    arm = arm_file(folder, request.param)
    link = folder / "tty"
    start = {joint.name: joint.home for joint in ROBOT.joints}
    with FakeArm(load_arm_config(arm), start, link) as port:
        settings = {"robot": "so101", "arm": arm, "port": str(link), "runtime": "onnxruntime"}
        settings |= {"camera": f"file:{pictures(folder)}", "bundle": str(ROOT / "models" / "panda-push")}
        graph = Graph(settings, world="real", without=WITHOUT, log_dir=folder / "logs")
        with graph:
            graph.start()
            graph.wait_ready(STARTS_WITHIN_S)
            desk = Desk(graph, port, arm)
            desk.hurry()
            yield desk
            desk.peer.close()


def arm_file(folder: Path, bus: str) -> str:
    """The SO-101's own arm file, or one of the same joints on Dynamixel servos."""
    if bus == "feetech":
        return "so101-feetech"
    content = yaml.safe_load((ARMS_DIR / "so101-feetech.yaml").read_text()) | {"bus": bus}
    for servo in content["servos"]:
        servo |= {"model": "xl330-m288", "max_current_ma": 1200.0}
    path = folder / "so101-dynamixel.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def pictures(folder: Path) -> Path:
    """A minute of a camera, each picture another than the one before."""
    for i in range(1800):
        cv2.imwrite(str(folder / f"{i:04}.png"), np.full((128, 128, 3), 100 + i % 90, np.uint8))
    return folder


def test_commands_to_the_gate_move_the_servos_and_are_measured(desk: Desk) -> None:
    before = desk.positions()
    desk.move()
    assert sorted(desk.states[-1].name) == sorted(ROBOT.joint_names)
    desk.seconds_until_rest()
    moved = np.abs(desk.positions() - before)
    assert moved[0] > 0.01 and moved[4] > 0.01 and moved[[1, 2, 3, 5]].max() < 0.01
    index = [list(desk.states[-1].name).index(name) for name in desk.config.joint_names]

    def measured() -> bool:
        return bool(np.abs(np.array(desk.states[-1].position)[index] - desk.positions()).max() < 0.002)

    assert desk.peer.spin_until(measured)
    assert desk.peer.spin_until(lambda: "elbow_flex (servo 3)" in desk.arm_health)
    assert "°C" in desk.arm_health["elbow_flex (servo 3)"] and desk.arm_health["fault"] == ""
    assert desk.peer.spin_until(lambda: desk.latents > 0), "no picture has been encoded"


def test_the_arm_rests_within_200_ms_when_commands_cease(desk: Desk) -> None:
    desk.go_on()
    desk.move()
    assert desk.seconds_until_rest() <= MOST_S
    assert desk.stopped_for("command_stale")
    desk.go_on()
    desk.move()


@pytest.mark.parametrize("fault", ["lost:3", "reset:1", "cable"])
def test_the_arm_rests_within_200_ms_of_a_fault_and_recovers(desk: Desk, fault: str) -> None:
    desk.go_on()
    desk.move()
    desk.port.inject(fault)
    assert desk.seconds_until_rest() <= MOST_S
    assert desk.stopped_for("state_stale")
    assert desk.peer.spin_until(lambda: desk.arm_health.get("fault", "")), "diagnostics say nothing of it"
    named = {"lost:3": "servo 3 (elbow_flex)", "reset:1": "servo 1 (shoulder_pan)", "cable": "serial port"}
    assert named[fault] in desk.arm_health["fault"]
    assert not desk.ask(desk.reset).success, "the gate goes on without joint states"

    desk.port.clear()
    answer = desk.ask(desk.recover)
    assert answer.success, answer.message
    desk.go_on()
    desk.move()
    assert desk.peer.spin_until(lambda: desk.arm_health["fault"] == "")


def test_the_arm_rests_when_the_gate_is_killed_and_when_its_own_driver_is(desk: Desk) -> None:
    """The last test of a desk: neither of them is started again."""
    desk.go_on()
    desk.move()
    desk.graph.kill("gate", signal.SIGKILL)
    assert desk.seconds_until_rest() <= MOST_S
    at = desk.positions()
    desk.graph.kill("arm", signal.SIGKILL)
    desk.seconds_until_rest()
    assert np.abs(desk.positions() - at).max() < 0.01


def test_up_drives_an_arm_alone_and_says_what_a_robot_without_a_bundle_lacks(
    up: StartUp, tmp_path: Path
) -> None:
    no_bundle = up("--robot", "so101", "--arm", "feetech", "--port", "/dev/nothing")
    assert no_bundle.wait_for_end(STARTS_WITHIN_S) == 2
    assert "train a bundle for so101; until there is one, --arm-only" in no_bundle.output

    with FakeArm(load_arm_config("so101-feetech")) as port:
        alone = up("--robot", "so101", "--arm", "feetech", "--port", port.path, "--arm-only")
        alone.wait_for("ready", STARTS_WITHIN_S)
        assert all(port.torques().values())
        assert alone.end(signal.SIGINT) == 130
