"""A gate node alone with an arm that follows it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from jepa_arm_interfaces.msg import PlanStatus, SafetyStatus
from jepa_arm_ros import qos
from jepa_arm_ros.messages import command_message, joint_state_message, setpoint_from
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from hardware.arm.contract import JointCommand
from hardware.arm.contract import JointState as HardwareState
from hardware.robot import load_robot

from .conftest import Peer, now_ns


class LoneGate:
    """A gate node alone with an arm that follows it; patient, so that a busy machine is no fault."""

    PATIENCE = {
        "command_timeout_s": 1.0,
        "fault_after_s": 5.0,
        "rest_after_image_s": 5.0,
        "max_image_age_s": 5.0,
        "state_timeout_s": 1.0,
        "max_command_rate_hz": 10000.0,
        "max_late_s": 5.0,
    }

    def __init__(self, peer: Peer) -> None:
        self.peer, self.robot = peer, load_robot("panda")
        self.q = self.robot.home
        self.moved = 0.0  # rad, between the last two setpoints
        self.moved_at = 0.0  # when that was last more than nothing, on the steady clock
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
        if self.moved > 0.0:
            self.moved_at = time.monotonic()

    def on_status(self, message: SafetyStatus) -> None:
        self.status = message

    def plan(self, caution: int) -> None:
        """Say how cautious to be, and turn the last joint on, which moves no tool."""
        self.plans.publish(PlanStatus(caution=caution))
        self.commands.publish(self.command())

    def command(self) -> JointTrajectory:
        turn = 0.3 * np.eye(len(self.q))[-1]
        away = -1.0 if self.q[-1] > 0 else 1.0
        command = JointCommand(self.robot.joint_names, self.q + away * turn, 0.3 * turn, 0.9, now_ns())
        return command_message(command, "peer")

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
