"""Clocks that jump, ticks that are late, settings that make no sense."""

from __future__ import annotations

import numpy as np
import pytest

from hardware.safety.status import GateConfig, SafetyState

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


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_gate_settings_out_of_range_are_refused_by_name(value):
    with pytest.raises(ValueError, match="command_timeout_s"):
        GateConfig(command_timeout_s=value)


def test_slowing_for_singularities_begins_before_it_ends():
    with pytest.raises(ValueError, match="singularity_slow = 100.0 must be below singularity_stop = 100.0"):
        GateConfig(singularity_slow=100.0)
