"""Surprise over the graph: what the planner asks of the gate slows, holds and stops the arm."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from jepa_arm_interfaces.msg import PlanStatus, SafetyStatus
from jepa_arm_ros import qos
from jepa_arm_ros.messages import command_message, image_message, joint_state_message, setpoint_from
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image, JointState
from trajectory_msgs.msg import JointTrajectory

from hardware.arm.contract import JointCommand
from hardware.arm.contract import JointState as HardwareState
from hardware.camera.contract import Frame
from hardware.robot import load_robot

from .conftest import ANSWERS_WITHIN_S, Operator, Peer, now_ns

pytestmark = pytest.mark.ros


class LoneGate:
    """A gate node alone with an arm that follows it; patient, so that a busy machine is no fault."""

    PATIENCE = {
        "command_timeout_s": 1.0,
        "fault_after_s": 5.0,
        "max_motion_age_s": 5.0,
        "max_image_age_s": 5.0,
        "state_timeout_s": 1.0,
    }

    def __init__(self, peer: Peer) -> None:
        self.peer, self.robot = peer, load_robot("panda")
        self.q = self.robot.home
        self.moved = 0.0  # rad, between the last two setpoints
        self.status = SafetyStatus()
        node = peer.node
        self.states = node.create_publisher(JointState, "joint_states", qos.JOINT_STATES)
        self.commands = node.create_publisher(JointTrajectory, "planner/command", qos.COMMAND)
        self.plans = node.create_publisher(PlanStatus, "planner/status", qos.RECORD)
        setpoints = "joint_trajectory_controller/joint_trajectory"
        node.create_subscription(JointTrajectory, setpoints, self.on_setpoint, qos.COMMAND)
        node.create_subscription(SafetyStatus, "safety/status", self.on_status, qos.STATUS)
        node.create_timer(0.02, self.report)

    def report(self) -> None:
        state = HardwareState(self.robot.joint_names, self.q, np.zeros_like(self.q), 0)
        self.states.publish(joint_state_message(state, now_ns()))

    def on_setpoint(self, message: JointTrajectory) -> None:
        _, positions = setpoint_from(message)
        self.moved, self.q = float(np.abs(positions - self.q).max()), positions

    def on_status(self, message: SafetyStatus) -> None:
        self.status = message

    def plan(self, caution: int) -> None:
        """Say how cautious to be, and turn the last joint on, which moves no tool."""
        self.plans.publish(PlanStatus(caution=caution))
        turn = 0.3 * np.eye(len(self.q))[-1]
        away = -1.0 if self.q[-1] > 0 else 1.0
        command = JointCommand(self.robot.joint_names, self.q + away * turn, 0.3 * turn, 0.9, now_ns())
        self.commands.publish(command_message(command, "peer"))

    def plan_until(self, caution: int, done: Callable[[], bool]) -> bool:
        def planned() -> bool:
            self.plan(caution)
            return done()

        return self.peer.spin_until(planned)


@pytest.fixture
def lone_gate(
    peer: Peer, start_node: Callable[..., object], activate: Callable[..., str], own_domain: int
) -> LoneGate:
    gate = LoneGate(peer)
    start_node("gate_node", own_domain, **LoneGate.PATIENCE)
    assert activate("gate", own_domain) == "active"
    assert gate.plan_until(SafetyStatus.CALM, lambda: gate.moved > 1e-4), "the arm does not move"
    return gate


@pytest.mark.parametrize("level, share", [(SafetyStatus.SLOW, 0.5), (SafetyStatus.HOLD, 0.0)])
def test_the_gate_takes_the_planners_caution_and_goes_on_when_it_is_calm_again(
    lone_gate: LoneGate, level: int, share: float
) -> None:
    assert lone_gate.plan_until(level, lambda: lone_gate.status.caution == level)
    assert lone_gate.status.speed_share == share
    if level == SafetyStatus.HOLD:
        assert lone_gate.plan_until(level, lambda: lone_gate.moved == 0.0)
    assert lone_gate.status.state == SafetyStatus.ACTIVE
    calm = SafetyStatus.CALM
    assert lone_gate.plan_until(calm, lambda: lone_gate.status.caution == calm and lone_gate.moved > 1e-4)
    assert lone_gate.status.reason == ""


@pytest.mark.parametrize("level, reason", [(SafetyStatus.STOP, "surprise"), (200, "unknown_caution")])
def test_the_gate_stops_for_a_surprise_and_for_a_level_that_is_none(
    lone_gate: LoneGate, level: int, reason: str
) -> None:
    lone_gate.plan(level)
    stopped = SafetyStatus.STOPPED
    assert lone_gate.plan_until(SafetyStatus.CALM, lambda: lone_gate.status.state == stopped)
    assert lone_gate.status.reason == reason and lone_gate.status.speed_share == 0.0


@pytest.fixture
def plans(operator: Operator) -> Iterator[Publisher]:
    """Speaks where the planner does."""
    publisher = operator.node.create_publisher(PlanStatus, "planner/status", qos.RECORD)
    # The gate and the operator listen.
    assert operator.spin_until(lambda: publisher.get_subscription_count() >= 2, ANSWERS_WITHIN_S)
    yield publisher
    operator.node.destroy_publisher(publisher)


def test_a_hold_brings_the_arm_to_rest_and_it_goes_on_by_itself(operator: Operator, plans: Publisher) -> None:
    operator.pursue_until_moving()
    asked_ns = now_ns()
    plans.publish(PlanStatus(caution=SafetyStatus.HOLD))
    assert operator.spin_until(lambda: operator.safety.caution == SafetyStatus.HOLD, ANSWERS_WITHIN_S)
    assert operator.safety.speed_share == 0.0
    assert operator.seconds_until_rest(asked_ns, watch_s=0.9) <= 0.2
    assert operator.spin_until(lambda: operator.safety.caution == SafetyStatus.CALM, ANSWERS_WITHIN_S)
    operator.wait_until_moving()
    assert operator.safety.reason == ""


def test_a_surprise_stops_the_arm_until_reset(operator: Operator, plans: Publisher) -> None:
    operator.pursue_until_moving()
    asked_ns = now_ns()
    plans.publish(PlanStatus(caution=SafetyStatus.STOP))
    assert operator.stops_for("surprise")
    assert operator.seconds_until_rest(asked_ns) <= 0.2
    operator.reset_safety()
    operator.wait_until_moving()


def test_pictures_that_turn_black_stop_the_arm(operator: Operator) -> None:
    operator.pursue_until_moving()
    pictures = operator.node.create_publisher(Image, "camera/image_raw", qos.IMAGE)
    assert operator.spin_until(lambda: pictures.get_subscription_count() >= 2, ANSWERS_WITHIN_S)
    operator.pause_camera(True)
    black = np.zeros((128, 128, 3), np.uint8)
    operator.reset_safety()
    assert operator.stops_for(
        "surprise", meanwhile=lambda: pictures.publish(image_message(Frame(black, now_ns(), "camera")))
    )
    operator.node.destroy_publisher(pictures)
