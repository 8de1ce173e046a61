"""Commands from a broken sender, and from two of them."""

from __future__ import annotations

from dataclasses import replace as changed

import numpy as np

from hardware.safety.status import Reason, SafetyState

AHEAD = (0.02, 0.0, 0.0)


def broken_commands(command, robot):
    names, zeros = command.names, np.zeros(7)
    nan, far, fast = command.positions.copy(), command.positions.copy(), zeros.copy()
    nan[3], far[1], fast[6] = np.nan, robot.position_upper[1] + 0.01, robot.velocity_limits[6] * 1.01
    yield "NaN position", Reason.NOT_FINITE, changed(command, positions=nan)
    yield "infinite velocity", Reason.NOT_FINITE, changed(command, velocities=zeros - np.inf)
    yield "one NaN velocity", Reason.NOT_FINITE, changed(command, velocities=nan)
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
    yield "a jump", Reason.DISCONTINUITY, changed(command, positions=robot.home + 0.3)
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
