from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.contract import Observation
from planner.energy import TimeToGo, latent_distance, path_energy
from planner.scoring import FEW, PathCost

GOAL = np.array([5.0, -2.0], np.float32)
HERE = Observation(np.zeros(2, np.float32), np.zeros(2, np.float32), np.zeros(3, np.float32), 0)


def draw(seed: int, count: int, horizon: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 2 * horizon, 2)).astype(np.float32)


def whole(model: Any, sequences: np.ndarray, energy: Any) -> np.ndarray:
    return path_energy(energy, model.rollout(HERE, sequences.reshape(len(sequences), -1, 4)), GOAL)


@given(st.integers(0, 999), st.integers(1, 60), st.integers(1, 7))
@settings(deadline=None, max_examples=100)
def test_the_better_half_is_scored_in_full_and_the_first_always(
    toy_bundle: Any, seed: int, count: int, horizon: int
) -> None:
    model = toy_bundle.world_model()
    sequences = draw(seed, count, horizon)
    costs = PathCost(model, TimeToGo(model), HERE, GOAL, kept=0.5)(sequences)
    expected = whole(model, sequences, TimeToGo(model))
    kept = np.isfinite(costs)
    assert kept[0] and costs.dtype == np.float32
    np.testing.assert_allclose(costs[kept], expected[kept], rtol=1e-4)
    assert kept.sum() == (count if horizon < 2 else min(count, max(round(0.5 * count), FEW)))
    if horizon >= 2 and count > 2 * FEW:
        early = whole(model, sequences[:, : horizon // 2 * 2], TimeToGo(model))
        assert early[1:][kept[1:]].max() <= early[1:][~kept[1:]].min() + 1e-5


def test_the_first_is_scored_however_hopeless_it_is(toy_bundle: Any) -> None:
    model = toy_bundle.world_model()
    sequences = draw(0, 40, 6)
    sequences[0] = np.tile([-1.0, 1.0], (12, 1))
    costs = PathCost(model, TimeToGo(model), HERE, GOAL, kept=0.25)(sequences)
    assert costs[0] == max(costs[np.isfinite(costs)])


def test_nothing_is_given_up_unless_told_so(toy_bundle: Any) -> None:
    model = toy_bundle.world_model()
    sequences = draw(1, 50, 8)
    costs = PathCost(model, latent_distance, HERE, GOAL)(sequences)
    np.testing.assert_allclose(costs, whole(model, sequences, latent_distance), rtol=1e-5)


def test_what_has_no_energy_is_given_up_first(toy_bundle: Any) -> None:
    model = toy_bundle.world_model()

    def energy(latents: np.ndarray, tools: np.ndarray, goal: np.ndarray) -> np.ndarray:
        steps = model.steps_to_go(latents, tools, goal)
        return np.where(latents[:, 0] > 0.5, np.nan, steps).astype(np.float32)

    sequences = draw(2, 40, 6)
    sequences[:20, :, 0] = 1.0
    sequences[20:, :, 0] = -1.0
    costs = PathCost(model, energy, HERE, GOAL, kept=0.5)(sequences)
    assert np.isnan(costs[0]) and np.isfinite(costs[20:]).sum() == 19
