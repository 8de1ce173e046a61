"""Caution: how a gate slows, holds and stops for a commander that is surprised by what it sees."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.kinematics import Kinematics
from hardware.robot import load_robot
from hardware.safety.collision import Bodies
from hardware.safety.gate import SafetyGate
from hardware.safety.status import Caution, GateConfig, Reason, SafetyState

from .conftest import GatedArm

AHEAD = (0.02, 0.0, 0.0)
PERIOD_S = 0.07
ROBOT = load_robot("panda")
KINEMATICS = Kinematics(ROBOT)
BODIES = Bodies(ROBOT)
CALM_AFTER_S = GateConfig().calm_after_s


def drive(arm: GatedArm, level: object, seconds: float, displacement=AHEAD) -> float:
    """Command and say `level` every 70 ms; how far the tool went, in metres."""
    start = arm.tool
    for _ in range(round(seconds / PERIOD_S)):
        arm.gate.caution(level, arm.now_s)
        arm.send(arm.command(displacement))
        arm.run(PERIOD_S)
    return float(np.linalg.norm(arm.tool - start))


def new_arm() -> GatedArm:
    arm = GatedArm(SafetyGate(ROBOT, KINEMATICS, bodies=BODIES), KINEMATICS)
    arm.gate.observe(arm.state, 0.0)
    return arm


def test_slow_leaves_half_of_the_speed(make_arm):
    brisk, careful = make_arm(), make_arm()
    assert drive(careful, Caution.SLOW, 0.7) == pytest.approx(drive(brisk, Caution.CALM, 0.7) / 2, rel=0.15)
    assert (careful.gate.status.caution, careful.gate.status.speed_share) == (Caution.SLOW, 0.5)
    assert (careful.gate.status.slows, careful.gate.status.holds, careful.gate.status.stops) == (1, 0, 0)


def test_hold_brings_a_moving_arm_to_rest_without_a_stop_while_commands_go_on(arm):
    drive(arm, Caution.CALM, 0.5)
    arm.gate.caution(Caution.HOLD, arm.now_s)
    arm.send(arm.command(AHEAD))
    arm.run(0.07)
    assert arm.at_rest
    assert drive(arm, Caution.HOLD, 1.0) == pytest.approx(0.0, abs=1e-9)
    status = arm.gate.status
    assert (status.state, status.reason, status.holds) == (SafetyState.ACTIVE, Reason.NONE, 1)
    assert status.speed_share == 0.0


@pytest.mark.parametrize("raised, share", [(Caution.SLOW, 0.5), (Caution.HOLD, 0.0)])
def test_caution_is_lowered_after_a_second_of_calm_and_not_before(arm, raised, share):
    full = drive(arm, Caution.CALM, 0.7)
    drive(arm, raised, 0.35)
    back = (-0.02, 0.0, 0.0)
    assert drive(arm, Caution.CALM, 0.98, back) <= (share + 0.1) * full * 1.4
    assert arm.gate.status.caution is raised
    drive(arm, Caution.CALM, 0.14)
    assert arm.gate.status.caution is Caution.CALM
    assert drive(arm, Caution.CALM, 0.35) > 0.02


def test_a_hold_with_slow_after_it_becomes_slow(arm):
    drive(arm, Caution.HOLD, 0.07)
    drive(arm, Caution.SLOW, 0.56)
    drive(arm, Caution.CALM, 0.56)
    assert arm.gate.status.caution is Caution.SLOW
    drive(arm, Caution.CALM, 1.12)
    assert arm.gate.status.caution is Caution.CALM


def test_every_raised_level_begins_the_calm_second_again(arm):
    drive(arm, Caution.HOLD, 0.07)
    for _ in range(4):
        drive(arm, Caution.CALM, 0.7)
        drive(arm, Caution.HOLD, 0.07)
    assert arm.gate.status.caution is Caution.HOLD
    assert arm.gate.status.holds == 1


def test_a_raised_caution_that_nobody_renews_stays(arm):
    arm.gate.caution(Caution.HOLD, arm.now_s)
    arm.drive(AHEAD, 3.0)
    assert np.linalg.norm(arm.tool - KINEMATICS.tool_position(ROBOT.home)) < 1e-9
    arm.gate.caution(Caution.CALM, arm.now_s)
    arm.drive(AHEAD, 3.0)
    arm.gate.caution(Caution.CALM, arm.now_s)
    assert arm.gate.status.caution is Caution.HOLD, "two words of calm with a gap between are no calm second"


def test_calm_that_falls_silent_is_no_fault(arm):
    drive(arm, Caution.CALM, 0.35)
    start = arm.tool
    arm.drive(AHEAD, 1.0)
    assert np.linalg.norm(arm.tool - start) > 0.08
    assert arm.gate.status.stops == 0


def test_stop_brings_the_arm_to_rest_until_reset(arm):
    drive(arm, Caution.CALM, 0.5)
    arm.gate.caution(Caution.STOP, arm.now_s)
    assert arm.seconds_until_rest() <= 0.08 + 1e-9
    status = arm.gate.status
    assert (status.state, status.reason) == (SafetyState.STOPPED, Reason.SURPRISE)
    assert status.text == Reason.SURPRISE.text and status.stops == 1
    drive(arm, Caution.CALM, 2.0)
    assert arm.gate.status.state is SafetyState.STOPPED and arm.gate.status.speed_share == 0.0
    assert arm.gate.reset(arm.now_s).accepted and arm.gate.status.speed_share == 1.0
    assert drive(arm, Caution.CALM, 0.35) > 0.01


def test_a_reset_lowers_caution(arm):
    arm.gate.caution(Caution.HOLD, arm.now_s)
    arm.gate.stop(arm.now_s)
    arm.run(0.2)
    arm.gate.reset(arm.now_s)
    assert arm.gate.status.caution is Caution.CALM


@pytest.mark.parametrize("level", [float("nan"), float("inf"), 4, -1, 1.5, "calm", None, [1], np.zeros(2)])
def test_a_level_that_is_none_stops_the_arm(arm, level):
    drive(arm, Caution.CALM, 0.2)
    arm.gate.caution(level, arm.now_s)
    assert arm.gate.status.reason is Reason.UNKNOWN_CAUTION
    assert arm.seconds_until_rest() <= 0.08 + 1e-9
    assert arm.gate.status.state is SafetyState.STOPPED


@given(st.floats(allow_nan=True, allow_infinity=True) | st.integers())
def test_whatever_is_no_level_stops_and_whatever_is_one_does_as_it_says(level):
    arm = new_arm()
    arm.gate.caution(level, 0.0)
    if level in (0, 1, 2):
        assert arm.gate.status.caution == level and arm.gate.status.reason is Reason.NONE
    else:
        assert arm.gate.status.reason is (Reason.SURPRISE if level == 3 else Reason.UNKNOWN_CAUTION)


@given(st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.floats(0.0, 0.6)), min_size=1, max_size=40))
def test_what_is_in_force_is_never_below_any_level_of_the_last_second(words):
    gate, now_s, said = SafetyGate(ROBOT, KINEMATICS, bodies=BODIES), 0.0, []
    for level, wait_s in words:
        now_s += wait_s
        gate.caution(level, now_s)
        said.append((now_s, level))
        recent = [word for time_s, word in said if time_s > now_s - CALM_AFTER_S]
        assert gate.status.caution >= max(recent)


def test_a_clock_that_jumps_back_does_not_lower_caution(arm):
    arm.gate.caution(Caution.HOLD, 5.0)
    for now_s in (float("nan"), -1000.0, float("inf"), -2000.0):
        arm.gate.caution(Caution.CALM, now_s)
    assert arm.gate.status.caution is Caution.HOLD


def test_more_than_all_of_the_speed_is_refused():
    with pytest.raises(ValueError, match="slow_share = 1.5 must be at most 1"):
        GateConfig(slow_share=1.5)


def test_calm_with_gaps_of_more_than_three_tenths_of_a_second_is_none(arm):
    arm.gate.caution(Caution.SLOW, 1.0)
    for now_s in np.arange(1.0, 5.0, 0.35):
        arm.gate.caution(Caution.CALM, now_s)
    assert arm.gate.status.caution is Caution.SLOW
    for now_s in np.arange(5.0, 6.3, 0.25):
        arm.gate.caution(Caution.CALM, now_s)
    assert arm.gate.status.caution is Caution.CALM


def test_all_of_the_speed_may_be_left_to_who_is_slow():
    assert GateConfig(slow_share=1.0).slow_share == 1.0
