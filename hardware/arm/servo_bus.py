"""A servo bus as the arm sees it: readings in, goals out, in ticks. One class for each protocol.

The packets are rustypot's (Pollen Robotics, Apache-2.0), looked at beside its alternatives in October 2026:

- rustypot 1.13.1: both protocols, sync read with each servo's status byte, an error names its servo, a time
  limit of one's own on every answer, waits without the GIL; wheels for CPython 3.10 to 3.15 on x86-64, arm64
  and armv7; released every other week.
- dynamixel-sdk 4.1.0 and ftservo-python-sdk 2.0.1, the makers' own: pure Python, one protocol each; they poll
  the port in a loop that takes a whole core, 34 and 50 ms for a servo that is gone, longer than the other
  servos can be left alone; the Feetech one does not say which servo failed.
- feetech-servo-sdk 1.0.0: 2022, no sync read of ours; scservo-sdk is not on PyPI.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hardware.errors import ArmError

# The longest a servo may think before its answer: a USB adapter's latency, and twice what is usual on top.
REPLY_TIMEOUT_S = 0.015
ATTEMPTS = 5
ERROR_SERVO = re.compile(r"motor (\d+): (.*)")


class BusError(ArmError):
    """A transaction failed; `servo_id` is the servo at which it did, 0 where none is known."""

    def __init__(self, text: str, servo_id: int = 0) -> None:
        super().__init__(text)
        self.servo_id = servo_id


class PortGone(ArmError):
    """The serial port does not exist any more: the cable was pulled."""


@dataclass(frozen=True)
class Reading:
    """What one servo reports. `current_ma` is NaN for a model that does not measure it.

    `alarms` are the servo's own errors: "overload", "overheated", "overcurrent", "voltage", "encoder" and
    "electrical shock".
    """

    ticks: int
    ticks_s: float
    current_ma: float
    voltage_v: float
    temperature_c: float
    torque: bool
    alarms: tuple[str, ...]


@dataclass(frozen=True)
class Goal:
    """Where a servo is to go, in ticks, and how fast at most, in ticks/s and ticks/s²."""

    ticks: int
    ticks_s: float
    ticks_s2: float


class ServoBus(ABC):
    """Servos on one serial port. Every call raises `BusError` or `PortGone` when it fails."""

    def __init__(self, models: Mapping[int, str]) -> None:
        self.models = dict(models)  # servo id → model name
        self._controller: Any = None
        self._quiet_at_s = 0.0

    @staticmethod
    @abstractmethod
    def controller_class() -> Any:
        """rustypot's class for this protocol."""

    @abstractmethod
    def read(self, ids: Sequence[int]) -> dict[int, Reading]: ...

    @abstractmethod
    def write_goals(self, goals: Mapping[int, Goal]) -> None:
        """Nobody acknowledges it: look at the next reading."""

    @abstractmethod
    def set_watchdog(self, ids: Sequence[int], timeout_s: float) -> None:
        """Let the servos stop themselves after so long without packets, where they can; 0 switches it off."""

    @staticmethod
    @abstractmethod
    def model_numbers() -> dict[str, int]:
        """Name → number of every model that this bus knows."""

    @abstractmethod
    def prepare(self, servo_id: int) -> None:
        """Check and set what the arm needs before torque. Raises `ArmError` saying what is set wrongly."""

    @abstractmethod
    def centre_here(self, servo_id: int) -> None:
        """Make where the shaft is the middle of its ticks, if the servo can store that. Needs torque off."""

    @abstractmethod
    def write_range(self, servo_id: int, lower_ticks: int, upper_ticks: int) -> None:
        """Store the limits in the servo itself, which then refuses goals beyond them. Needs torque off."""

    def open(self, port: str, baud: int) -> None:
        try:
            self._controller = self.controller_class()(port, baud, REPLY_TIMEOUT_S)
        except (OSError, RuntimeError) as error:
            raise PortGone(
                f"{port} does not open ({error}): plug the adapter in, look for its name under "
                "/dev/serial/by-id, and see that you may use it (group dialout)"
            ) from error

    def close(self) -> None:
        if self._controller is not None:
            self._controller.close()
            self._controller = None

    def ping(self, servo_id: int) -> bool:
        return bool(self._call("ping", servo_id))

    def scan(self) -> dict[int, int]:
        """Every servo that answers a broadcast, as id → model number; takes about a second."""
        return dict(self._call("broadcast_scan"))

    def model_of(self, servo_id: int) -> int:
        """The model number that the servo reports."""
        return self._register(servo_id, "model_number")

    def torque_on(self, ids: Iterable[int]) -> None:
        for servo_id in ids:
            self._call("write_register_with_error", servo_id, "torque_enable", 1)

    def torque_off(self, ids: Sequence[int]) -> None:
        """To all at once, so that one that is gone keeps it from none; nobody acknowledges it."""
        self._call("sync_write_register", list(ids), "torque_enable", [0] * len(ids))

    def set_baud(self, baud: int) -> None:
        """Talk at another baud; the servos keep theirs."""
        self._call("set_baudrate", baud)

    def _register(self, servo_id: int, name: str) -> int:
        """A register of one servo, once two answers in a row agree.

        Neither protocol numbers its packets: a single answer could be the late one to an earlier question.
        """
        before: int | None = None
        for attempt in range(ATTEMPTS):
            try:
                value = int(self._call("read_register_with_error", servo_id, name)[0])
            except BusError:
                if attempt == ATTEMPTS - 1:
                    raise
                continue
            if value == before:
                return value
            before = value
        raise BusError(f"motor {servo_id}: its answers for {name} differ", servo_id)

    def _block(self, ids: Sequence[int], address: int, size: int) -> dict[int, tuple[bytes, int]]:
        """These registers of every servo in one sync read, and each one's status byte."""
        answers = self._call("sync_read_raw_data_with_error", list(ids), address, size)
        return {servo_id: (bytes(data), status) for servo_id, (data, status) in zip(ids, answers)}

    def _call(self, method: str, *arguments: Any) -> Any:
        if self._controller is None:
            raise BusError("the bus is not open")
        # What still comes of a transaction that failed must not be taken for the answer to this one.
        time.sleep(max(self._quiet_at_s - time.monotonic(), 0.0))
        try:
            return getattr(self._controller, method)(*arguments)
        except RuntimeError as error:
            text = str(error)
            if "I/O error" in text or "Broken pipe" in text:
                raise PortGone(f"the serial port is gone ({text})") from error
            self._quiet_at_s = time.monotonic() + REPLY_TIMEOUT_S
            found = ERROR_SERVO.match(text)
            raise BusError(text, int(found[1]) if found else 0) from error


def word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")


def make_bus(name: str, models: Mapping[int, str]) -> ServoBus:
    """The bus of an arm file's `bus`; `models` maps servo ids to model names."""
    from hardware.arm.dynamixel import DynamixelBus
    from hardware.arm.feetech import FeetechBus

    return {"feetech": FeetechBus, "dynamixel": DynamixelBus}[name](models)
