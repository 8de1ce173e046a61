"""An emulated bus: bytes in, replies out, and servos that move meanwhile. Time is what the caller says it is.

What is common to both protocols is here; `feetech.py` and `dynamixel.py` know packets and register maps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from hardware.arm.emulator.faults import ActiveFaults, Fault
from hardware.arm.emulator.shaft import Shaft

TICKS_PER_TURN = 4096
BITS_PER_BYTE = 10  # 8N1
ROOM_TEMPERATURE_C = 30
IDLE_CURRENT_MA = 60
GLITCH_TICKS = 700
NOISE = bytes.fromhex("00ff13fffe550aff")


@dataclass(frozen=True)
class Conditions:
    """What faults do to one servo now."""

    stuck: bool = False
    overload: bool = False
    current_ma: float | None = None
    temperature_c: float | None = None
    voltage_v: float | None = None


@dataclass(frozen=True)
class Reply:
    """What one servo sends, and when: `due_s` on the caller's clock."""

    due_s: float
    data: bytes


class EmulatedServo(ABC):
    """One servo: registers as bytes, and a shaft."""

    position_register: tuple[int, int]  # address and size of the measured position

    def __init__(self, servo_id: int, position: int) -> None:
        self.shaft = Shaft(float(position))
        self.saved = self.factory_settings(servo_id)
        self.registers = bytearray(self.saved)
        self.watchdog_s = 0.0  # since the last instruction packet
        self.power_up()

    @abstractmethod
    def factory_settings(self, servo_id: int) -> bytearray: ...

    @abstractmethod
    def power_up(self) -> None:
        """Registers as after switching on: what is saved, and defaults; no torque."""

    @abstractmethod
    def advance(self, elapsed_s: float, conditions: Conditions) -> None:
        """Let time pass, then measure."""

    @property
    @abstractmethod
    def servo_id(self) -> int: ...

    @property
    @abstractmethod
    def torque(self) -> bool: ...

    @property
    @abstractmethod
    def reply_delay_s(self) -> float: ...

    def get(self, address: int, size: int) -> int:
        return int.from_bytes(self.registers[address : address + size], "little")

    def put(self, address: int, size: int, value: int) -> None:
        self.registers[address : address + size] = (value % (1 << 8 * size)).to_bytes(size, "little")


Servo = TypeVar("Servo", bound=EmulatedServo)


class EmulatedBus(ABC, Generic[Servo]):
    """Servos on one wire."""

    def __init__(self, servos: Iterable[Servo], baud: int) -> None:
        self.servos = {servo.servo_id: servo for servo in servos}
        self.baud = baud
        self.faults = ActiveFaults()
        self.cable_pulled = False
        self._now_s = 0.0
        self._received = b""
        self._noisy = False

    def inject(self, fault: Fault) -> None:
        self.faults.inject(fault, self._now_s)

    def clear(self) -> None:
        self.faults.clear()
        self.cable_pulled = False

    def advance(self, now_s: float) -> None:
        """Bring the servos to `now_s`."""
        elapsed_s, self._now_s = max(now_s - self._now_s, 0.0), max(now_s, self._now_s)
        if self.faults.take("cable", 0, now_s):
            self.cable_pulled = True
        for servo in self.servos.values():
            self._happen(servo)
            servo.advance(elapsed_s, self._conditions(servo.servo_id))

    def receive(self, data: bytes, now_s: float) -> list[Reply]:
        """Take what arrives on the wire at `now_s`; the replies to it, in the order they are sent."""
        self.advance(now_s)
        replies: list[Reply] = []
        due_s = now_s
        self._received += data
        while (packet := self._next_packet()) is not None:
            for servo in self.servos.values():
                servo.watchdog_s = 0.0
            for servo, reply in self._execute(packet):
                due_s += servo.reply_delay_s + len(reply) * BITS_PER_BYTE / self.baud
                sent = self._spoiled(servo, reply)
                if late := self.faults.find("slow", servo.servo_id, now_s):
                    due_s += late.value * 1e-3
                if sent:
                    replies.append(Reply(due_s, sent))
        return replies

    # What the protocols add

    @abstractmethod
    def _next_packet(self) -> bytes | None:
        """The next whole packet of what was received; it is taken away from there."""

    @abstractmethod
    def _execute(self, packet: bytes) -> list[tuple[Servo, bytes]]:
        """Do what an instruction packet says; who answers what."""

    @abstractmethod
    def _with_id(self, reply: bytes, servo_id: int) -> bytes:
        """The same reply, as if it came from another servo: its checksum is right."""

    # Faults

    def _happen(self, servo: Servo) -> None:
        """Faults that happen once, at their time."""
        now_s, servo_id = self._now_s, servo.servo_id
        if jump := self.faults.take("jump", servo_id, now_s):
            servo.shaft.position += jump.value
        if self.faults.take("reset", servo_id, now_s) or self.faults.find("lost", servo_id, now_s):
            servo.power_up()

    def _conditions(self, servo_id: int) -> Conditions:
        def value(kind: str) -> float | None:
            fault = self.faults.find(kind, servo_id, self._now_s)
            return None if fault is None else fault.value

        return Conditions(
            stuck=self.faults.find("stuck", servo_id, self._now_s) is not None,
            overload=self.faults.find("overload", servo_id, self._now_s) is not None,
            current_ma=value("overcurrent"),
            temperature_c=value("temperature"),
            voltage_v=value("voltage"),
        )

    def _spoiled(self, servo: Servo, reply: bytes) -> bytes:
        """The reply after what happens to it on the wire; nothing where it does not come."""
        now_s, servo_id = self._now_s, servo.servo_id
        if self.faults.find("silent", servo_id, now_s):
            return b""
        if self.faults.spend("checksum", servo_id, now_s):
            return reply[:-1] + bytes([reply[-1] ^ 0x5A])
        if self.faults.spend("truncated", servo_id, now_s):
            return reply[: len(reply) // 2]
        if self.faults.spend("wrong_id", servo_id, now_s):
            return self._with_id(reply, servo_id % 200 + 50)
        if self.faults.spend("garbage", servo_id, now_s):
            return NOISE + reply
        return reply

    def _read(self, servo: Servo, address: int, size: int) -> bytes:
        """These registers as the servo reports them."""
        registers = bytearray(servo.registers)
        at, length = servo.position_register
        wrong = 0
        if address <= at < address + size:
            if self.faults.spend("glitch", servo.servo_id, self._now_s):
                wrong = GLITCH_TICKS
            if noise := self.faults.find("noise", servo.servo_id, self._now_s):
                self._noisy = not self._noisy
                wrong = round(noise.value) if self._noisy else -round(noise.value)
        if wrong:
            registers[at : at + length] = (servo.get(at, length) + wrong).to_bytes(length, "little")
        return bytes(registers[address : address + size])

    def _answering(self, servo_id: int) -> Servo | None:
        """The servo of this id, if it has power."""
        if self.faults.find("lost", servo_id, self._now_s):
            return None
        return self.servos.get(servo_id)
