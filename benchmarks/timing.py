"""Measuring steps in turns, a slice each, for several rounds.

Whatever else the machine does meanwhile falls on all of them alike. Compare only figures of one run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ROUNDS = 10
WARM_UP_CALLS = 3


def nothing() -> None:
    """The preparation that most cases need."""


@dataclass(frozen=True)
class Case:
    """A step that is measured: `run` is timed, `prepare` comes before each run and is not.

    Where it makes sense, `flops` are the floating-point operations of a run and `candidate_steps` how many
    steps of candidates it imagines and judges.
    """

    name: str
    what: str
    run: Callable[[], object]
    prepare: Callable[[], object] = nothing
    flops: int = 0
    candidate_steps: int = 0


@dataclass(frozen=True)
class Timing:
    """How long the calls of one case took, in milliseconds."""

    name: str
    what: str
    milliseconds: Sequence[float]
    flops: int = 0
    candidate_steps: int = 0

    def figures(self) -> dict[str, Any]:
        median, p99 = np.percentile(self.milliseconds, (50, 99))
        work: dict[str, Any] = {}
        if self.flops:
            work["gflop"] = round(self.flops * 1e-9, 4)
        if self.candidate_steps:
            work["candidate_steps_per_s"] = round(self.candidate_steps / (float(median) * 1e-3))
        return {
            "what": self.what,
            "median_ms": round(float(median), 4),
            "p99_ms": round(float(p99), 4),
            "calls": len(self.milliseconds),
            **work,
        }


def measure(cases: Sequence[Case], seconds: float) -> Iterator[list[Timing]]:
    """Run every case for `seconds`, in turns; yields what is known after each of `ROUNDS` rounds."""
    taken: list[list[float]] = [[] for _ in cases]
    for case in cases:
        for _ in range(WARM_UP_CALLS):
            time_call(case.prepare, case.run)
    for _ in range(ROUNDS):
        for case, milliseconds in zip(cases, taken):
            until = time.perf_counter() + seconds / ROUNDS
            milliseconds.append(time_call(case.prepare, case.run))
            while time.perf_counter() < until:
                milliseconds.append(time_call(case.prepare, case.run))
        yield [
            Timing(case.name, case.what, tuple(ms), case.flops, case.candidate_steps)
            for case, ms in zip(cases, taken)
        ]


def time_call(prepare: Callable[[], object], call: Callable[[], object]) -> float:
    """Milliseconds that `call` takes; `prepare` comes before it and is not counted."""
    prepare()
    started = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - started) * 1e-6


def with_progress(cases: Sequence[Case], seconds: float) -> list[Timing]:
    from rich.progress import track

    rounds = track(measure(cases, seconds), f"measuring {len(cases)} steps", total=ROUNDS)
    return list(rounds)[-1]
