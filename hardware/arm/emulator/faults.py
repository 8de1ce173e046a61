"""What can go wrong on a servo bus, as words: `KIND[:ID][=VALUE][@START][+DURATION]`.

    checksum:3=2@1.5    1.5 s from now two replies of servo 3 carry a wrong checksum
    silent:2+0.5        servo 2 answers nothing for half a second
    cable@4             4 s from now the USB cable is pulled

Times are seconds on the emulator's own clock, so the same words bring the same fault at the same point.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from hardware.errors import ArmError


@dataclass(frozen=True)
class Kind:
    """A kind of fault: whether it concerns one servo, and what its value means."""

    summary: str
    default: float = 0.0
    of_servo: bool = True
    per_reply: bool = False  # the value counts the replies that it spoils


KINDS: dict[str, Kind] = {
    "lost": Kind("unplugged: no answer, no torque, until cleared"),
    "silent": Kind("answers nothing, but goes on moving"),
    "checksum": Kind("VALUE replies with a wrong checksum or CRC", 1, per_reply=True),
    "wrong_id": Kind("VALUE replies that carry another servo's id", 1, per_reply=True),
    "truncated": Kind("VALUE replies cut in the middle", 1, per_reply=True),
    "garbage": Kind("noise before VALUE replies", 1, per_reply=True),
    "glitch": Kind("one reply with the position 700 ticks off and a good checksum", 1, per_reply=True),
    "noise": Kind("every position VALUE ticks off, to one side and the other", 700),
    "slow": Kind("every reply VALUE ms late", 30),
    "reset": Kind("brown-out: torque off, what is not saved back at its default"),
    "overload": Kind("more torque than it may give for too long: status error, torque off"),
    "overcurrent": Kind("draws VALUE mA", 2500),
    "temperature": Kind("heats up to VALUE °C", 80),
    "voltage": Kind("supplied with VALUE V", 4.5),
    "stuck": Kind("the joint is blocked"),
    "jump": Kind("the measured position jumps by VALUE ticks, and stays there", 400),
    "cable": Kind("the USB cable is pulled", of_servo=False),
}
FORMAT = re.compile(
    r"(?P<kind>[a-z_]+)(:(?P<id>\d+))?(=(?P<value>-?\d+(\.\d+)?))?(@(?P<start>\d+(\.\d+)?))?(\+(?P<duration>\d+(\.\d+)?))?"
)


@dataclass(frozen=True)
class Fault:
    """One fault. `start_s` counts from when it is injected; a `duration_s` of infinity ends with a clear."""

    kind: str
    servo_id: int = 0
    value: float = 0.0
    start_s: float = 0.0
    duration_s: float = math.inf


def parse_fault(text: str) -> Fault:
    """The fault that `text` describes. Raises `ArmError` naming what is wrong with it."""
    found = FORMAT.fullmatch(text.strip())
    if found is None:
        raise ArmError(f"fault {text!r}: write it as KIND[:ID][=VALUE][@START][+DURATION], as in lost:3@1.5")
    kind = KINDS.get(found["kind"])
    if kind is None:
        raise ArmError(f"fault {text!r}: no such kind; there are {', '.join(KINDS)}")
    if kind.of_servo != (found["id"] is not None):
        needs = "name the servo, as in" if kind.of_servo else "it concerns no single servo; write"
        raise ArmError(f"fault {text!r}: {needs} {found['kind']}{':3' if kind.of_servo else ''}")
    return Fault(
        found["kind"],
        int(found["id"] or 0),
        float(found["value"]) if found["value"] else kind.default,
        float(found["start"] or 0.0),
        float(found["duration"]) if found["duration"] else math.inf,
    )


class ActiveFaults:
    """The faults that were injected, on the emulator's clock."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def inject(self, fault: Fault, now_s: float) -> None:
        self._faults.append(replace(fault, start_s=now_s + fault.start_s))

    def clear(self) -> None:
        self._faults.clear()

    def find(self, kind: str, servo_id: int, now_s: float) -> Fault | None:
        """The fault of this kind that is in force at the servo now."""
        for fault in self._faults:
            if (fault.kind, fault.servo_id) == (kind, servo_id):
                if fault.start_s <= now_s < fault.start_s + fault.duration_s:
                    return fault
        return None

    def take(self, kind: str, servo_id: int, now_s: float) -> Fault | None:
        """The same, for a fault that happens once: it is gone afterwards."""
        fault = self.find(kind, servo_id, now_s)
        if fault is not None:
            self._faults.remove(fault)
        return fault

    def spend(self, kind: str, servo_id: int, now_s: float) -> bool:
        """Whether a fault that counts replies spoils this one."""
        fault = self.take(kind, servo_id, now_s)
        if fault is not None and fault.value > 1:
            self._faults.append(replace(fault, value=fault.value - 1))
        return fault is not None
