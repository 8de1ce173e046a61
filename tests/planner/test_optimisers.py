from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from planner.optimisers.cem import Cem
from planner.optimisers.contract import Effort, Optimiser, Problem, Solution, check_optimiser
from planner.optimisers.gradient import Gradient
from planner.optimisers.icem import Icem, coloured_noise
from planner.optimisers.mppi import Mppi
from planner.optimisers.sampling import flipped
from planner.planners import REFINERS, CemPlanner

OPTIMISERS: dict[str, Optimiser] = {
    "cem": Cem(samples=64, iterations=6, elites=8, std=0.6),
    "icem": Icem(samples=64, iterations=6, elites=8, std=0.6, colour=0.5),
    "mppi": Mppi(samples=64, iterations=8, std=0.4, temperature=0.1),
    "gradient": Gradient(samples=4, iterations=60, std=0.2),
}
SHAPE = (3, 2)
each_optimiser = pytest.mark.parametrize("optimiser", OPTIMISERS.values(), ids=OPTIMISERS)

seeds = st.integers(0, 2**32 - 1)
sequences = arrays(np.float32, SHAPE, elements=st.floats(-3, 3, width=32))


class Bowl:
    """A quadratic cost around `bottom` over actions in −1…1; remembers all it was asked."""

    def __init__(self, bottom: Any, switches: tuple[bool, ...] = (False, False)) -> None:
        self.bottom = np.asarray(bottom, np.float32)
        self.asked: list[np.ndarray] = []
        self.problem = Problem(
            self.cost,
            lambda tried: np.clip(tried, -1, 1),
            np.array(switches),
            cost_and_gradient=lambda tried: (self.of(tried), 2 * (tried - self.bottom)),
        )

    def of(self, tried: np.ndarray) -> np.ndarray:
        return ((tried - self.bottom) ** 2).sum((1, 2))

    def cost(self, tried: np.ndarray) -> np.ndarray:
        self.asked.append(tried.copy())
        return self.of(tried)

    def solve(self, optimiser: Optimiser, start: Any, seed: int = 0) -> Solution:
        start = np.broadcast_to(np.asarray(start, np.float32), self.bottom.shape)
        return optimiser.optimise(self.problem, start, optimiser.full, np.random.default_rng(seed))


@pytest.mark.parametrize(
    "optimiser", [*OPTIMISERS.values(), CemPlanner.optimiser, *REFINERS.values()], ids=lambda o: repr(o)[:60]
)
def test_every_optimiser_keeps_the_contract(optimiser: Optimiser) -> None:
    check_optimiser(optimiser)


@each_optimiser
@given(seeds, arrays(np.float32, SHAPE, elements=st.floats(-0.875, 0.875, width=32)))
@settings(deadline=None, max_examples=15)
def test_the_bottom_of_a_bowl_is_found(optimiser: Optimiser, seed: int, bottom: np.ndarray) -> None:
    found = Bowl(bottom).solve(optimiser, 0.0, seed)
    assert np.sqrt(np.mean((found.actions - bottom) ** 2)) < 0.25


@each_optimiser
def test_a_bottom_out_of_bounds_is_approached_up_to_the_bound(optimiser: Optimiser) -> None:
    found = Bowl(np.full(SHAPE, 4.0)).solve(optimiser, 0.0)
    assert found.actions.mean() > 0.7 and found.actions.max() <= 1.0


@each_optimiser
@given(seed=seeds, start=sequences, bottom=sequences)
@settings(deadline=None, max_examples=40)
def test_the_result_is_never_worse_than_the_start_nor_than_anything_tried(
    optimiser: Optimiser, seed: int, start: np.ndarray, bottom: np.ndarray
) -> None:
    bowl = Bowl(bottom)
    found = bowl.solve(optimiser, start, seed)
    assert found.cost == pytest.approx(bowl.of(found.actions[None])[0])
    assert found.cost <= bowl.of(np.clip(start, -1, 1)[None])[0]
    assert found.cost <= min(bowl.of(tried).min() for tried in bowl.asked)
    assert found.iterations == optimiser.full.iterations


@pytest.mark.parametrize("name", ("cem", "icem", "mppi"))
def test_what_was_given_up_is_never_among_the_elites(name: str) -> None:
    """Most candidates cost infinity, as when they are dropped halfway; the rest still lead to the bottom."""
    bowl = Bowl(np.full(SHAPE, 0.5))

    def mostly_given_up(tried: np.ndarray) -> np.ndarray:
        costs = bowl.of(tried)
        worst = np.argsort(costs)[4:]
        costs[worst[worst > 0]] = np.inf
        return costs

    bowl.problem = replace(bowl.problem, cost=mostly_given_up)
    assert bowl.solve(OPTIMISERS[name], 0.0).cost < 0.2 * bowl.of(np.zeros((1, *SHAPE)))[0]


@each_optimiser
def test_an_unknown_cost_everywhere_leaves_the_seed(optimiser: Optimiser) -> None:
    bowl = Bowl(np.zeros(SHAPE))
    bowl.problem = replace(bowl.problem, cost=lambda tried: np.full(len(tried), np.nan))
    found = bowl.solve(optimiser, 0.25)
    np.testing.assert_array_equal(found.actions, 0.25)
    assert found.cost == np.inf


@each_optimiser
def test_a_switch_is_turned_over_where_that_helps(optimiser: Optimiser) -> None:
    """The bottom closes the gripper from the third of six actions on; the seed leaves it open."""
    bottom = np.zeros((6, 2), np.float32)
    bottom[:, 1] = np.where(np.arange(6) >= 2, -1.0, 1.0)
    several = replace(optimiser, samples=128)  # type: ignore[type-var]
    found = Bowl(bottom, (False, True)).solve(several, [0.0, 1.0])
    np.testing.assert_array_equal(found.actions[:, 1], bottom[:, 1])


@each_optimiser
def test_each_dimension_has_its_own_noise(optimiser: Optimiser) -> None:
    calm = replace(optimiser, std=(0.5, 0.0))  # type: ignore[type-var]
    bowl = Bowl(np.zeros(SHAPE))
    calm.optimise(bowl.problem, np.zeros(SHAPE, np.float32), Effort(8, 1), np.random.default_rng(0))
    np.testing.assert_array_equal(bowl.asked[0][..., 1], 0.0)
    assert np.abs(bowl.asked[0][..., 0]).max() > 0.0


@given(seeds, st.integers(1, 12), st.booleans())
@settings(deadline=None, max_examples=50)
def test_a_flipped_switch_turns_once_and_stays(seed: int, length: int, open_: bool) -> None:
    kept = np.full((length, 1), 1.0 if open_ else -1.0, np.float32)
    turned = flipped(kept, 40, np.random.default_rng(seed))
    assert np.isin(turned, (-1.0, 1.0)).all()
    assert (np.abs(np.diff(turned[..., 0], axis=1)) > 0).sum(1).max(initial=0) <= 1
    over = (turned[:, -1, 0] != kept[-1, 0]).mean()
    assert over < 0.7, "most stay as they are"


def test_a_switch_that_is_left_alone_is_turned_either_way() -> None:
    turned = flipped(np.zeros((4, 1), np.float32), 400, np.random.default_rng(0))
    assert set(np.unique(turned)) == {-1.0, 0.0, 1.0}


@pytest.mark.parametrize("length", (2, 7, 12))
@pytest.mark.parametrize("colour", (0.0, 1.0, 2.0))
def test_coloured_noise_has_variance_1_and_the_smoother_the_redder(colour: float, length: int) -> None:
    noise = coloured_noise(colour, (20_000, length, 1), np.random.default_rng(0))
    assert noise.shape == (20_000, length, 1) and noise.dtype == np.float32
    np.testing.assert_allclose(noise.std(0), 1.0, atol=0.03)
    np.testing.assert_allclose(noise.mean(0), 0.0, atol=0.03)
    neighbours = float((noise[:, 1:] * noise[:, :-1]).mean())
    if colour == 0.0:
        assert abs(neighbours) < 0.02
    elif length > 2:
        whiter = coloured_noise(colour - 1.0, noise.shape, np.random.default_rng(0))
        assert neighbours > float((whiter[:, 1:] * whiter[:, :-1]).mean()) + 0.1


class Broken:
    """Breaks one promise of an optimiser at a time."""

    needs_gradient = False
    full = Effort(16, 2)

    def __init__(self, broken: str) -> None:
        self.broken = broken

    def optimise(self, problem: Problem, seed: Any, effort: Effort, rng: Any) -> Solution:
        found = Cem(16, 2, 4, 0.5).optimise(problem, seed, effort, rng)
        wrong: dict[str, Solution] = {
            "worse than its seed": replace(found, actions=-np.ones_like(seed), cost=1e6),
            "which it is not": replace(found, cost=found.cost - 0.5),
            "expected finite float32": replace(found, actions=found.actions.astype(np.float64)),
        }
        return wrong[self.broken]


@pytest.mark.parametrize("promise", ("worse than its seed", "which it is not", "expected finite float32"))
def test_an_optimiser_that_breaks_a_promise_is_told_which(promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        check_optimiser(Broken(promise))


def test_an_optimiser_that_goes_on_without_time_is_found_out() -> None:
    class Tireless:
        needs_gradient = False
        full = Effort(16, 2)

        def optimise(self, problem: Problem, seed: Any, effort: Effort, rng: Any) -> Solution:
            return Cem(16, 2, 4, 0.5).optimise(
                replace(problem, time_for=lambda samples: True), seed, effort, rng
            )

    with pytest.raises(AssertionError, match="2 iterations when there was time for one"):
        check_optimiser(Tireless())


def test_what_is_no_optimiser_is_told_what_it_lacks() -> None:
    with pytest.raises(AssertionError, match="lacks full, needs_gradient or optimise"):
        check_optimiser(object())  # type: ignore[arg-type]
