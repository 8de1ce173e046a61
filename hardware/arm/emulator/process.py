"""Emulated servos in a process of their own: real ones are not late because the host is busy.

with FakeArm(load_arm_config("so101-feetech")) as fake:
    arm = ServoArm(config, fake.path)
    fake.inject("lost:3")
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from hardware.arm.config import ArmConfig
from hardware.arm.emulator.make import emulated_bus
from hardware.arm.emulator.port import FakePort
from hardware.arm.priority import come_first
from hardware.errors import ArmError

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])
ANSWERS_WITHIN_S = 30.0


class FakeArm:
    """The servos of an arm file on a pty. Joints stand at `positions` (rad) at first, the others at 0."""

    def __init__(
        self, config: ArmConfig, positions: Mapping[str, float] | None = None, link: Path | None = None
    ) -> None:
        self._pipe, end = CONTEXT.Pipe()
        arguments = (end, config, dict(positions or {}), link)
        self._process = CONTEXT.Process(target=_run, args=arguments, daemon=True)
        self._process.start()
        end.close()
        self.path = str(self._result())

    def __enter__(self) -> FakeArm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unplug it, for good."""
        if self._process.is_alive():
            self._pipe.send(("close",))
            self._process.join()
        self._pipe.close()

    def inject(self, words: str) -> None:
        """Raises `ArmError` if `words` are no fault of this bus."""
        self._ask("inject", words)

    def clear(self) -> None:
        """End every fault; a cable that was pulled is plugged in again, at a new path."""
        self._ask("clear")
        self.path = str(self._ask("path"))

    def turn(self, servo_id: int, ticks: float) -> None:
        """Someone turns a limp shaft. Raises `ArmError` if it has torque."""
        self._ask("turn", servo_id, ticks)

    def positions(self) -> dict[int, float]:
        """Where the shafts truly are, in ticks, whatever the servos report."""
        return self._ask("positions")

    def velocities(self) -> dict[int, float]:
        """How fast the shafts truly turn, in ticks/s."""
        return self._ask("velocities")

    def moved(self) -> tuple[float, float]:
        """The emulator's clock now, and when some shaft last truly turned faster than 0.02 rad/s."""
        return self._ask("moved")

    def torques(self) -> dict[int, bool]:
        return self._ask("torques")

    def _ask(self, name: str, *arguments: Any) -> Any:
        self._pipe.send((name, *arguments))
        return self._result()

    def _result(self) -> Any:
        if not self._pipe.poll(ANSWERS_WITHIN_S):
            raise ArmError("the emulated arm does not answer")
        result = self._pipe.recv()
        if isinstance(result, ArmError):
            raise result
        return result


def _run(pipe: Connection, config: ArmConfig, positions: dict[str, float], link: Path | None) -> None:
    """The process: a port, and answers to what the other end asks of it."""
    come_first()  # as a servo has a processor of its own
    with FakePort(emulated_bus(config, positions), link) as port:
        pipe.send(port.path)
        while (request := _next(pipe))[0] != "close":
            found = getattr(port, request[0])
            try:
                pipe.send(found(*request[1:]) if callable(found) else found)
            except ArmError as error:
                pipe.send(error)


def _next(pipe: Connection) -> tuple[Any, ...]:
    try:
        return pipe.recv()
    except EOFError:  # whoever started it is gone
        return ("close",)
