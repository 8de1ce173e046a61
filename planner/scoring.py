"""What action sequences cost: imagined by the world model, judged by an energy, given up when hopeless."""

from __future__ import annotations

import numpy as np

from planner.contract import Array, Observation
from planner.energy import Energy, energies_along, of_path
from planner.world_model import Imagined, WorldModel

# Below this, imagining fewer of them takes as long.
FEW = 8


def going_on_of(count: int, kept: float) -> int:
    """How many of `count` sequences are imagined to their end, if those `kept` are the better share."""
    return max(round(kept * count), FEW)


class PathCost:
    """The path energy of action sequences (N, T, A) from one observation towards one goal.

    Halfway, all but the better `kept` share are given up: they cost infinity. The first never is.
    """

    def __init__(
        self, model: WorldModel, energy: Energy, observation: Observation, goal: Array, kept: float = 1.0
    ) -> None:
        self._model, self._energy = model, energy
        self._observation, self._goal = observation, goal
        self._kept = kept

    def __call__(self, sequences: Array) -> Array:
        blocks = sequences.reshape(len(sequences), -1, self._model.block_dim)
        count, horizon, _ = blocks.shape
        going_on = going_on_of(count, self._kept)
        if going_on >= count or horizon < 2:
            return of_path(self._along(self._model.rollout(self._observation, blocks)))
        half = horizon // 2
        first = self._model.rollout(self._observation, blocks[:, :half])
        early = self._along(first)
        hopes = of_path(early)
        hopes[0] = -np.inf
        better = np.sort(np.argpartition(hopes, going_on - 1)[:going_on])
        second = self._model.rollout(first.end.take(better), blocks[better, half:])
        costs = np.full(count, np.inf, np.float32)
        costs[better] = of_path(np.concatenate([early[better], self._along(second)], axis=1))
        return costs

    def _along(self, imagined: Imagined) -> Array:
        return energies_along(self._energy, imagined, self._goal)
