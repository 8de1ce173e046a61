"""Planning within a time budget: how long imagining takes here, and how much of it is affordable."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from planner.optimisers.contract import Effort

Clock = Callable[[], float]

# Of what is affordable by the average, how much is planned for: imagining does not always take the average.
SHARE_PLANNED = 0.8
# Fewer candidates than this make no distribution, fewer steps no future.
LEAST_SAMPLES = 8
LEAST_HORIZON = 2


class Pace:
    """How long imagining N candidates for H steps takes: H · (fixed + each · N) seconds, learned on the go.

    Least squares over what was seen, the older the less it counts. Before anything was, nothing is expected
    to take any time. Of candidates in numbers that were not seen yet, time is taken to be proportional to
    their number.
    """

    FORGETTING = 0.9

    def __init__(self) -> None:
        self._weight = self._n = self._nn = self._y = self._ny = 0.0

    def learn(self, candidates: int, steps: int, seconds: float) -> None:
        n, y, old = candidates, seconds / steps, self.FORGETTING
        self._weight = old * self._weight + 1.0
        self._n, self._nn = old * self._n + n, old * self._nn + n * n
        self._y, self._ny = old * self._y + y, old * self._ny + n * y

    def expect(self, candidates: int, steps: int) -> float:
        if not self._weight:
            return 0.0
        n, y = self._n / self._weight, self._y / self._weight
        spread = self._nn / self._weight - n * n
        slope = (self._ny / self._weight - n * y) / spread if spread > 1e-3 else y / n
        each = min(max(slope, 0.0), y / n)
        return steps * (y + each * (candidates - n))


@dataclass(frozen=True)
class Allowance:
    """What one plan may take: H steps ahead, and an optimiser's effort."""

    horizon: int
    effort: Effort

    def shortfall(self, full: Allowance, done: int) -> str:
        """In words, what was dropped of `full` when `done` iterations were run; "" if nothing was."""
        dropped = []
        if done < full.effort.iterations:
            missing = full.effort.iterations - done
            dropped.append(f"{missing} of {full.effort.iterations} iterations")
        if done and self.effort.samples < full.effort.samples:
            missing = full.effort.samples - self.effort.samples
            dropped.append(f"{missing} of {full.effort.samples} samples")
        if self.horizon < full.horizon:
            dropped.append(f"{full.horizon - self.horizon} of {full.horizon} steps ahead")
        return ", ".join(dropped)


class Budget:
    """The time for one plan, `seconds` or without limit, and what it is spent on.

    `start` it with each plan. `afford` cuts down what is too much: iterations first, then samples, then the
    horizon. What could not be foreseen, `time_for` stops: no iteration begins after the time is up.
    """

    def __init__(self, seconds: float | None = None, clock: Clock = time.perf_counter) -> None:
        self.clock = clock
        self.seeding, self.refining = Pace(), Pace()
        self._seconds = float("inf") if seconds is None else seconds
        self._started = clock()

    def start(self) -> None:
        self._started = self.clock()

    @property
    def limited(self) -> bool:
        return self._seconds < float("inf")

    @property
    def elapsed_s(self) -> float:
        return self.clock() - self._started

    def time_for(self, candidates: int, horizon: int) -> bool:
        """Whether there is time to refine with one more iteration."""
        left = self._seconds - self.elapsed_s
        return left > 0 and self.refining.expect(candidates, horizon) <= left

    def afford(self, full: Allowance, seeds: int) -> Allowance:
        """What there is time for, if first `seeds` futures are imagined over the whole horizon."""
        planned = SHARE_PLANNED * self._seconds - self.elapsed_s

        def fits(horizon: int, samples: int, iterations: int) -> bool:
            refining = iterations * self.refining.expect(samples, horizon) if iterations else 0.0
            seeding = self.seeding.expect(seeds, horizon) if seeds else 0.0
            return seeding + refining <= planned

        horizon, samples, iterations = full.horizon, full.effort.samples, full.effort.iterations
        while iterations > 1 and not fits(horizon, samples, iterations):
            iterations -= 1
        while iterations and samples > LEAST_SAMPLES and not fits(horizon, samples, iterations):
            samples = max(LEAST_SAMPLES, samples * 3 // 4)
        while horizon > LEAST_HORIZON and not fits(horizon, samples, iterations):
            horizon -= 1
        if seeds and iterations and not fits(horizon, samples, iterations):
            horizon, iterations = full.horizon, 0
            while horizon > LEAST_HORIZON and not fits(horizon, samples, iterations):
                horizon -= 1
        return replace(full, horizon=horizon, effort=Effort(samples, iterations))
