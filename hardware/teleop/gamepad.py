"""The tool moved by a gamepad, as long as its dead-man button is held. Through SDL, which knows most pads.

What a pad said last is not what it says now: one that was unplugged, fell asleep or is out of reach moves
nothing, and moves something again only after its dead-man button has been let go.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hardware.arm.contract import JointCommand, JointState
from hardware.errors import ArmError
from hardware.robot import Robot
from hardware.teleop.contract import ToolMotion, Vector, limited
from hardware.teleop.keyboard import GRIP_S

# Of a stick's way: less is none, as sticks do not come back to their middle exactly, and this much is all.
DEAD_ZONE, FULL_FROM = 0.15, 0.9
AXIS_MAX = 32767
# A radio link that breaks is told seconds later, or never; a stick in a hand is not still for this long.
SILENT_AFTER_S = 1.0
HELP = (
    "hold the left shoulder button to move; left stick: away, back, left, right; right stick: up, down; "
    "right shoulder: open, right trigger: close"
)


class Gamepad:
    def __init__(
        self,
        robot: Robot,
        motion: ToolMotion,
        speed_m_s: float,
        tell: Callable[[str], None],
        chosen: str | None = None,
    ) -> None:
        """Takes the first pad, or the one `chosen` by its number or part of its name.

        Raises ArmError if there is no such pad, or if it has no dead-man button.

        `tell` gets a line when the pad falls silent, is gone, and is back.
        """
        self._motion, self._speed_m_s, self._tell = motion, speed_m_s, tell
        gripper = robot.gripper
        self._grip_speed = 0.0 if gripper is None else (gripper.open - gripper.closed) / GRIP_S
        self._sdl = begin_sdl()
        self._pad: Any = None
        # Those that were there when ours went: of two alike, the one in other hands is not taken for it.
        self._others: list[int] = []
        self._said: tuple[float, ...] = ()
        self._said_s = 0.0
        self._was_let_go = self._told_silent = False
        try:
            number, self._name = chosen_pad(self._sdl, chosen)
            if not self._opens(number):
                raise ArmError(f"gamepad {self._name} does not open: {self._sdl.SDL_GetError().decode()}")
            if not has_dead_man(self._sdl, self._pad):
                raise ArmError(
                    f"gamepad {self._name} has no left shoulder button, and the arm moves only while that is "
                    "held: take another pad, or name a button of this one as leftshoulder in "
                    "SDL_GAMECONTROLLERCONFIG"
                )
        except ArmError:
            self.close()
            raise
        self.help = f"{self._name}: {HELP}"

    def press(self, key: str, now_s: float) -> None:
        pass

    def command(self, state: JointState, now_s: float) -> JointCommand | None:
        self._sdl.SDL_GameControllerUpdate()
        velocity, grip = self._wanted(now_s) if self._is_there() else (np.zeros(3), 0.0)
        return self._motion.command(state, now_s, velocity, grip)

    def close(self) -> None:
        if self._pad:
            self._sdl.SDL_GameControllerClose(self._pad)
            self._pad = None
        self._sdl.SDL_QuitSubSystem(self._sdl.SDL_INIT_GAMECONTROLLER)

    def _wanted(self, now_s: float) -> tuple[Vector, float]:
        """Velocity of the tool (3,) m/s, and of the gripper's joint per second."""
        sdl = self._sdl
        held, opens = (
            bool(sdl.SDL_GameControllerGetButton(self._pad, button))
            for button in (sdl.SDL_CONTROLLER_BUTTON_LEFTSHOULDER, sdl.SDL_CONTROLLER_BUTTON_RIGHTSHOULDER)
        )
        away, left, up, closes = (
            sign * sdl.SDL_GameControllerGetAxis(self._pad, axis) / AXIS_MAX
            for axis, sign in (
                (sdl.SDL_CONTROLLER_AXIS_LEFTY, -1),
                (sdl.SDL_CONTROLLER_AXIS_LEFTX, -1),
                (sdl.SDL_CONTROLLER_AXIS_RIGHTY, -1),
                (sdl.SDL_CONTROLLER_AXIS_TRIGGERRIGHT, 1),
            )
        )
        share = limited(np.append(share_of([away, left]), share_of([up])), 1.0)
        grip = opens - float(share_of([closes])[0])
        said = (held, opens, away, left, up, closes)
        if said != self._said:
            self._said, self._said_s, self._told_silent = said, now_s, False
        self._was_let_go = self._was_let_go or not held
        if not held or not self._was_let_go:
            return np.zeros(3), 0.0
        if now_s - self._said_s > SILENT_AFTER_S:
            if not self._told_silent and (share.any() or grip):
                self._told_silent = True
                self._tell(f"{self._name} says nothing new, so the arm rests: move a stick to go on")
            return np.zeros(3), 0.0
        return self._speed_m_s * share, self._grip_speed * grip

    def _is_there(self) -> bool:
        """Whether the pad is. Tells when it has gone, and takes it again once it is back."""
        sdl = self._sdl
        if self._pad and not sdl.SDL_GameControllerGetAttached(self._pad):
            sdl.SDL_GameControllerClose(self._pad)
            self._pad = None
            self._others = [number for number, _ in pads(sdl)]
            self._tell(f"{self._name} is gone: the arm rests until it is plugged in or awake again")
        if self._pad:
            return True
        alike = [number for number, name in pads(sdl) if name == self._name and number not in self._others]
        if alike and self._opens(alike[0]):
            self._tell(f"{self._name} is back")
        return bool(self._pad)

    def _opens(self, number: int) -> bool:
        """Take the pad with SDL's `number`, if it opens. It moves nothing before its button was let go."""
        sdl = self._sdl
        # SDL opens by an index, which changes with every pad that comes or goes.
        devices = range(sdl.SDL_NumJoysticks())
        index = next((i for i in devices if sdl.SDL_JoystickGetDeviceInstanceID(i) == number), -1)
        self._pad = sdl.SDL_GameControllerOpen(index)
        self._was_let_go = self._told_silent = False
        self._said = ()
        return bool(self._pad)


def share_of(stick: ArrayLike) -> Vector:
    """The share of the speed that a stick's place (N,) asks for: 0 in the dead zone, and no longer than 1."""
    place = np.asarray(stick, dtype=np.float64)
    length = float(np.linalg.norm(place))
    share = min(max((length - DEAD_ZONE) / (FULL_FROM - DEAD_ZONE), 0.0), 1.0)
    return place * (share / max(length, DEAD_ZONE))


def chosen_pad(sdl: Any, chosen: str | None) -> tuple[int, str]:
    """The one of `pads` that is `chosen`, by its place there or part of its name. Raises ArmError."""
    sdl.SDL_GameControllerUpdate()
    there = pads(sdl)
    if not there and sdl.SDL_NumJoysticks():
        raise ArmError("SDL does not know this gamepad's buttons: describe them in SDL_GAMECONTROLLERCONFIG")
    if not there:
        raise ArmError(
            "no gamepad answers: plug it in or wake it; over ssh, `sudo usermod -aG input $USER` lets you "
            "read it from the next login on"
        )
    if chosen is None:
        return there[0]
    by_place = [pad for i, pad in enumerate(there) if chosen == str(i)]
    found = by_place or [pad for pad in there if chosen.lower() in pad[1].lower()]
    if not found:
        names = ", ".join(f"{i}: {name}" for i, (_, name) in enumerate(there))
        raise ArmError(f"there is no gamepad {chosen!r}; there are {names}")
    return found[0]


def has_dead_man(sdl: Any, pad: Any) -> bool:
    """Whether any part of `pad` is its left shoulder button by the layout that SDL knows."""
    bound = sdl.SDL_GameControllerGetBindForButton(pad, sdl.SDL_CONTROLLER_BUTTON_LEFTSHOULDER)
    return bool(bound.bindType != sdl.SDL_CONTROLLER_BINDTYPE_NONE)


def pads(sdl: Any) -> list[tuple[int, str]]:
    """SDL's number and the name of each pad that is there and whose layout it knows."""
    return [
        (
            sdl.SDL_JoystickGetDeviceInstanceID(i),
            (sdl.SDL_GameControllerNameForIndex(i) or b"gamepad").decode(),
        )
        for i in range(sdl.SDL_NumJoysticks())
        if sdl.SDL_IsGameController(i)
    ]


def begin_sdl() -> Any:
    """The module sdl2, ready for gamepads. Raises ArmError saying how to get it, or what it lacks."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of where its library comes from
            import sdl2
    except ModuleNotFoundError as error:
        raise ArmError("pysdl2 is not installed: run `pip install 'jepa-arm[gamepad]'`") from error
    except ImportError as error:
        raise ArmError(
            f"SDL cannot be loaded ({error}): run `sudo apt-get install -y libsdl2-2.0-0`"
        ) from error
    # Ctrl-C stays ours; and there is no window that could have the focus.
    for hint in (sdl2.SDL_HINT_NO_SIGNAL_HANDLERS, sdl2.SDL_HINT_JOYSTICK_ALLOW_BACKGROUND_EVENTS):
        sdl2.SDL_SetHintWithPriority(hint, b"1", sdl2.SDL_HINT_OVERRIDE)
    if sdl2.SDL_InitSubSystem(sdl2.SDL_INIT_GAMECONTROLLER) != 0:
        raise ArmError(f"SDL does not start: {sdl2.SDL_GetError().decode()}")
    # Events would only pile up: the state is what is read.
    sdl2.SDL_GameControllerEventState(sdl2.SDL_IGNORE)
    sdl2.SDL_JoystickEventState(sdl2.SDL_IGNORE)
    return sdl2
