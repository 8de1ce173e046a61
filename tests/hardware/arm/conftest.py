"""Arms on emulated servos: the real driver, the real packets, a pty between them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from hardware.arm.config import ArmConfig, arm_file, load_arm_config
from hardware.arm.contract import JointCommand
from hardware.arm.emulator.process import FakeArm
from hardware.arm.priority import come_first
from hardware.arm.servo_arm import ServoArm
from hardware.errors import ArmError

BUSES = ("feetech", "dynamixel")
PERIOD_S = 0.01
ANSWERS_WITHIN_S = 10.0


@dataclass
class Desk:
    """An arm, its emulated servos, and someone who commands it at 100 Hz on a thread."""

    config: ArmConfig
    port: FakeArm
    arm: ServoArm
    refusals: list[str] = field(default_factory=list)
    _hand: threading.Thread | None = None
    _resting: threading.Event = field(default_factory=threading.Event)

    def command(self, positions: np.ndarray, duration_s: float = PERIOD_S) -> JointCommand:
        names = self.config.joint_names
        return self.arm.command(JointCommand(names, positions, np.zeros(len(names)), duration_s, 0))

    def drive_to(self, positions: np.ndarray) -> JointCommand:
        """Command it at 100 Hz until the joints truly are there; the last of what was sent."""
        sent: list[JointCommand] = []

        def there() -> bool:
            time.sleep(PERIOD_S)
            sent[:] = [self.command(positions)]
            return bool(np.abs(self.positions() - sent[0].positions).max() < 1e-6)

        self.wait(there, "the joints are there")
        return sent[0]

    def start_moving(self, speed: float = 1.0) -> None:
        """Turn all joints to and fro at `speed` rad/s, from now on; what is refused goes to `refusals`."""
        self._resting.clear()
        start = self.positions()

        def move() -> None:
            come_first()
            began_s = time.monotonic()
            while not self._resting.wait(PERIOD_S):
                phase = (time.monotonic() - began_s) * speed
                swing = 0.5 - abs(phase % 2.0 - 1.0) + 0.5  # 0 → 1 → 0, a triangle
                try:
                    self.command(start + swing)
                except ArmError as error:
                    self.refusals.append(str(error))

        self._hand = threading.Thread(target=move, daemon=True)
        self._hand.start()
        self.wait(lambda: self.speed() > 0.5 * speed, "the arm moves")

    def stop_moving(self) -> None:
        self._resting.set()
        if self._hand is not None:
            self._hand.join()

    def positions(self) -> np.ndarray:
        """Where the joints truly are, rad."""
        ticks = self.port.positions()
        return np.array([servo.position(ticks[servo.id]) for servo in self.config.servos])

    def velocities(self) -> np.ndarray:
        ticks_s = self.port.velocities()
        return np.array([ticks_s[servo.id] / servo.ticks_per_rad for servo in self.config.servos])

    def speed(self) -> float:
        return float(np.abs(self.velocities()).max())

    def seconds_until_rest(self, at_most_s: float = 2.0) -> float:
        """From now until every joint truly rests, and stays so for 0.1 s; on the emulator's clock."""
        began_s, moved_s = self.port.moved()
        now_s = began_s
        while now_s - moved_s < 0.1:
            time.sleep(0.01)
            now_s, moved_s = self.port.moved()
            assert moved_s - began_s < at_most_s, f"the arm still moves, at {self.speed():.2f} rad/s"
        return max(moved_s - began_s, 0.0)

    def wait(self, done: Callable[[], object], what: str) -> None:
        """Until `done()`; an arm that has nothing to say at the moment is asked again."""
        deadline_s = time.monotonic() + ANSWERS_WITHIN_S
        while not self._true(done):
            assert time.monotonic() < deadline_s, (
                f"not within {ANSWERS_WITHIN_S} s: {what} ({self.arm.fault})"
            )
            time.sleep(0.002)

    def _true(self, done: Callable[[], object]) -> bool:
        try:
            return bool(done())
        except ArmError:
            return False

    def wait_for_fault(self) -> str:
        self.wait(lambda: self.arm.fault, "a fault")
        return str(self.arm.fault)

    def count(self, name: str) -> int:
        return int(self.arm.diagnostics()[name])


@pytest.fixture
def make_desk() -> Iterator[Callable[..., Desk]]:
    """Makes a connected arm on emulated servos; keywords change its arm file."""
    made: list[Desk] = []
    come_first()  # what is timed here is the driver, not how busy the machine is

    def make(bus: str, connect: bool = True, **changes: object) -> Desk:
        content = load_arm_config(arm_file("", bus)).model_dump() | changes
        config = ArmConfig.model_validate(content)
        port = FakeArm(config)
        desk = Desk(config, port, ServoArm(config, port.path))
        made.append(desk)
        if connect:
            desk.arm.connect()
        return desk

    yield make
    for desk in made:
        desk.stop_moving()
        desk.arm.disconnect()
        desk.port.close()
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture(params=BUSES)
def desk(request: pytest.FixtureRequest, make_desk: Callable[..., Desk]) -> Desk:
    return make_desk(request.param)
