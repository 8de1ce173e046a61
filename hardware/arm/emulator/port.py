"""An emulated bus on a pseudo-terminal: what a USB servo adapter looks like from the host.

with FakePort(FeetechBus(...)) as port:
    ...                       # open port.path as the arm's serial port
    port.inject("lost:3")
"""

from __future__ import annotations

import array
import fcntl
import os
import select
import threading
import time
import tty
from pathlib import Path
from types import TracebackType
from typing import Any

from hardware.arm.emulator.bus import EmulatedBus, Reply
from hardware.arm.emulator.faults import parse_fault
from hardware.arm.priority import come_first
from hardware.errors import ArmError

# Without traffic the servos are brought forward this often.
IDLE_S = 0.005
READ_SIZE = 4096
MOVING_TICKS_S = 13.0  # 0.02 rad/s
# struct termios2 of asm-generic: four flag words, line and control characters, then input and output speed.
TCGETS2 = 0x802C542A
TERMIOS2_WORDS, OUTPUT_SPEED_WORD = 11, 10


class FakePort:
    """Runs `bus` on a pty, on a thread of its own. The servos hear only a host that talks at their baud."""

    def __init__(self, bus: EmulatedBus[Any], link: Path | None = None) -> None:
        self._bus = bus
        self._link = link
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._started_at = time.monotonic()
        self._moved_s = 0.0
        self.path = ""

    def __enter__(self) -> FakePort:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Plug it in: a new pty, whose name is `path`; the link, if there is one, points to it."""
        self.close()
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        if self._link is not None:
            if self._link.is_symlink():
                self._link.unlink()
            elif self._link.exists():
                raise ArmError(f"{self._link} is there and no link: choose another --link")
            self._link.symlink_to(self.path)
        self._closing.clear()
        self._bus.cable_pulled = False
        self._thread = threading.Thread(target=self._serve, name="fake-port", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Unplug it."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._link is not None and self._link.is_symlink():
            self._link.unlink()

    @property
    def plugged(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def now_s(self) -> float:
        """The emulator's clock: seconds since it was made."""
        return time.monotonic() - self._started_at

    def inject(self, words: str) -> None:
        """Raises `ArmError` if `words` are no fault of this bus."""
        fault = parse_fault(words)
        if fault.servo_id and fault.servo_id not in self._bus.servos:
            raise ArmError(
                f"fault {words!r}: no servo {fault.servo_id}; there are {sorted(self._bus.servos)}"
            )
        with self._lock:
            self._bus.advance(self.now_s)
            self._bus.inject(fault)

    def clear(self) -> None:
        """End every fault; a cable that was pulled is plugged in again, at a new path."""
        with self._lock:
            self._bus.clear()
        if not self.plugged:
            self.open()

    def turn(self, servo_id: int, ticks: float) -> None:
        """Someone turns a limp shaft to `ticks` of its encoder. Raises `ArmError` if it has torque."""
        servo = self._observed().get(servo_id)
        if servo is None or servo.torque:
            raise ArmError(
                f"servo {servo_id} {'is not there' if servo is None else 'has torque: it does not give way'}"
            )
        with self._lock:
            servo.shaft.position = ticks

    def positions(self) -> dict[int, float]:
        """Where the shafts truly are, in ticks, whatever the servos report."""
        return {servo_id: servo.shaft.position for servo_id, servo in self._observed().items()}

    def velocities(self) -> dict[int, float]:
        """How fast the shafts truly turn, in ticks/s."""
        return {servo_id: servo.shaft.velocity for servo_id, servo in self._observed().items()}

    def moved(self) -> tuple[float, float]:
        """The emulator's clock now, and when some shaft last truly turned faster than 0.02 rad/s."""
        with self._lock:
            self._advance()
            return self.now_s, self._moved_s

    def torques(self) -> dict[int, bool]:
        return {servo_id: servo.torque for servo_id, servo in self._observed().items()}

    def _observed(self) -> dict[int, Any]:
        with self._lock:
            self._advance()
            return self._bus.servos

    def _advance(self) -> None:
        self._bus.advance(self.now_s)
        if any(abs(servo.shaft.velocity) > MOVING_TICKS_S for servo in self._bus.servos.values()):
            self._moved_s = self.now_s

    def _serve(self) -> None:
        come_first()  # as a servo has a processor of its own
        pending: list[Reply] = []
        while not self._bus.cable_pulled and not self._closing.is_set():
            wait_s = IDLE_S if not pending else min(max(pending[0].due_s - self.now_s, 0.0), IDLE_S)
            readable, _, _ = select.select([self._master], [], [], wait_s)
            with self._lock:
                if readable and self._hears():
                    pending += self._bus.receive(os.read(self._master, READ_SIZE), self.now_s)
                    pending.sort(key=lambda reply: reply.due_s)
                elif readable:
                    os.read(self._master, READ_SIZE)
                self._advance()
            while pending and pending[0].due_s <= self.now_s:
                os.write(self._master, pending.pop(0).data)
        os.close(self._slave)
        os.close(self._master)

    def _hears(self) -> bool:
        """Whether the host's baud is the servos'."""
        words = array.array("I", bytes(4 * TERMIOS2_WORDS))
        fcntl.ioctl(self._slave, TCGETS2, words)
        return words[OUTPUT_SPEED_WORD] == self._bus.baud
