"""What the sampling optimisers share: noise around a sequence, flips of its switches, and the best so far."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planner.contract import Array
from planner.optimisers.contract import Problem

# How often a sampled sequence flips a switch: often enough to try it, rare enough to leave it mostly alone.
FLIP_PROBABILITY = 0.25

Std = float | tuple[float, ...]
"""Standard deviation of the noise, for all dimensions of an action or for each."""


class Incumbent:
    """The best sequence (T, A) so far and its cost; at first the seed, which nothing is known about."""

    def __init__(self, seed: Array) -> None:
        self.actions, self.cost = seed, float("inf")

    def offer(self, sequences: Array, costs: Array) -> None:
        best = int(np.argmin(costs))
        if costs[best] < self.cost:
            self.actions, self.cost = sequences[best].copy(), float(costs[best])


def around(
    problem: Problem, centre: Array, deviations: Array, noise: Array, rng: np.random.Generator
) -> Array:
    """Allowed sequences (N, T, A): `centre` + `deviations` · `noise` (N, T, A), switches flipped instead."""
    sequences = centre + deviations * noise
    if problem.switches.any():
        kept = centre[:, problem.switches]
        sequences[..., problem.switches] = flipped(kept, len(noise), rng)
    return problem.allow(sequences)


def flipped(kept: Array, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(N, T, S): `kept` (T, S), in some of them with a switch turned over from some action on.

    A switch that `kept` leaves alone (0) is turned either way.
    """
    length, switches = kept.shape
    turned = rng.random((count, 1, switches)) < FLIP_PROBABILITY
    since = rng.integers(length, size=(count, 1, switches))
    either = rng.choice(np.array([-1, 1], np.float32), (count, 1, switches))
    over = np.where(kept == 0, either, -np.sign(kept))
    after = np.arange(length)[:, None] >= since
    return np.where(turned & after, over, kept).astype(np.float32)


def spread_of(std: Std, seed: Array) -> Array:
    """(T, A): `std` for every action of a sequence like `seed`."""
    return np.broadcast_to(np.asarray(std, np.float32), seed.shape).copy()
