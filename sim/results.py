"""What an episode came to, and what many of them say: held success, Wilson intervals, quantiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TOLERANCE_M = 0.03
HOLD_S = 1.0


class HeldSuccess:
    """Follows the distance to the goal: was it ever within tolerance, and was it held there?"""

    def __init__(self, tolerance_m: float = TOLERANCE_M, hold_s: float = HOLD_S) -> None:
        self.tolerance_m = tolerance_m
        self.hold_s = hold_s
        self.reached = False
        self.held = False
        self._inside_since_s: float | None = None

    def update(self, distance_m: float, time_s: float) -> None:
        """Take the distance at `time_s`; times must not go back."""
        if not distance_m <= self.tolerance_m:
            self._inside_since_s = None
            return
        self.reached = True
        if self._inside_since_s is None:
            self._inside_since_s = time_s
        # Half a millisecond forgives rounding of simulated time, not a missed step.
        self.held = self.held or time_s - self._inside_since_s >= self.hold_s - 5e-4


@dataclass
class EpisodeResult:
    """One episode: distances in metres (one a control step), plan times in milliseconds.

    `cautions` is what was in force at the safety gate in each step: 0 calm, 1 slow, 2 hold, 3 stopped; then
    `stopped_for` is the gate's reason. `achieved` is where the object, or the tool, was after each step, (4,)
    as in `sim.tasks.Task.achieved`.
    """

    seed: int
    start_distance_m: float
    budget_steps: int
    success: bool = False
    held: bool = False
    distances_m: list[float] = field(default_factory=list)
    achieved: list[list[float]] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    plan_ms: list[float] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    surprises: list[float] = field(default_factory=list)
    cautions: list[int] = field(default_factory=list)
    stopped_for: str = ""
    anomaly_step: int | None = None

    @property
    def final_distance_m(self) -> float:
        return self.distances_m[-1] if self.distances_m else self.start_distance_m


def wilson_interval(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a rate (Wilson 1927), 95 % by default. Raises ValueError on no trials."""
    if trials <= 0 or not 0 <= successes <= trials:
        raise ValueError(f"no interval for {successes} successes in {trials} trials")
    rate = successes / trials
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    spread = z * np.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials**2)) / (1 + z * z / trials)
    low = 0.0 if successes == 0 else max(0.0, float(centre - spread))
    high = 1.0 if successes == trials else min(1.0, float(centre + spread))
    return low, high


def summarise(results: Sequence[EpisodeResult]) -> dict[str, Any]:
    """Rates with intervals, final distances in cm (also within 2 and 5 cm), plan times in ms."""
    count = len(results)
    reached = sum(result.success for result in results)
    held = sum(result.held for result in results)
    final_cm = np.array([result.final_distance_m for result in results]) * 100
    plan_ms = np.concatenate([result.plan_ms for result in results]) if count else np.zeros(0)
    low, high = wilson_interval(reached, count)
    held_low, held_high = wilson_interval(held, count)
    return {
        "episodes": count,
        "success_rate": reached / count,
        "wilson_low": low,
        "wilson_high": high,
        "held_success_rate": held / count,
        "held_wilson_low": held_low,
        "held_wilson_high": held_high,
        "final_within_2cm": float(np.mean(final_cm <= 2)),
        "final_within_3cm": float(np.mean(final_cm <= 3)),
        "final_within_5cm": float(np.mean(final_cm <= 5)),
        "distance_cm_median": float(np.median(final_cm)),
        "plan_ms_p50": float(np.percentile(plan_ms, 50)) if plan_ms.size else 0.0,
        "plan_ms_p99": float(np.percentile(plan_ms, 99)) if plan_ms.size else 0.0,
        "stopped_by_surprise": float(np.mean([result.stopped_for == "surprise" for result in results])),
    }
