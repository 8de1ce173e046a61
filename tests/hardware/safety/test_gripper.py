"""A gripper that holds something is measured behind its reference; no other joint may be."""

from __future__ import annotations

import numpy as np
import pytest

from hardware.arm.contract import JointCommand, JointState
from hardware.kinematics import Kinematics
from hardware.robot import load_robot
from hardware.safety.gate import SafetyGate
from hardware.safety.status import Reason

ROBOT = load_robot("panda_hand")
PERIOD_S = 0.1


@pytest.mark.parametrize(("joint", "accepted"), [(-1, True), (0, False)])
def test_only_the_gripper_may_be_commanded_from_where_it_is_measured(joint: int, accepted: bool) -> None:
    gate = SafetyGate(ROBOT, Kinematics(ROBOT))
    home, rest = np.array(ROBOT.home), np.zeros(len(ROBOT.joints))
    gate.observe(JointState(ROBOT.joint_names, home, rest, 0), 0.0)
    gate.tick(0.0)
    reach = 0.8 * ROBOT.velocity_limits[joint] * PERIOD_S
    measured, target = home.copy(), home.copy()
    measured[joint] -= reach
    target[joint] -= 2 * reach  # too fast from the reference, not from where the joint is measured
    gate.observe(JointState(ROBOT.joint_names, measured, rest, 0), 0.01)
    command = JointCommand(ROBOT.joint_names, target, (target - measured) / PERIOD_S, PERIOD_S, 0)
    verdict = gate.submit(command, 0.01, image_age_s=0.0)
    assert verdict.accepted is accepted
    assert accepted or verdict.reason is Reason.DISCONTINUITY


def test_a_gripper_too_fast_for_where_it_is_measured_is_refused():
    gate = SafetyGate(ROBOT, Kinematics(ROBOT))
    home, rest = np.array(ROBOT.home), np.zeros(len(ROBOT.joints))
    gate.observe(JointState(ROBOT.joint_names, home, rest, 0), 0.0)
    target = home.copy()
    target[-1] -= 2.0 * ROBOT.velocity_limits[-1] * PERIOD_S
    command = JointCommand(ROBOT.joint_names, target, rest, PERIOD_S, 0)
    assert gate.submit(command, 0.0, image_age_s=0.0).reason is Reason.DISCONTINUITY
