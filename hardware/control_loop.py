"""A loop that keeps its time: a step so many times a second, on a thread of its own.

    loop = ControlLoop("gate", 100.0, step)
    loop.start()
    print(loop.timing())     # 100 Hz, late by 0.06 ms (median), 0.4 ms (p99), 1.2 ms at most; ...
    loop.stop()

Deadlines lie on a grid of the steady clock: a late step does not delay the ones after it, and steps that were
missed are counted, never made up for in a burst. The thread takes real-time priority where that is permitted,
and says once how to permit it where it is not; both work. Every step is told how late it is: what is too late
is for it to judge.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from hardware.arm.priority import HOW_TO_PERMIT, come_first

# What the figures are of.
WINDOW_S = 10.0
# Another thread gives the interpreter up after this long; CPython's own 5 ms are half a period.
SWITCH_INTERVAL_S = 0.0005
ANY_CORE = -1
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopTiming:
    """How well a loop kept its time in the last `WINDOW_S`: how late its steps began, in ms.

    `missed` of all `deadlines` since the start passed without a step that began before the next.
    """

    rate_hz: float
    deadlines: int
    missed: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    real_time: bool

    def __str__(self) -> str:
        priority = "real-time priority" if self.real_time else "no real-time priority"
        return (
            f"{self.rate_hz:g} Hz, late by {self.p50_ms:.2f} ms (median), {self.p99_ms:.2f} ms (p99), "
            f"{self.max_ms:.2f} ms at most; {self.missed} of {self.deadlines} deadlines missed; {priority}"
        )


@runtime_checkable
class Timed(Protocol):
    """What runs a loop, and tells how well it keeps its time; None before it has."""

    def timing(self) -> LoopTiming | None: ...


class ControlLoop:
    """Calls `step(late_s)` `rate_hz` times a second; `late_s` is how long after its deadline that is.

    `core` is the processor core to stay on, `ANY_CORE` for whichever is free. Raises `ValueError` if this
    process may not run there. A step that raises ends the loop: `check` raises the same again.
    """

    def __init__(
        self, name: str, rate_hz: float, step: Callable[[float], None], core: int = ANY_CORE
    ) -> None:
        cores = os.sched_getaffinity(0)
        if core != ANY_CORE and core not in cores:
            raise ValueError(f"core {core} is not there for the {name} loop; there are {sorted(cores)}")
        self._name, self._rate_hz, self._step, self._core = name, rate_hz, step, core
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._late_s: deque[float] = deque(maxlen=math.ceil(WINDOW_S * rate_hz))
        self._steps = self._missed = 0
        self._real_time = False

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin, and do nothing if it has. The first step comes one period later."""
        if self._thread is not None:
            return
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_S))
        self._ending.clear()
        self._thread = threading.Thread(target=self._run, name=f"{self._name}-loop", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Return when the last step is over; it must not be this loop's own thread that asks."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def check(self) -> None:
        """Raise what a step raised, if one did."""
        if self._failure is not None:
            raise self._failure

    def timing(self) -> LoopTiming | None:
        late_s = list(self._late_s)
        if not late_s:
            return None
        p50_ms, p99_ms, max_ms = (1e3 * float(value) for value in np.percentile(late_s, [50, 99, 100]))
        deadlines = self._steps + self._missed
        return LoopTiming(self._rate_hz, deadlines, self._missed, p50_ms, p99_ms, max_ms, self._real_time)

    def _run(self) -> None:
        self._real_time = come_first()
        if not self._real_time:
            LOG.warning("no real-time priority for the %s loop: %s", self._name, HOW_TO_PERMIT)
        if self._core != ANY_CORE:
            os.sched_setaffinity(0, {self._core})
        try:
            self._keep_time()
        except BaseException as error:
            LOG.exception("in the %s loop, which ends", self._name)
            self._failure = error

    def _keep_time(self) -> None:
        period_s = 1.0 / self._rate_hz
        due_s = time.monotonic() + period_s
        while not self._ending.is_set():
            time.sleep(max(due_s - time.monotonic(), 0.0))
            late_s = max(time.monotonic() - due_s, 0.0)
            missed = int(late_s / period_s)
            self._late_s.append(late_s)
            self._steps += 1
            self._missed += missed
            self._step(late_s)
            due_s += (missed + 1) * period_s
