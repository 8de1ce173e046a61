from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from planner.optimisers.cem import CemConfig, optimise

CONFIG = CemConfig(samples=64, iterations=6, elites=8, std=0.6)
SHAPE = (3, 2)

seeds = st.integers(0, 2**32 - 1)
sequences = arrays(np.float32, SHAPE, elements=st.floats(-3, 3, width=32))
configs = st.builds(
    CemConfig,
    samples=st.integers(2, 20),
    iterations=st.integers(1, 3),
    elites=st.integers(1, 20),
    std=st.floats(0.01, 5.0),
)


class Bowl:
    """A quadratic cost around `bottom`; remembers all it was asked."""

    def __init__(self, bottom: np.ndarray) -> None:
        self.bottom = bottom
        self.asked: list[np.ndarray] = []

    def __call__(self, candidates: np.ndarray) -> np.ndarray:
        self.asked.append(candidates.copy())
        return ((candidates - self.bottom) ** 2).sum((1, 2))


@given(seeds, arrays(np.float32, SHAPE, elements=st.floats(-0.875, 0.875, width=32)))
@settings(deadline=None, max_examples=20)
def test_the_bottom_of_a_bowl_is_found(seed: int, bottom: np.ndarray) -> None:
    start = np.zeros(SHAPE, np.float32)
    best, cost = optimise(Bowl(bottom), start, CONFIG, np.random.default_rng(seed))
    assert np.sqrt(np.mean((best - bottom) ** 2)) < 0.25
    assert cost < 0.1 * Bowl(bottom)(start[None])[0] + 0.4


def test_a_bottom_out_of_bounds_is_approached_up_to_the_bound() -> None:
    bottom = np.full(SHAPE, 4.0, np.float32)
    best, _ = optimise(Bowl(bottom), np.zeros(SHAPE, np.float32), CONFIG, np.random.default_rng(0))
    assert best.min() > 0.85 and best.max() == 1.0


@given(seeds, sequences, sequences, configs)
@settings(deadline=None, max_examples=100)
def test_nothing_out_of_bounds_is_tried_or_returned(
    seed: int, start: np.ndarray, bottom: np.ndarray, config: CemConfig
) -> None:
    bowl = Bowl(bottom)
    best, _ = optimise(bowl, start, config, np.random.default_rng(seed))
    assert best.shape == SHAPE and best.dtype == np.float32
    for tried in (best, *bowl.asked):
        assert np.abs(tried).max() <= 1.0


@given(seeds, sequences, sequences, configs)
@settings(deadline=None, max_examples=100)
def test_the_result_is_never_worse_than_the_start_nor_than_anything_tried(
    seed: int, start: np.ndarray, bottom: np.ndarray, config: CemConfig
) -> None:
    bowl = Bowl(bottom)
    best, cost = optimise(bowl, start, config, np.random.default_rng(seed))
    assert cost == pytest.approx(Bowl(bottom)(best[None])[0])
    assert cost <= Bowl(bottom)(np.clip(start, -1, 1)[None])[0]
    assert cost <= min(Bowl(bottom)(tried).min() for tried in bowl.asked)
    assert sum(len(tried) for tried in bowl.asked) == config.samples * config.iterations


@given(seeds, sequences)
@settings(deadline=None, max_examples=20)
def test_the_same_seed_gives_the_same_result(seed: int, bottom: np.ndarray) -> None:
    start = np.zeros(SHAPE, np.float32)
    one, other = (optimise(Bowl(bottom), start, CONFIG, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(one[0], other[0])
    assert one[1] == other[1]


def test_candidates_without_a_cost_never_win() -> None:
    def cost(candidates: np.ndarray) -> np.ndarray:
        costs = -np.abs(candidates).sum((1, 2))
        return np.where(candidates[:, 0, 0] > 0.01, np.nan, costs)

    best, found = optimise(cost, np.zeros(SHAPE, np.float32), CONFIG, np.random.default_rng(0))
    assert np.isfinite(found)
    assert best[0, 0] <= 0.01
