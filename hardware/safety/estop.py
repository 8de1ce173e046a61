"""Emergency stops: buttons, light curtains, enabling switches, wired to whatever a machine has.

    class Button:
        def pressed(self) -> bool:
            return self.line.get_value() == 0      # normally closed: a broken wire reads as pressed

    gate = SafetyGate(robot, kinematics, e_stops=[Button()])

The gate asks each one at every tick, so `pressed` answers at once and never waits. Whatever is not a plain
False stops the arm: True, None, an exception. A released button changes nothing until the gate is reset, and
a pressed one refuses the reset. This is a software stop: it is no replacement for the one that cuts the
power.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from hardware.errors import ContractError


@runtime_checkable
class EStop(Protocol):
    """An input that stops the arm for as long as it is pressed."""

    def pressed(self) -> bool: ...


class EStops:
    """All emergency stops of a gate: those that are asked, and the one that is told (a topic, a key)."""

    def __init__(self, asked: Iterable[EStop]) -> None:
        self._asked = tuple(asked)
        for e_stop in self._asked:
            if not isinstance(e_stop, EStop):
                raise ContractError(f"{type(e_stop).__name__} is no emergency stop: it has no pressed()")
        self._told = False

    def tell(self, pressed: object) -> None:
        self._told = pressed is not False

    def pressed(self) -> str:
        """The name of one that is pressed, or nothing."""
        if self._told:
            return "emergency stop"
        return next((type(e_stop).__name__ for e_stop in self._asked if _is_pressed(e_stop)), "")


def _is_pressed(e_stop: EStop) -> bool:
    try:
        return e_stop.pressed() is not False
    except Exception:  # whatever it is, nobody knows any more that the button is not pressed
        return True
