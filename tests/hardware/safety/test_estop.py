"""Emergency stops: whatever is not plainly released stops the arm, and only a reset starts it again."""

from __future__ import annotations

import numpy as np
import pytest

from hardware.errors import ContractError
from hardware.safety.estop import EStop
from hardware.safety.gate import SafetyGate
from hardware.safety.status import Reason, SafetyState

AHEAD = (0.02, 0.0, 0.0)


class Button:
    def __init__(self) -> None:
        self.answer: object = False

    def pressed(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def button() -> Button:
    return Button()


@pytest.fixture
def guarded(make_arm, robot, kinematics, bodies, button):
    arm = make_arm()
    arm.gate = SafetyGate(robot, kinematics, bodies=bodies, e_stops=[button])
    arm.gate.observe(arm.state, 0.0)
    return arm


@pytest.mark.parametrize("answer", [True, 1, 0, None, "no", np.bool_(False), OSError("the wire is cut")])
def test_whatever_a_button_says_but_false_stops_the_arm(guarded, button, answer):
    guarded.drive(AHEAD, 0.3)
    assert guarded.gate.status.state is SafetyState.ACTIVE
    button.answer = answer
    guarded.run(0.01)
    assert guarded.gate.status.state is SafetyState.STOPPING
    assert guarded.seconds_until_rest() <= 0.08 + 1e-9
    status = guarded.gate.status
    assert (status.state, status.reason, status.text) == (
        SafetyState.STOPPED,
        Reason.E_STOP,
        "Button is pressed",
    )
    assert status.counts == {Reason.E_STOP: 1}


def test_a_pressed_button_refuses_the_reset_and_a_released_one_starts_nothing(guarded, button):
    button.answer = True
    guarded.run(0.1)
    verdict = guarded.gate.reset(guarded.now_s)
    assert (verdict.accepted, verdict.reason) == (False, Reason.E_STOP)
    assert verdict.text == "Button is pressed; release it, then reset"
    button.answer = False
    guarded.run(0.5)
    assert guarded.gate.status.state is SafetyState.STOPPED
    assert guarded.gate.reset(guarded.now_s).accepted
    assert guarded.send(guarded.command(AHEAD)).accepted


@pytest.mark.parametrize("pressed", [True, 1, 0, None, "released"])
def test_a_stop_that_is_told_is_latched_until_told_released_and_reset(arm, pressed):
    arm.drive(AHEAD, 0.3)
    arm.gate.e_stop(pressed, arm.now_s)
    assert arm.gate.status.reason is Reason.E_STOP
    assert arm.gate.status.text == "emergency stop is pressed"
    arm.seconds_until_rest()
    assert arm.gate.reset(arm.now_s).reason is Reason.E_STOP
    arm.gate.e_stop(False, arm.now_s)
    assert arm.gate.status.state is SafetyState.STOPPED
    assert arm.gate.reset(arm.now_s).accepted
    arm.gate.e_stop(False, arm.now_s)
    assert arm.gate.status.state is SafetyState.IDLE


def test_a_stop_pressed_before_the_arm_speaks_holds_it_from_the_start(robot, kinematics, bodies, arm, button):
    button.answer = True
    gate = SafetyGate(robot, kinematics, bodies=bodies, e_stops=[button])
    assert gate.tick(0.0) is None
    assert gate.status.state is SafetyState.STOPPING
    gate.observe(arm.state, 0.0)
    assert not gate.submit(arm.command(AHEAD), 0.01, 0.0).accepted
    np.testing.assert_array_equal(gate.tick(0.01).positions, robot.home)


def test_one_of_several_buttons_is_enough_and_is_named(robot, kinematics, bodies, arm):
    class Curtain(Button):
        pass

    curtain = Curtain()
    curtain.answer = True
    gate = SafetyGate(robot, kinematics, bodies=bodies, e_stops=[Button(), curtain])
    gate.tick(0.0)
    assert gate.status.text == "Curtain is pressed"


def test_something_that_cannot_be_pressed_is_no_emergency_stop(robot, kinematics, bodies):
    assert isinstance(Button(), EStop)
    with pytest.raises(ContractError, match="dict is no emergency stop: it has no pressed"):
        SafetyGate(robot, kinematics, bodies=bodies, e_stops=[{}])
