"""The cross-entropy method over action sequences, bounds kept while sampling (Rubinstein & Kroese 2004)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from planner.contract import Array

Cost = Callable[[Array], Array]
"""Action sequences (N, H, B) in −1…1 to costs (N,)."""


@dataclass(frozen=True)
class CemConfig:
    """`samples` sequences in each of `iterations`; the `elites` refit the Gaussian, `min_std` at least."""

    samples: int
    iterations: int
    elites: int
    std: float
    min_std: float = 0.05


def optimise(cost: Cost, start: Array, config: CemConfig, rng: np.random.Generator) -> tuple[Array, float]:
    """The best sequence (H, B) found around `start` (H, B), and its cost. Never worse than `start` itself."""
    best = np.clip(start, -1.0, 1.0).astype(np.float32)
    best_cost = np.inf
    mean, std = best, np.full_like(best, config.std)
    for _ in range(config.iterations):
        noise = rng.standard_normal((config.samples, *mean.shape), dtype=np.float32)
        sequences = np.clip(mean + std * noise, -1.0, 1.0)
        sequences[0] = best
        sequences[1] = mean
        costs = cost(sequences)
        order = np.argsort(costs)
        if costs[order[0]] < best_cost:
            best, best_cost = sequences[order[0]].copy(), float(costs[order[0]])
        elite = sequences[order[: config.elites]]
        mean, std = elite.mean(0), np.maximum(elite.std(0), config.min_std)
    return best, best_cost
