"""What a gate makes of the arm as it is measured."""

from __future__ import annotations

import re
from dataclasses import replace as changed

import numpy as np
import pytest

from hardware.safety.gate import GLIDE_S, SETTLE_S
from hardware.safety.status import Reason, SafetyState

AHEAD = (0.02, 0.0, 0.0)


def test_the_arm_stops_when_its_joint_states_stop(arm):
    arm.drive(AHEAD, 0.3)
    arm.reports = False
    arm.run(0.13)
    assert arm.gate.status.reason is Reason.STATE_STALE
    arm.run(0.1)
    assert arm.gate.status.state is SafetyState.STOPPED and arm.at_rest


@pytest.mark.parametrize(
    "bad",
    [
        lambda s: changed(s, positions=np.full(7, np.nan)),
        lambda s: changed(s, velocities=np.full(7, np.inf)),
        lambda s: changed(s, velocities=np.where(np.eye(7)[2], np.nan, 0.0)),
        lambda s: changed(s, names=("a", "b", "c", "d", "e", "f", "g")),
        lambda s: changed(s, names=s.names[::-1], positions=s.positions[:3]),
        lambda s: changed(s, positions=s.positions[:3]),
        lambda s: changed(s, velocities=["fast"] * 7),
        lambda s: changed(s, positions=None),
        lambda s: changed(s, positions=s.positions + 6.0 * np.eye(7)[2]),  # where no joint can be
        lambda s: changed(s, positions=np.full(7, 1e300)),
    ],
)
def test_a_joint_state_that_cannot_be_used_does_not_count_as_one(arm, bad):
    for _ in range(12):
        arm.now_s += 0.01
        arm.gate.observe(bad(arm.state), arm.now_s)
        setpoint = arm.gate.tick(arm.now_s)
        np.testing.assert_array_equal(setpoint.positions, arm.robot.home)
    assert arm.gate.status.reason is Reason.STATE_STALE
    assert arm.gate.status.states_ignored == 12


def test_a_blocked_arm_is_stopped_and_held_where_it_is(arm):
    arm.drive(AHEAD, 0.1)
    arm.blocked = True
    stuck = arm.q
    for _ in range(40):
        # A planner that looks at the wrong picture keeps pushing on from the setpoint.
        setpoint = arm.setpoints[-1]
        state = changed(arm.state, positions=setpoint.positions)
        arm.gate.submit(arm.servo.joint_command(state, AHEAD, 0.1, 0), arm.now_s, 0.03, "planner")
        arm.run(0.05)
    status = arm.gate.status
    assert (status.state, status.reason) == (SafetyState.STOPPED, Reason.TRACKING)
    told = re.fullmatch(r"panda_joint\d is (.*) away from its setpoint; it may be blocked", status.text)
    assert told is not None and 0.2 < float(told[1]) < 0.3
    np.testing.assert_allclose(arm.setpoints[-1].positions, stuck, atol=1e-6)


def test_after_a_stop_the_measured_position_is_held_once_the_drives_have_settled(arm):
    arm.gate.stop(arm.now_s)
    arm.run(0.02)
    held = arm.setpoints[-1].positions
    arm.blocked = True
    arm.q = held + 0.01  # the arm sags to here
    arm.run(SETTLE_S - 0.03)
    np.testing.assert_array_equal(arm.setpoints[-1].positions, held)
    arm.run(GLIDE_S + 0.05)
    np.testing.assert_allclose(arm.setpoints[-1].positions, held + 0.01, atol=1e-6)
    arm.q = held + 0.02  # and is not followed when it sags on
    arm.run(0.5)
    np.testing.assert_allclose(arm.setpoints[-1].positions, held + 0.01, atol=1e-6)


def test_a_silent_arm_is_held_where_it_was_told_to_be(arm):
    arm.drive(AHEAD, 0.2)
    arm.gate.stop(arm.now_s)
    arm.seconds_until_rest()
    held = arm.setpoints[-1].positions
    arm.blocked = True
    arm.q = held + 0.05
    arm.run(0.02)
    arm.reports = False  # before the drives have settled, so that what was last seen means little
    arm.run(1.0)
    np.testing.assert_array_equal(arm.setpoints[-1].positions, held)


def test_an_arm_that_starts_beyond_a_limit_is_held_there_and_can_only_come_back(make_arm, robot):
    q = robot.home.copy()
    q[6] = robot.position_upper[6] + 0.05
    arm = make_arm(q)
    np.testing.assert_array_equal(arm.run(0.1)[-1].positions, q)
    command = arm.command((0.0, 0.0, 0.0))
    inside = q.copy()
    inside[6] = robot.position_upper[6] - 0.1
    assert arm.send(changed(command, positions=inside, duration_s=0.5)).accepted
    arm.run(0.1)
    assert arm.q[6] < q[6]


def test_a_driver_that_repeats_one_state_falls_silent_for_the_gate(arm):
    frozen = changed(arm.state, stamp_ns=77)
    for _ in range(12):
        arm.now_s += 0.01
        arm.gate.observe(frozen, arm.now_s)
        arm.gate.tick(arm.now_s)
    assert arm.gate.status.reason is Reason.STATE_STALE
    assert arm.gate.status.states_ignored == 11
    arm.gate.observe(changed(frozen, stamp_ns=76), arm.now_s)  # a clock that was set back is news
    assert arm.gate.reset(arm.now_s).accepted


@pytest.mark.parametrize("share, ignored", [(0.999, 0), (1.001, 1)])
def test_a_joint_may_be_measured_half_its_range_beyond_its_limits_and_no_further(arm, robot, share, ignored):
    middle = 0.5 * (robot.position_lower + robot.position_upper)
    q = robot.home.copy()
    q[2] = middle[2] + share * (robot.position_upper - robot.position_lower)[2]
    arm.gate.observe(changed(arm.state, positions=q), arm.now_s)
    assert arm.gate.status.states_ignored == ignored


def test_to_the_measured_position_the_reference_glides_within_three_tenths_of_a_second(arm):
    arm.gate.stop(arm.now_s)
    arm.run(0.01)
    arm.blocked = True
    arm.q = arm.robot.home + 0.1
    arm.run(0.2)
    gone = [float(setpoint.positions[0] - arm.robot.home[0]) for setpoint in arm.run(0.3)]
    assert gone[14] == pytest.approx(0.05, abs=0.005), "halfway in half of the time"
    assert gone[25] < 0.09 and gone[-1] == pytest.approx(0.1, abs=0.004)
