"""Gamepads of SDL's own that are moved by a test instead of a hand."""

from __future__ import annotations

import ctypes

import pytest

sdl2 = pytest.importorskip("sdl2")

FULL = 32767
LEFT_X, LEFT_Y, RIGHT_X, RIGHT_Y, LEFT_TRIGGER, RIGHT_TRIGGER = range(6)
DEAD_MAN, OPENS = 9, 10
# SDL's virtual triggers rest at this end.
PULLED, RELEASED = FULL, -FULL - 1


class VirtualPad:
    """A gamepad of SDL's, in a hand. It lacks the button `without`, if one is named."""

    def __init__(self, name: str, without: int | None = None) -> None:
        described = sdl2.SDL_VirtualJoystickDesc()
        described.version, described.type = 1, sdl2.SDL_JOYSTICK_TYPE_GAMECONTROLLER
        described.naxes, described.nbuttons = 6, 15
        described.axis_mask, described.button_mask = 0x3F, 0x7FFF
        if without is not None:
            described.button_mask &= ~(1 << without)
        described.name = name.encode()
        index = sdl2.SDL_JoystickAttachVirtualEx(ctypes.byref(described))
        assert index >= 0, sdl2.SDL_GetError()
        self.number = sdl2.SDL_JoystickGetDeviceInstanceID(index)
        self._pad = sdl2.SDL_JoystickOpen(index)
        for trigger in (LEFT_TRIGGER, RIGHT_TRIGGER):
            self.move(trigger, RELEASED)

    def move(self, axis: int, to: int) -> None:
        assert sdl2.SDL_JoystickSetVirtualAxis(self._pad, axis, to) == 0

    def press(self, button: int, down: bool = True) -> None:
        assert sdl2.SDL_JoystickSetVirtualButton(self._pad, button, down) == 0

    def unplug(self) -> None:
        there = range(sdl2.SDL_NumJoysticks())
        index = next((i for i in there if sdl2.SDL_JoystickGetDeviceInstanceID(i) == self.number), None)
        if index is not None:
            assert sdl2.SDL_JoystickDetachVirtual(index) == 0
            sdl2.SDL_JoystickClose(self._pad)
