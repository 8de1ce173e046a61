"""Stops by an operator, and the way out of a stop."""

from __future__ import annotations

import numpy as np

from hardware.safety.gate import SafetyGate
from hardware.safety.status import Reason, SafetyState

AHEAD = (0.02, 0.0, 0.0)
DIAGONAL = (0.02, 0.02, 0.0)


def test_an_operator_stop_brakes_at_once_and_names_itself(arm):
    arm.drive(DIAGONAL, 0.4)
    arm.gate.stop(arm.now_s)
    assert arm.gate.status.state is SafetyState.STOPPING
    assert arm.seconds_until_rest() <= 0.08 + 1e-9
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
