"""What the safety gate does with each fault, told as short scenes on simulated time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hardware.arm.contract import JointState
from hardware.safety.gate import GLIDE_S, SETTLE_S, SafetyGate
from hardware.safety.status import GateConfig, Reason, SafetyState

AHEAD = (0.02, 0.0, 0.0)
DIAGONAL = (0.02, 0.02, 0.0)


def changed(command, **fields):
    return dataclasses.replace(command, **fields)


# Following commands


def test_nothing_is_sent_before_the_first_joint_state(robot, kinematics):
    gate = SafetyGate(robot, kinematics)
    assert gate.tick(0.0) is None
    assert gate.tick(1.0) is None


def test_a_command_before_the_first_joint_state_is_refused_without_a_stop(robot, kinematics, arm):
    gate = SafetyGate(robot, kinematics)
    verdict = gate.submit(arm.command(AHEAD), 0.0, image_age_s=0.0)
    assert (verdict.accepted, verdict.reason) == (False, Reason.STATE_STALE)
    assert gate.status.state is SafetyState.IDLE


def test_without_commands_the_first_measured_position_is_held(arm, robot):
    for setpoint in arm.run(0.5):
        assert setpoint.names == robot.joint_names
        np.testing.assert_array_equal(setpoint.positions, robot.home)
        assert not setpoint.velocities.any()
    assert arm.gate.status.state is SafetyState.IDLE


def test_a_command_that_ends_at_rest_reaches_its_target_and_leaves_the_gate_idle(make_arm):
    arm = make_arm(command_timeout_s=1.0)
    command = arm.command((0.02, 0.01, 0.01))
    command = changed(command, velocities=np.zeros(7), duration_s=0.4)
    assert arm.send(command).accepted
    assert arm.gate.status.state is SafetyState.ACTIVE
    arm.run(0.5)
    np.testing.assert_allclose(arm.q, command.positions, atol=1e-6)
    status = arm.gate.status
    assert (status.state, status.reason, status.pauses) == (SafetyState.IDLE, Reason.NONE, 0)


def test_a_command_that_ends_at_rest_does_not_overshoot_its_target(make_arm):
    arm = make_arm(command_timeout_s=1.0)
    command = changed(arm.command(DIAGONAL), velocities=np.zeros(7), duration_s=0.15)
    arm.send(command)
    forwards = np.sign(command.positions - arm.robot.home)
    for setpoint in arm.run(0.3):
        assert np.all((command.positions - setpoint.positions) * forwards >= -1e-9)
    np.testing.assert_allclose(arm.q, command.positions, atol=1e-6)


def test_a_command_that_ends_at_rest_but_runs_out_on_the_way_brakes_and_leaves_the_gate_idle(arm):
    command = changed(arm.command(DIAGONAL), velocities=np.zeros(7), duration_s=0.2)
    arm.send(command)
    arm.run(0.09)
    assert not arm.at_rest
    assert arm.gate.status.state is SafetyState.ACTIVE
    arm.seconds_until_rest()
    assert arm.gate.status.state is SafetyState.IDLE


def test_commands_that_follow_each_other_move_the_tool_where_they_say(arm):
    start = arm.tool
    arm.drive(AHEAD, 0.7)
    moved = arm.tool - start
    assert 0.08 < moved[0] < 0.14
    np.testing.assert_allclose(moved[1:], 0.0, atol=0.003)
    assert arm.gate.status.commands_accepted == 10


def test_joints_are_matched_by_name(arm):
    command = arm.command(AHEAD)
    order = [3, 0, 6, 1, 5, 2, 4]
    arm.send(
        changed(
            command,
            names=tuple(command.names[i] for i in order),
            positions=command.positions[order],
            velocities=command.velocities[order] * 0.0,
        )
    )
    start = arm.tool
    arm.run(0.3)
    assert arm.gate.status.state is SafetyState.IDLE
    moved = arm.tool - start
    assert 0.01 < moved[0] < 0.021
    np.testing.assert_allclose(moved[1:], 0.0, atol=0.003)


def test_a_joint_state_in_another_order_with_other_joints_is_understood(robot, kinematics):
    gate = SafetyGate(robot, kinematics)
    names = (*reversed(robot.joint_names), "gripper")
    gate.observe(JointState(names, np.append(robot.home[::-1], 0.04), np.zeros(8), 0), 0.0)
    np.testing.assert_array_equal(gate.tick(0.01).positions, robot.home)


def test_setpoints_carry_the_stamp_of_the_command_and_the_time_since_the_tick_before(arm):
    arm.send(changed(arm.command(AHEAD), stamp_ns=1234))
    setpoint = arm.run(0.01)[0]
    assert setpoint.stamp_ns == 1234
    assert setpoint.duration_s == pytest.approx(0.01)


def test_nobody_can_change_a_setpoint_or_a_command_once_it_is_handed_over(arm):
    command = arm.command(AHEAD)
    arm.send(command)
    goal = command.positions.copy()
    command.positions[:] = 0.0
    setpoint = arm.run(0.08)[-1]
    assert setpoint.positions[1] > arm.robot.home[1]
    assert np.linalg.norm(setpoint.positions - goal) < np.linalg.norm(arm.robot.home - goal)
    with pytest.raises(ValueError):
        setpoint.positions[0] = 1.0


def test_a_joint_state_that_changes_after_it_was_observed_changes_nothing(robot, kinematics):
    gate = SafetyGate(robot, kinematics)
    state = JointState(robot.joint_names, robot.home.copy(), np.zeros(7), 0)
    gate.observe(state, 0.0)
    gate.tick(0.0)
    state.positions[:] += 0.1
    np.testing.assert_array_equal(gate.tick(0.01).positions, robot.home)


def test_two_ticks_at_the_same_time_give_the_same_setpoint(arm):
    arm.drive(AHEAD, 0.2)
    first = arm.gate.tick(arm.now_s)
    second = arm.gate.tick(arm.now_s)
    np.testing.assert_array_equal(first.positions, second.positions)


# Commands that stop coming


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
def test_joints_rest_within_150_ms_of_the_last_command_at_full_speed(arm, direction):
    """At 0.28 m/s, as fast as two axes at their bound go: 85 ms time-out, 60 ms braking."""
    step = 0.028 * np.array(direction) / np.linalg.norm(direction)
    arm.drive(tuple(step), 0.4)
    assert arm.seconds_until_rest() <= 0.150 + 1e-9


@pytest.mark.parametrize(
    "corner", [(0.32, 0.0, 0.025), (0.32, 0.2, 0.2), (0.58, 0.24, 0.025), (0.58, -0.2, 0.35)]
)
def test_joints_rest_within_150_ms_wherever_the_tool_is(make_arm, kinematics, robot, corner):
    q, rotation = robot.home, kinematics.tool_pose(robot.home)[1]
    start = kinematics.tool_position(q)
    for share in np.linspace(0.1, 1.0, 10):
        q = kinematics.inverse(start + share * (np.array(corner) - start), rotation, q).positions
    arm = make_arm(q)
    towards_home = start - corner
    arm.drive(tuple(0.028 * towards_home / np.linalg.norm(towards_home)), 0.3)
    assert arm.seconds_until_rest() <= 0.150 + 1e-9


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


# Images


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


# Commands from a broken sender


def broken_commands(command, robot):
    names, zeros = command.names, np.zeros(7)
    nan, far, fast = command.positions.copy(), command.positions.copy(), zeros.copy()
    nan[3], far[1], fast[6] = np.nan, robot.position_upper[1] + 0.01, robot.velocity_limits[6] * 1.01
    yield "NaN position", Reason.NOT_FINITE, changed(command, positions=nan)
    yield "infinite velocity", Reason.NOT_FINITE, changed(command, velocities=zeros - np.inf)
    yield "NaN duration", Reason.NOT_FINITE, changed(command, duration_s=float("nan"))
    yield "infinite duration", Reason.NOT_FINITE, changed(command, duration_s=float("inf"))
    yield "zero duration", Reason.MALFORMED, changed(command, duration_s=0.0)
    yield "negative duration", Reason.MALFORMED, changed(command, duration_s=-0.1)
    yield "text", Reason.MALFORMED, changed(command, positions=["far"] * 7)
    yield "no duration", Reason.MALFORMED, changed(command, duration_s=None)
    yield "a position too few", Reason.MALFORMED, changed(command, positions=command.positions[:6])
    yield "no velocities", Reason.MALFORMED, changed(command, velocities=np.zeros(0))
    yield "unknown joint", Reason.UNKNOWN_JOINT, changed(command, names=(*names[:6], "elbow"))
    yield "missing joint", Reason.MISSING_JOINT, changed(command, names=names[:6])
    yield "joint twice", Reason.DUPLICATE_JOINT, changed(command, names=(*names, names[0]))
    yield "no joints", Reason.MISSING_JOINT, changed(command, names=())
    yield "above limit", Reason.POSITION_LIMIT, changed(command, positions=far)
    yield "below limit", Reason.POSITION_LIMIT, changed(command, positions=robot.position_lower - 2e-6)
    yield "fast at the end", Reason.VELOCITY_LIMIT, changed(command, velocities=fast)
    yield "fast on the way", Reason.VELOCITY_LIMIT, changed(command, positions=robot.home + 0.3)
    yield (
        "outside",
        Reason.WORKSPACE,
        changed(command, positions=robot.home + 0.8 * np.eye(7)[0], duration_s=0.5),
    )


def test_every_broken_command_is_refused_with_its_reason_and_stops_the_arm_until_reset(make_arm, robot):
    for name, reason, command in broken_commands(make_arm().command(AHEAD), robot):
        arm = make_arm()
        arm.drive(AHEAD, 0.02)
        verdict = arm.send(command)
        assert (verdict.accepted, verdict.reason) == (False, reason), name
        assert verdict.text, name
        arm.run(0.15)
        status = arm.gate.status
        assert (status.state, status.reason) == (SafetyState.STOPPED, reason), name
        assert (status.commands_refused, status.stops) == (1, 1), name


def test_a_target_on_the_limit_is_followed(make_arm, robot, kinematics):
    arm = make_arm()
    command = arm.command(AHEAD)
    positions = robot.home.copy()
    positions[6] = robot.position_upper[6] + 1e-7  # turns the peg around itself, and is off by rounding
    assert arm.send(changed(command, positions=positions, velocities=np.zeros(7), duration_s=2.0)).accepted
    arm.run(0.3)
    assert arm.q[6] <= robot.position_upper[6]


def test_two_sources_stop_the_arm(arm):
    arm.drive(AHEAD, 0.2)
    verdict = arm.send(arm.command(AHEAD), source="another")
    assert (verdict.accepted, verdict.reason) == (False, Reason.SECOND_SOURCE)
    assert "another" in verdict.text and "planner" in verdict.text
    arm.seconds_until_rest()
    assert arm.gate.status.state is SafetyState.STOPPED


def test_another_source_may_take_over_once_the_first_is_silent(arm):
    command = arm.command(AHEAD)
    arm.send(changed(command, velocities=np.zeros(7)))
    arm.run(0.51)
    assert arm.send(arm.command(AHEAD), source="another").accepted


def test_another_source_may_take_over_after_a_reset(arm):
    arm.drive(AHEAD, 0.2)
    arm.gate.stop(arm.now_s)
    arm.run(0.1)
    arm.gate.reset(arm.now_s)
    assert arm.send(arm.command(AHEAD), source="another").accepted


# The arm itself


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
        lambda s: changed(s, names=("a", "b", "c", "d", "e", "f", "g")),
        lambda s: changed(s, names=s.names[::-1], positions=s.positions[:3]),
        lambda s: changed(s, positions=s.positions[:3]),
        lambda s: changed(s, velocities=["fast"] * 7),
        lambda s: changed(s, positions=None),
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
    assert "panda_joint" in status.text
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


# The workspace


@pytest.mark.parametrize(
    "direction", [(1, 0, 0), (0, 1, 0), (0, -1, 0), (-1, 0, 0), (0, 0, -1), (0, 0, 1), (1, 1, -1)]
)
def test_the_tool_comes_to_rest_inside_the_workspace_however_it_is_pushed(arm, robot, direction):
    for _ in range(60):
        arm.send(arm.command(tuple(0.02 * np.array(direction))))
        arm.run(0.07)
        assert np.all(arm.tool >= robot.workspace_min - 0.002) and np.all(
            arm.tool <= robot.workspace_max + 0.002
        )
    assert arm.gate.status.stops == 0
    arm.run(0.3)
    assert np.all(arm.tool >= robot.workspace_min - 0.002) and np.all(arm.tool <= robot.workspace_max + 0.002)


def test_a_tool_that_starts_outside_the_workspace_may_come_back_but_go_no_further(
    make_arm, robot, kinematics
):
    q = robot.home.copy()
    q[3] += 0.7
    arm = make_arm(q)
    height = arm.tool[2]
    assert height > robot.workspace_max[2]
    back = arm.command((0.0, 0.0, -0.01))
    assert arm.send(back).accepted
    arm.run(0.2)
    assert arm.tool[2] < height
    further = arm.q - 1.0 * (back.positions - q)
    verdict = arm.send(changed(back, positions=further, velocities=np.zeros(7), duration_s=0.5))
    assert verdict.reason is Reason.WORKSPACE


# Stop and reset


def test_an_operator_stop_brakes_at_once_and_names_itself(arm):
    arm.drive(DIAGONAL, 0.4)
    arm.gate.stop(arm.now_s)
    assert arm.gate.status.state is SafetyState.STOPPING
    assert arm.seconds_until_rest() <= 0.07
    status = arm.gate.status
    assert (status.state, status.reason, status.text) == (
        SafetyState.STOPPED,
        Reason.OPERATOR_STOP,
        Reason.OPERATOR_STOP.text,
    )


def test_the_first_reason_to_stop_is_kept(arm):
    arm.gate.stop(arm.now_s, text="the door is open")
    arm.gate.stop(arm.now_s, Reason.TRACKING)
    assert (arm.gate.status.reason, arm.gate.status.text) == (Reason.OPERATOR_STOP, "the door is open")
    assert arm.gate.status.stops == 1


def test_a_stop_before_the_first_joint_state_holds(robot, kinematics, arm):
    gate = SafetyGate(robot, kinematics)
    gate.stop(0.0)
    gate.observe(arm.state, 0.01)
    np.testing.assert_array_equal(gate.tick(0.02).positions, robot.home)
    assert gate.status.state is SafetyState.STOPPED
    assert not gate.submit(arm.command(AHEAD), 0.03, 0.0).accepted


def test_reset_is_refused_while_the_arm_still_moves(arm):
    arm.drive(AHEAD, 0.4)
    arm.gate.stop(arm.now_s)
    arm.run(0.01)
    verdict = arm.gate.reset(arm.now_s)
    assert (verdict.accepted, verdict.reason) == (False, Reason.MOVING)


def test_reset_is_refused_without_a_fresh_joint_state(arm):
    arm.gate.stop(arm.now_s)
    arm.run(0.1)
    verdict = arm.gate.reset(arm.now_s + 0.2)
    assert (verdict.accepted, verdict.reason) == (False, Reason.STATE_STALE)
    assert arm.gate.status.state is SafetyState.STOPPED


def test_reset_resumes_from_the_measured_position(arm):
    arm.gate.stop(arm.now_s)
    arm.run(1.0)
    arm.blocked = True
    arm.q = arm.q + 0.1  # somebody has moved the arm
    arm.gate.observe(arm.state, arm.now_s)
    assert arm.gate.reset(arm.now_s).accepted
    np.testing.assert_array_equal(arm.run(0.5)[-1].positions, arm.q)
    assert arm.gate.status.state is SafetyState.IDLE


def test_reset_changes_nothing_while_the_arm_is_not_stopped(arm):
    arm.drive(AHEAD, 0.2)
    assert arm.gate.reset(arm.now_s).accepted
    assert arm.gate.status.state is SafetyState.ACTIVE
    arm.run(0.02)
    assert not arm.at_rest


# Time


def test_a_clock_that_jumps_back_neither_moves_the_arm_nor_keeps_a_command_alive(arm):
    arm.drive(AHEAD, 0.3)
    q = arm.q
    arm.now_s -= 1000.0
    setpoint = arm.gate.tick(arm.now_s)
    np.testing.assert_array_equal(setpoint.positions, q)
    assert arm.seconds_until_rest() <= 0.16


@pytest.mark.parametrize("now_s", [float("nan"), float("inf"), float("-inf")])
def test_a_time_that_is_no_number_stands_still(arm, now_s):
    arm.drive(AHEAD, 0.3)
    q = arm.q
    np.testing.assert_array_equal(arm.gate.tick(now_s).positions, q)
    arm.run(0.05)
    assert arm.gate.status.state is SafetyState.ACTIVE
    arm.run(0.1)
    assert arm.at_rest


@pytest.mark.parametrize("now_s", [float("nan"), float("inf")])
def test_times_that_are_no_number_do_not_keep_a_command_alive(arm, now_s):
    arm.drive(AHEAD, 0.3)
    for _ in range(16):
        arm.gate.observe(arm.state, now_s)
        arm.now_s += 0.01
        setpoint = arm.gate.tick(arm.now_s)
    assert not setpoint.velocities.any()


def test_after_a_long_silence_between_ticks_the_arm_moves_no_further_than_in_one_tick(arm, robot):
    arm.drive(AHEAD, 0.3)
    q = arm.q
    setpoint = arm.gate.tick(arm.now_s + 5.0)
    assert np.all(np.abs(setpoint.positions - q) <= robot.velocity_limits * 0.05)
    assert setpoint.duration_s == pytest.approx(0.05)
    assert arm.gate.status.state is SafetyState.STOPPING


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_gate_settings_out_of_range_are_refused_by_name(value):
    with pytest.raises(ValueError, match="command_timeout_s"):
        GateConfig(command_timeout_s=value)


def test_every_reason_has_its_own_code_and_a_text():
    assert len({reason.value for reason in Reason}) == len(Reason)
    assert all(reason.text for reason in Reason if reason is not Reason.NONE)
    assert Reason("command_stale") is Reason.COMMAND_STALE
