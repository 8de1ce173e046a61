"""Measuring steps in turns, a slice each, for several rounds.

Whatever else the machine does meanwhile falls on all of them alike. Compare only figures of one run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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
    """How long the calls of one case took, in milliseconds; `beside` busy neighbours too, if asked for."""

    name: str
    what: str
    milliseconds: Sequence[float]
    beside: Sequence[float] = ()
    flops: int = 0
    candidate_steps: int = 0

    def figures(self) -> dict[str, Any]:
        median, p99 = np.percentile(self.milliseconds, (50, 99))
        more: dict[str, Any] = {}
        if self.flops:
            more["gflop"] = round(self.flops * 1e-9, 4)
        if self.candidate_steps:
            more["candidate_steps_per_s"] = round(self.candidate_steps / (float(median) * 1e-3))
        if self.beside:
            busy_median, busy_p99 = np.percentile(self.beside, (50, 99))
            more["busy"] = {
                "median_ms": round(float(busy_median), 4),
                "p99_ms": round(float(busy_p99), 4),
                "calls": len(self.beside),
                "times_median": round(float(busy_median / median), 2),
                "times_p99": round(float(busy_p99 / p99), 2),
            }
        return {
            "what": self.what,
            "median_ms": round(float(median), 4),
            "p99_ms": round(float(p99), 4),
            "calls": len(self.milliseconds),
            **more,
        }


class Company(Protocol):
    """What can be told to keep other cores busy, or to leave them alone; each returns when it is so."""

    def work(self) -> None: ...

    def rest(self) -> None: ...


def measure(
    cases: Sequence[Case], seconds: float, neighbours: Company | None = None
) -> Iterator[list[Timing]]:
    """Run every case for `seconds`, in turns; yields what is known after each of `ROUNDS` rounds.

    With `neighbours`, each slice alone has one beside them, next to it in time.
    """
    alone: list[list[float]] = [[] for _ in cases]
    beside: list[list[float]] = [[] for _ in cases]
    for case in cases:
        for _ in range(WARM_UP_CALLS):
            time_call(case.prepare, case.run)
    for round_ in range(ROUNDS):
        for index, case in enumerate(cases):
            if neighbours is None:
                alone[index] += time_slice(case, seconds / ROUNDS)
                continue
            slices = [(neighbours.rest, alone), (neighbours.work, beside)]
            # Who comes second finds its data in the caches: by turns.
            for company, taken in reversed(slices) if (round_ + index) % 2 else slices:
                company()
                taken[index] += time_slice(case, seconds / ROUNDS)
        yield [
            Timing(case.name, case.what, tuple(ms), tuple(busy), case.flops, case.candidate_steps)
            for case, ms, busy in zip(cases, alone, beside, strict=True)
        ]


def time_slice(case: Case, seconds: float) -> list[float]:
    """Milliseconds of each call, until `seconds` have passed, one call at least."""
    until = time.perf_counter() + seconds
    milliseconds = [time_call(case.prepare, case.run)]
    while time.perf_counter() < until:
        milliseconds.append(time_call(case.prepare, case.run))
    return milliseconds


def time_call(prepare: Callable[[], object], call: Callable[[], object]) -> float:
    """Milliseconds that `call` takes; `prepare` comes before it and is not counted."""
    prepare()
    started = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - started) * 1e-6


def with_progress(cases: Sequence[Case], seconds: float, neighbours: Company | None = None) -> list[Timing]:
    from rich.progress import track

    how = "" if neighbours is None else ", alone and beside busy neighbours"
    rounds = measure(cases, seconds, neighbours)
    return list(track(rounds, f"measuring {len(cases)} steps{how}", total=ROUNDS))[-1]
