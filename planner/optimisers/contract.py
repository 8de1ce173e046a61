"""What an optimiser of action sequences promises, and a checker that holds any optimiser to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from planner.contract import Array

Cost = Callable[[Array], Array]
"""Sequences (N, T, A) to costs (N,); infinite where one was given up early, which the first never is."""

CostAndGradient = Callable[[Array], tuple[Array, Array]]
"""Sequences (N, T, A) to costs (N,) and their gradients (N, T, A)."""


@dataclass(frozen=True)
class Effort:
    """How much an optimiser does: `iterations` of `samples` sequences each."""

    samples: int
    iterations: int


@dataclass(frozen=True)
class Problem:
    """What is to be optimised: sequences of T actions of A dimensions in units of the action limit, −1…1.

    `allow` turns any sequences into the nearest allowed ones, and allowed ones into themselves. `switches`
    (A,) tells the dimensions that are either on or off, such as a gripper: they are flipped, never given
    Gaussian noise. `time_for(samples)` is asked before every iteration but the first. `cost_and_gradient` is
    there for the optimisers that need it.
    """

    cost: Cost
    allow: Callable[[Array], Array]
    switches: NDArray[np.bool_]
    time_for: Callable[[int], bool] = lambda samples: True
    cost_and_gradient: CostAndGradient | None = None


@dataclass(frozen=True)
class Solution:
    """The best allowed sequence (T, A) found and its cost, how many were compared, in how many iterations."""

    actions: Array
    cost: float
    candidates: int
    iterations: int


@runtime_checkable
class Optimiser(Protocol):
    """Improves an action sequence under a cost. Keeps nothing from one call to the next.

    `full` is what it does when time allows; `needs_gradient` says whether it asks for `cost_and_gradient`.
    """

    @property
    def full(self) -> Effort: ...

    @property
    def needs_gradient(self) -> bool: ...

    def optimise(self, problem: Problem, seed: Array, effort: Effort, rng: np.random.Generator) -> Solution:
        """Search around `seed` (T, A), made allowed. The seed is a candidate: the result is never worse.

        Whatever has no finite cost never wins against what has one.
        """
        ...


def cost_of(problem: Problem, sequences: Array) -> Array:
    """The costs (N,) of sequences, with infinity for what has none: a NaN must not win a comparison."""
    costs = problem.cost(sequences)
    return np.where(np.isnan(costs), np.float32(np.inf), costs)


class _Bowl:
    """A quadratic cost around a bottom, over sequences whose running sum is held within ±1.5."""

    def __init__(self, rng: np.random.Generator, switches: NDArray[np.bool_]) -> None:
        self.bottom = rng.uniform(-1.5, 1.5, (6, len(switches))).astype(np.float32)
        self.switches = switches
        self.asked: list[Array] = []
        self.iterations_left = 1_000

    def problem(self) -> Problem:
        return Problem(self.cost, self.allow, self.switches, self.time_for, self.cost_and_gradient)

    def cost(self, sequences: Array) -> Array:
        self.asked.append(sequences.copy())
        costs = ((sequences - self.bottom) ** 2).sum((1, 2))
        # Nothing is known about some of them: these must not win.
        return np.where(sequences[:, 0, 0] > 0.9, np.nan, costs)

    def cost_and_gradient(self, sequences: Array) -> tuple[Array, Array]:
        return ((sequences - self.bottom) ** 2).sum((1, 2)), 2 * (sequences - self.bottom)

    def allow(self, sequences: Array) -> Array:
        summed = np.clip(np.cumsum(np.clip(sequences, -1, 1), axis=1), -1.5, 1.5)
        moved = np.diff(summed, axis=1, prepend=np.float32(0))
        return np.where(self.switches, np.clip(sequences, -1, 1), moved).astype(np.float32)

    def time_for(self, samples: int) -> bool:
        self.iterations_left -= 1
        return self.iterations_left >= 0


def check_optimiser(optimiser: Optimiser) -> None:
    """Raise AssertionError, naming the broken promise, if `optimiser` does not behave as an Optimiser."""
    if not isinstance(optimiser, Optimiser):
        raise AssertionError(f"{type(optimiser).__name__} lacks full, needs_gradient or optimise")
    for trial in range(5):
        _check_once(optimiser, trial)


def _check_once(optimiser: Optimiser, trial: int) -> None:
    rng = np.random.default_rng(trial)
    switches = np.array([False, False, True])
    bowl = _Bowl(rng, switches)
    seed = bowl.allow(rng.uniform(-1, 0.8, (1, 6, 3)).astype(np.float32))[0]
    seed[:, 2] = np.sign(seed[:, 2])
    seed_cost = float(bowl.cost(seed[None])[0])
    bowl.asked.clear()
    found = optimiser.optimise(bowl.problem(), seed, optimiser.full, np.random.default_rng(trial))
    actions = found.actions
    if actions.shape != seed.shape or actions.dtype != np.float32 or not np.isfinite(actions).all():
        raise AssertionError(f"gave {actions.dtype} {actions.shape}, expected finite float32 {seed.shape}")
    if not found.cost <= seed_cost:
        raise AssertionError(f"gave a result of cost {found.cost:g}, worse than its seed's {seed_cost:g}")
    if not np.isclose(found.cost, bowl.cost(actions[None])[0], rtol=1e-4):
        raise AssertionError(f"called the cost of its result {found.cost:g}, which it is not")
    for tried in (*bowl.asked, actions[None]):
        if np.abs(bowl.allow(tried) - tried).max() > 1e-5:
            raise AssertionError("tried or gave a sequence that is not allowed")
        if not np.isin(tried[..., switches], (-1.0, 1.0)).all():
            raise AssertionError("set a switch to something between off and on")
    repeated = optimiser.optimise(bowl.problem(), seed, optimiser.full, np.random.default_rng(trial))
    if not np.array_equal(repeated.actions, actions):
        raise AssertionError("gave two results for the same problem and random numbers")
    bowl.iterations_left = 0
    short = optimiser.optimise(bowl.problem(), seed, optimiser.full, np.random.default_rng(trial))
    if short.iterations != 1:
        raise AssertionError(f"did {short.iterations} iterations when there was time for one")
    little = optimiser.optimise(bowl.problem(), seed, Effort(4, 1), np.random.default_rng(trial))
    if little.iterations > 1 or not little.cost <= seed_cost:
        raise AssertionError("did more than the effort it was given, or lost to its seed with little of it")
