"""A gamepad moves the arm only while its dead-man button is held. The pads are SDL's own virtual ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hardware.arm.contract import JointState
from hardware.errors import ArmError
from hardware.kinematics import Kinematics
from hardware.robot import load_robot
from hardware.teleop.contract import COMMAND_S, ToolMotion
from hardware.teleop.gamepad import SILENT_AFTER_S, Gamepad

from .virtual_pad import (
    DEAD_MAN,
    FULL,
    LEFT_X,
    LEFT_Y,
    OPENS,
    PULLED,
    RIGHT_TRIGGER,
    RIGHT_Y,
    VirtualPad,
    sdl2,
)

ROBOT = load_robot("so101")
KINEMATICS = Kinematics(ROBOT)
MIDDLE = KINEMATICS.inverse([0.19, 0.0, 0.045], KINEMATICS.tool_pose(ROBOT.home)[1], ROBOT.home).positions
PERIOD_S = 1 / 30
SPEED_M_S = 0.1


@pytest.fixture
def plug_in() -> Iterator[Callable[..., VirtualPad]]:
    """Plugs a gamepad of that name in; all are unplugged with the test."""
    assert sdl2.SDL_InitSubSystem(sdl2.SDL_INIT_GAMECONTROLLER) == 0
    plugged: list[VirtualPad] = []

    def plug(name: str = "Pad", without: int | None = None) -> VirtualPad:
        plugged.append(VirtualPad(name, without))
        return plugged[-1]

    yield plug
    for pad in plugged:
        pad.unplug()
    sdl2.SDL_QuitSubSystem(sdl2.SDL_INIT_GAMECONTROLLER)


class Desk:
    """A gamepad source, and an arm that follows it exactly."""

    def __init__(self, chosen: str | None = None) -> None:
        self.said: list[str] = []
        self.source = Gamepad(ROBOT, ToolMotion(ROBOT, KINEMATICS), SPEED_M_S, self.said.append, chosen)
        self.q, self.now_s = MIDDLE.copy(), 100.0
        self.moves = False

    @property
    def tool(self) -> np.ndarray:
        return KINEMATICS.tool_position(self.q)

    def run(self, seconds: float) -> None:
        """`moves` tells afterwards whether the last command was one of motion."""
        for _ in range(round(seconds / PERIOD_S)):
            state = JointState(ROBOT.joint_names, self.q, np.zeros_like(self.q), int(self.now_s * 1e9))
            command = self.source.command(state, self.now_s)
            self.moves = command is not None and bool(command.velocities.any())
            if command is not None:
                assert command.stamp_ns == state.stamp_ns
                self.q = self.q + (command.positions - self.q) * PERIOD_S / command.duration_s
            self.now_s += PERIOD_S

    def way(self, seconds: float) -> np.ndarray:
        before = self.tool
        self.run(seconds)
        return self.tool - before


@pytest.fixture
def sit_down() -> Iterator[Callable[..., Desk]]:
    desks: list[Desk] = []

    def sit(chosen: str | None = None) -> Desk:
        desks.append(Desk(chosen))
        desks[-1].run(0.1)
        return desks[-1]

    yield sit
    for desk in desks:
        desk.source.close()


@pytest.mark.parametrize(
    ("stick", "to", "axis", "sign"),
    [
        (LEFT_Y, -FULL, 0, 1),
        (LEFT_Y, FULL, 0, -1),
        (LEFT_X, -FULL, 1, 1),
        (LEFT_X, FULL, 1, -1),
        (RIGHT_Y, -FULL, 2, 1),
        (RIGHT_Y, FULL, 2, -1),
    ],
)
def test_a_stick_moves_the_tool_its_way_at_the_speed(plug_in, sit_down, stick, to, axis, sign) -> None:
    pad, desk = plug_in(), sit_down()
    pad.press(DEAD_MAN)
    pad.move(stick, to)
    way = desk.way(0.3)
    assert 0.6 * 0.3 * SPEED_M_S < sign * way[axis] < 1.3 * 0.3 * SPEED_M_S
    assert np.abs(np.delete(way, axis)).max() < 0.005


def test_half_a_stick_is_slower_and_its_middle_is_rest(plug_in, sit_down) -> None:
    pad, desk = plug_in(), sit_down()
    pad.press(DEAD_MAN)
    pad.move(LEFT_X, FULL // 2)
    assert 0.2 * 0.3 * SPEED_M_S < -desk.way(0.3)[1] < 0.7 * 0.3 * SPEED_M_S
    pad.move(LEFT_X, FULL // 8)
    desk.run(0.2)
    assert not desk.moves


def test_the_trigger_closes_the_gripper_and_the_shoulder_opens_it(plug_in, sit_down) -> None:
    pad, desk = plug_in(), sit_down()
    pad.press(DEAD_MAN)
    pad.press(OPENS)
    desk.run(0.5)
    opened = desk.q[-1]
    assert opened > 0.2
    pad.press(OPENS, False)
    pad.move(RIGHT_TRIGGER, PULLED)
    desk.run(0.3)
    assert desk.q[-1] < opened - 0.1


axes = st.tuples(*[st.integers(-FULL - 1, FULL)] * 6)
buttons = st.sets(st.integers(0, 14))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(axes=axes, buttons=buttons)
def test_no_gamepad_asks_for_more_than_the_speed_and_none_for_motion_without_the_dead_man_button(
    plug_in, sit_down, axes: tuple[int, ...], buttons: set[int]
) -> None:
    pad, desk = plug_in(), sit_down()
    for axis, to in enumerate(axes):
        pad.move(axis, to)
    for button in buttons:
        pad.press(button)
    state = JointState(ROBOT.joint_names, desk.q, np.zeros_like(desk.q), 1)
    command = desk.source.command(state, desk.now_s)
    if DEAD_MAN not in buttons:
        assert command is None
    elif command is not None:
        assert np.isfinite(command.positions).all() and np.isfinite(command.velocities).all()
        way = KINEMATICS.tool_position(command.positions) - desk.tool
        assert np.linalg.norm(way) <= 1.02 * SPEED_M_S * COMMAND_S + 1e-4
        assert (np.abs(command.velocities) <= ROBOT.velocity_limits + 1e-9).all()
    desk.source.close()
    pad.unplug()


def test_letting_go_of_the_dead_man_button_ends_at_rest_and_then_nothing_is_commanded(
    plug_in, sit_down
) -> None:
    pad, desk = plug_in(), sit_down()
    pad.press(DEAD_MAN)
    pad.move(LEFT_Y, -FULL)
    desk.run(0.3)
    assert desk.moves
    pad.press(DEAD_MAN, False)
    desk.run(PERIOD_S)
    assert not desk.moves
    assert np.abs(desk.way(0.1)).max() < 0.01
    assert np.abs(desk.way(1.0)).max() == 0.0


def test_a_button_that_is_held_from_the_start_moves_nothing(plug_in, sit_down) -> None:
    pad = plug_in()
    sdl2.SDL_JoystickUpdate()
    pad.press(DEAD_MAN)
    pad.move(LEFT_Y, -FULL)
    desk = sit_down()
    assert np.abs(desk.way(0.5)).max() == 0.0
    pad.press(DEAD_MAN, False)
    desk.run(PERIOD_S)
    pad.press(DEAD_MAN)
    desk.run(PERIOD_S)
    assert desk.moves


def test_a_pad_that_is_unplugged_in_motion_rests_at_once_and_is_told(plug_in, sit_down) -> None:
    pad, desk = plug_in("Blue Pad"), sit_down()
    pad.press(DEAD_MAN)
    pad.move(LEFT_Y, -FULL)
    desk.run(0.3)
    assert desk.moves
    pad.unplug()
    desk.run(PERIOD_S)
    assert not desk.moves
    desk.run(0.1)
    assert np.abs(desk.way(1.0)).max() == 0.0
    assert desk.said == ["Blue Pad is gone: the arm rests until it is plugged in or awake again"]

    # Back, it is a pad whose button has to be let go first; another one is not taken for it.
    plug_in("Red Pad").press(DEAD_MAN)
    desk.run(0.1)
    assert len(desk.said) == 1
    back = plug_in("Blue Pad")
    back.press(DEAD_MAN)
    back.move(LEFT_Y, -FULL)
    assert np.abs(desk.way(0.3)).max() == 0.0
    assert desk.said[1:] == ["Blue Pad is back"]
    back.press(DEAD_MAN, False)
    desk.run(PERIOD_S)
    back.press(DEAD_MAN)
    assert desk.way(0.3)[0] > 0.01


def test_of_two_alike_the_other_is_not_taken_for_the_one_that_went(plug_in, sit_down) -> None:
    ours, other = plug_in("Pad"), plug_in("Pad")
    desk = sit_down("0")
    ours.unplug()
    desk.run(0.1)
    other.press(DEAD_MAN)
    other.move(LEFT_Y, -FULL)
    assert np.abs(desk.way(0.3)).max() == 0.0
    assert len(desk.said) == 1


def test_a_pad_that_says_nothing_new_rests_the_arm(plug_in, sit_down) -> None:
    pad, desk = plug_in(), sit_down()
    pad.press(DEAD_MAN)
    pad.move(LEFT_X, FULL // 2)
    desk.run(0.9 * SILENT_AFTER_S)
    assert desk.moves and not desk.said
    desk.run(0.3 * SILENT_AFTER_S)
    assert not desk.moves and len(desk.said) == 1 and "says nothing new" in desk.said[0]
    assert np.abs(desk.way(1.0)).max() < 1e-6
    pad.move(LEFT_X, FULL // 2 + 100)
    desk.run(PERIOD_S)
    assert desk.moves


def test_the_first_pad_is_taken_or_the_one_that_is_named(plug_in, sit_down) -> None:
    plug_in("Blue Pad")
    plug_in("Red Pad")
    assert sit_down().source.help.startswith("Blue Pad: hold the left shoulder button")
    assert sit_down("1").source.help.startswith("Red Pad")
    assert sit_down("red").source.help.startswith("Red Pad")
    with pytest.raises(ArmError, match="no gamepad 'green'; there are 0: Blue Pad, 1: Red Pad"):
        sit_down("green")


def test_a_pad_without_the_button_that_must_be_held_is_refused_by_its_name(plug_in, sit_down) -> None:
    plug_in("Old Stick", without=DEAD_MAN)
    plug_in("Without A", without=0)
    with pytest.raises(ArmError, match="gamepad Old Stick has no left shoulder button") as error:
        sit_down()
    assert "SDL_GAMECONTROLLERCONFIG" in str(error.value) and "\n" not in str(error.value)
    sit_down("Without A")  # the first one was let go, and this one has what it takes


def test_without_a_pad_it_says_what_to_do() -> None:
    if sdl2.SDL_NumJoysticks():
        pytest.skip("a game device is plugged into this machine")
    with pytest.raises(ArmError, match="no gamepad answers: plug it in"):
        Desk()


MISSING = """
import sys
sys.modules[{module!r}] = None
import hardware.teleop.gamepad as gamepad
from hardware.errors import ArmError
try:
    gamepad.begin_sdl()
except ArmError as error:
    print(error)
"""


def test_without_the_extra_it_is_named() -> None:
    said = subprocess.run(
        [sys.executable, "-c", MISSING.format(module="sdl2")], capture_output=True, text=True, check=True
    ).stdout
    assert said == "pysdl2 is not installed: run `pip install 'jepa-arm[gamepad]'`\n"


def test_without_sdl_itself_its_package_is_named(tmp_path) -> None:
    environment = {"PYSDL2_DLL_PATH": str(tmp_path), "PATH": ""}
    said = subprocess.run(
        [sys.executable, "-c", MISSING.format(module="sdl2dll")],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | environment,
    ).stdout
    assert "SDL cannot be loaded" in said and "apt-get install -y libsdl2-2.0-0" in said


def test_signals_stay_ours() -> None:
    program = """
import os, signal
from hardware.teleop.gamepad import begin_sdl
begin_sdl()
os.kill(os.getpid(), signal.SIGTERM)
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGTERM
