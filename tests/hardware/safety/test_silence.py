"""What a gate does when commands, or fresh images behind them, stop coming."""

from __future__ import annotations

from dataclasses import replace as changed

import numpy as np
import pytest

from hardware.safety.followed import Followed
from hardware.safety.status import Reason, SafetyState

AHEAD = (0.02, 0.0, 0.0)
DIAGONAL = (0.02, 0.02, 0.0)


def test_a_motion_without_a_follow_up_rests_and_then_stops_as_stale(arm):
    arm.drive(DIAGONAL, 0.5)
    arm.seconds_until_rest()
    assert arm.gate.status.state is SafetyState.ACTIVE
    arm.run(0.2)
    status = arm.gate.status
    assert (status.state, status.reason) == (SafetyState.STOPPED, Reason.COMMAND_STALE)
    assert "0.2" in status.text
    assert (status.pauses, status.stops) == (1, 1)


@pytest.mark.parametrize(
    "direction", [(1, 0, 0), (0, 1, 0), (-1, 0, 0), (0, -1, 0), (1, 1, 0), (-1, 1, 0), (0, 0, 1), (1, -1, 1)]
)
def test_joints_rest_within_160_ms_of_the_last_command_at_full_speed(arm, direction):
    """At 0.28 m/s, as fast as two axes at their bound go: 85 ms time-out, 64 ms braking, one tick."""
    step = 0.028 * np.array(direction) / np.linalg.norm(direction)
    arm.drive(tuple(step), 0.4)
    assert arm.seconds_until_rest() <= 0.160 + 1e-9


@pytest.mark.parametrize(
    "corner", [(0.32, 0.0, 0.025), (0.32, 0.2, 0.2), (0.58, 0.24, 0.025), (0.58, -0.2, 0.35)]
)
def test_joints_rest_within_160_ms_wherever_the_tool_is(make_arm, kinematics, robot, corner):
    q, rotation = robot.home, kinematics.tool_pose(robot.home)[1]
    start = kinematics.tool_position(q)
    for share in np.linspace(0.1, 1.0, 10):
        q = kinematics.inverse(start + share * (np.array(corner) - start), rotation, q).positions
    arm = make_arm(q)
    towards_home = start - corner
    arm.drive(tuple(0.028 * towards_home / np.linalg.norm(towards_home)), 0.3)
    assert arm.seconds_until_rest() <= 0.160 + 1e-9


def test_a_late_command_only_pauses_the_arm(arm):
    arm.drive(AHEAD, 0.4)
    arm.run(0.22)
    assert arm.at_rest
    assert arm.send(arm.command(AHEAD)).accepted
    arm.run(0.05)
    assert not arm.at_rest
    assert (arm.gate.status.pauses, arm.gate.status.stops) == (1, 0)


@pytest.mark.parametrize("image_age_s", [0.0, 0.03, 0.06, 0.09, 0.12])
def test_joints_rest_within_200_ms_of_the_last_image_however_late_it_was_decided_on(arm, image_age_s):
    arm.drive((0.0, 0.02, 0.0), 0.5)
    assert arm.send(arm.command((0.0, 0.02, 0.0)), image_age_s).accepted
    assert image_age_s + arm.seconds_until_rest() <= 0.2 + 1e-9


def test_a_short_command_is_followed_for_its_duration_only(arm):
    arm.drive(AHEAD, 0.4)
    command = arm.command((0.004, 0.0, 0.0))
    arm.send(changed(command, duration_s=0.02))
    arm.run(0.1)
    assert arm.at_rest


def test_after_a_stop_the_arm_stays_and_refuses_commands_until_reset(arm):
    arm.drive(AHEAD, 0.4)
    arm.run(0.5)
    q = arm.q
    verdict = arm.send(arm.command(AHEAD))
    assert (verdict.accepted, verdict.reason) == (False, Reason.COMMAND_STALE)
    assert "reset" in verdict.text
    arm.run(0.5)
    np.testing.assert_allclose(arm.q, q, atol=1e-9)
    assert arm.gate.reset(arm.now_s).accepted
    assert arm.gate.status.state is SafetyState.IDLE
    assert arm.gate.status.reason is Reason.NONE
    assert arm.send(arm.command(AHEAD)).accepted


@pytest.mark.parametrize("age", [0.151, 10.0, -0.151, float("nan"), float("inf")])
def test_a_command_from_a_stale_image_is_refused_and_the_arm_goes_on(arm, age):
    arm.drive(AHEAD, 0.3)
    verdict = arm.send(arm.command(AHEAD), image_age_s=age)
    assert (verdict.accepted, verdict.reason) == (False, Reason.IMAGE_STALE)
    assert arm.gate.status.state is SafetyState.ACTIVE
    assert arm.send(arm.command(AHEAD), image_age_s=0.149).accepted


def test_when_images_stay_stale_the_arm_rests_and_says_why(arm):
    arm.drive(AHEAD, 0.3)
    arm.seconds_until_rest()
    arm.send(arm.command(AHEAD), image_age_s=1.0)
    arm.run(0.2)
    assert arm.gate.status.state is SafetyState.STOPPED
    assert arm.gate.status.reason is Reason.IMAGE_STALE


def test_a_stale_image_long_ago_is_not_blamed(arm):
    arm.send(arm.command(AHEAD), image_age_s=1.0)
    arm.drive(AHEAD, 0.3)
    arm.run(0.4)
    assert arm.gate.status.reason is Reason.COMMAND_STALE


@pytest.mark.parametrize("age", [0.15, -0.15])
def test_an_image_of_just_the_allowed_age_is_fresh(arm, age):
    assert arm.send(arm.command(AHEAD), image_age_s=age).accepted


def test_a_command_that_leaves_one_joint_moving_does_not_end_at_rest(arm):
    command = arm.command(AHEAD)
    assert arm.send(changed(command, velocities=command.velocities * np.eye(7)[1])).accepted
    arm.run(0.3)
    assert (arm.gate.status.pauses, arm.gate.status.reason) == (1, Reason.COMMAND_STALE)


def test_whether_a_command_is_live_does_not_depend_on_what_ticks_add_up_to():
    followed = Followed(target=None, since_s=5.0, image_age_s=0.0, lifetime_s=0.1)
    for rate_hz in range(50, 260, 10):
        clock_s = 5.0
        for _ in range(rate_hz // 10):
            clock_s += 1.0 / rate_hz
        assert followed.is_live(clock_s)
        assert not followed.is_live(clock_s + 1e-5)
