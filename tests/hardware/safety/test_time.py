"""Clocks that jump, ticks that are late, settings that make no sense."""

from __future__ import annotations

import numpy as np
import pytest

from hardware.arm.contract import JointState
from hardware.safety.gate import SafetyGate
from hardware.safety.status import Caution, GateConfig, Reason, SafetyState

AHEAD = (0.02, 0.0, 0.0)


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
    arm.run(0.11)
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


def test_a_tick_of_a_nanosecond_moves_nothing_and_its_time_is_not_lost(arm):
    arm.drive(AHEAD, 0.3)
    q, now_s = arm.q, arm.now_s
    setpoint = arm.gate.tick(now_s + 1e-9)
    np.testing.assert_array_equal(setpoint.positions, q)
    assert setpoint.duration_s == 0.0
    setpoint = arm.gate.tick(now_s + 0.01)
    assert setpoint.duration_s == pytest.approx(0.01, abs=1e-12)
    assert (setpoint.positions != q).any()


def test_the_first_tick_is_counted_from_the_first_joint_state(robot, kinematics):
    gate = SafetyGate(robot, kinematics)
    gate.observe(JointState(robot.joint_names, robot.home, np.zeros(7), 0), 5.0)
    gate.observe(JointState(robot.joint_names, robot.home, np.zeros(7), 0), 5.02)
    assert gate.tick(5.03).duration_s == pytest.approx(0.03)


def test_a_command_that_comes_long_after_the_last_tick_lives_from_when_it_came(arm):
    arm.drive(AHEAD, 0.3)
    q = arm.q
    arm.now_s += 0.08
    assert arm.send(arm.command(AHEAD)).accepted
    arm.run(0.07)
    assert arm.gate.status.pauses == 0
    assert np.abs(arm.setpoints[-1].velocities).max() > 0.1
    assert (arm.q != q).any()


def test_a_joint_state_that_comes_long_after_the_last_tick_is_as_old_as_it_is(arm):
    arm.gate.observe(arm.state, arm.now_s + 0.2)
    arm.gate.tick(arm.now_s + 0.21)
    assert arm.gate.status.state is SafetyState.IDLE


def test_a_caution_that_comes_long_after_the_last_tick_is_in_force_from_when_it_came(arm):
    arm.gate.caution(Caution.SLOW, arm.now_s + 0.6)
    for later_s in np.arange(0.7, 1.5, 0.1):
        arm.gate.caution(Caution.CALM, arm.now_s + later_s)
    assert arm.gate.status.caution is Caution.SLOW
    for later_s in np.arange(1.5, 1.8, 0.1):
        arm.gate.caution(Caution.CALM, arm.now_s + later_s)
    assert arm.gate.status.caution is Caution.CALM


def test_a_reset_long_after_the_last_tick_asks_for_a_joint_state_of_now(arm):
    arm.gate.stop(arm.now_s)
    arm.run(0.5)
    arm.now_s += 1.0
    assert arm.gate.reset(arm.now_s).reason is Reason.STATE_STALE
    arm.gate.observe(arm.state, arm.now_s)
    assert arm.gate.reset(arm.now_s).accepted


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_gate_settings_out_of_range_are_refused_by_name(value):
    with pytest.raises(ValueError, match="command_timeout_s"):
        GateConfig(command_timeout_s=value)


def test_slowing_for_singularities_begins_before_it_ends():
    with pytest.raises(ValueError, match="singularity_slow = 100.0 must be below singularity_stop = 100.0"):
        GateConfig(singularity_slow=100.0)
