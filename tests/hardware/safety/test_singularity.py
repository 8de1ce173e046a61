"""Near a posture in which the arm loses a direction, motion towards it is slowed and motion away is not."""

from __future__ import annotations

import numpy as np
import pytest

from hardware.arm.contract import JointCommand
from hardware.kinematics import Kinematics
from hardware.robot import load_robot
from hardware.safety.status import Reason


def posture(elbow: float) -> np.ndarray:
    """The Panda with its wrist over its shoulder at an elbow of -0.5: there the condition has no end."""
    return np.array([0.0, 0.6, 0.0, elbow, 0.0, 1.5, 0.785])


def turned(arm, way: float) -> JointCommand:
    target = arm.q.copy()
    target[3] += way
    return JointCommand(arm.robot.joint_names, target, np.eye(7)[3] * way / 0.1, 0.1, 0)


def test_the_condition_grows_towards_a_singularity(kinematics, robot):
    values = [kinematics.condition(posture(elbow)) for elbow in (-1.2, -1.0, -0.8, -0.6)]
    assert values == sorted(values) and values[-1] > 3 * values[0]
    assert kinematics.condition(robot.home) < 12.0
    jacobian = kinematics.jacobian(robot.home)
    assert kinematics.condition(robot.home) == pytest.approx(np.linalg.cond(jacobian))


def test_the_gripper_has_no_part_in_the_condition():
    hand = load_robot("panda_hand")
    kinematics = Kinematics(hand)
    expected = np.linalg.cond(kinematics.jacobian(hand.home)[:, :-1])
    assert kinematics.condition(hand.home) == pytest.approx(expected)


def test_towards_a_singularity_the_arm_slows_and_away_from_it_does_not(make_arm, kinematics):
    here = kinematics.condition(posture(-0.8))
    there = kinematics.condition(posture(-0.78))
    # The target lies a quarter of the way from where slowing begins to where it ends.
    slow = there - 10.0
    limits = {"singularity_slow": slow, "singularity_stop": slow + 40.0, "workspace_tolerance_m": 9.0}
    assert here < there
    arm = make_arm(posture(-0.8), **limits)
    assert arm.send(turned(arm, 0.02)).accepted
    assert arm.gate.status.speed_share == pytest.approx(0.75)
    assert arm.gate.status.counts == {Reason.NEAR_SINGULARITY: 1}
    arm.run(0.05)
    slowly = arm.q[3] + 0.8
    assert arm.send(turned(arm, 0.02)).accepted
    assert arm.gate.status.counts == {Reason.NEAR_SINGULARITY: 1}, "one slow-down, not one for each command"
    arm.send(turned(arm, -0.02))
    assert arm.gate.status.speed_share == 1.0
    brisk = make_arm(posture(-0.8), singularity_slow=98.0, workspace_tolerance_m=9.0)
    brisk.send(turned(brisk, 0.02))
    brisk.run(0.05)
    assert slowly == pytest.approx(0.75 * (brisk.q[3] + 0.8), rel=0.1)


def test_beyond_the_last_condition_the_arm_rests_until_it_is_led_back(make_arm, kinematics):
    there = kinematics.condition(posture(-0.78))
    limits = {"singularity_slow": there - 9.0, "singularity_stop": there - 1e-3, "workspace_tolerance_m": 9.0}
    arm = make_arm(posture(-0.8), **limits)
    for _ in range(5):
        assert arm.send(turned(arm, 0.02)).accepted
        assert arm.gate.status.speed_share == 0.0
        arm.run(0.07)
    np.testing.assert_array_equal(arm.q, posture(-0.8))
    assert arm.gate.status.stops == 0
    arm.send(turned(arm, -0.02))
    arm.run(0.07)
    assert arm.q[3] < -0.805


def test_a_slow_down_after_free_motion_is_counted_again(make_arm, kinematics):
    there = kinematics.condition(posture(-0.78))
    arm = make_arm(
        posture(-0.8), singularity_slow=there - 5.0, singularity_stop=there + 99.0, workspace_tolerance_m=9.0
    )
    for way in (0.02, -0.02, 0.02):
        arm.send(turned(arm, way))
    assert arm.gate.status.counts == {Reason.NEAR_SINGULARITY: 2}


def test_an_arm_that_stays_near_a_singularity_is_not_slowed(make_arm, kinematics):
    here = kinematics.condition(posture(-0.8))
    arm = make_arm(
        posture(-0.8), singularity_slow=here - 9.0, singularity_stop=here + 9.0, workspace_tolerance_m=9.0
    )
    assert arm.send(turned(arm, 0.0)).accepted
    assert arm.gate.status.speed_share == 1.0 and not arm.gate.status.counts
