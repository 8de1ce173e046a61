"""Gradient descent on action sequences, through a world model that can be differentiated (Adam)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.contract import Array
from planner.optimisers.contract import Effort, Problem, Solution, cost_of
from planner.optimisers.sampling import Incumbent, Std, around, spread_of


@dataclass(frozen=True)
class Gradient:
    """Adam (Kingma & Ba 2015) for `iterations` steps on the seed and `samples` − 1 noisy copies of it.

    Each step is made allowed again (projected gradient). Switches are flipped in the copies and then stay:
    they have no gradient worth following. The best sequence that each start came past is compared with the
    seed under the problem's own cost, so the gradient's may be an approximation of it.
    """

    samples: int
    iterations: int
    std: Std
    rate: float = 0.05
    needs_gradient: bool = True

    @property
    def full(self) -> Effort:
        return Effort(self.samples, self.iterations)

    def optimise(self, problem: Problem, seed: Array, effort: Effort, rng: np.random.Generator) -> Solution:
        assert problem.cost_and_gradient is not None
        seed = problem.allow(seed[None])[0]
        noise = rng.standard_normal((effort.samples, *seed.shape), dtype=np.float32)
        noise[0] = 0.0
        sequences = around(problem, seed, spread_of(self.std, seed), noise, rng)
        sequences[0] = seed
        adam = _Adam(self.rate, sequences)
        passed, least = sequences.copy(), np.full(len(sequences), np.inf, np.float32)
        done = 0
        for iteration in range(effort.iterations):
            if iteration and not problem.time_for(effort.samples):
                break
            costs, gradients = problem.cost_and_gradient(sequences)
            better = costs < least
            passed[better], least[better] = sequences[better], costs[better]
            gradients[..., problem.switches] = 0.0
            sequences = problem.allow(sequences - adam.step(np.nan_to_num(gradients)))
            done = iteration + 1
        final = np.concatenate([seed[None], passed, sequences])
        best = Incumbent(seed)
        best.offer(final, cost_of(problem, final))
        return Solution(best.actions, best.cost, done * effort.samples + len(final), done)


class _Adam:
    def __init__(self, rate: float, like: Array) -> None:
        self.rate, self.steps = rate, 0
        self.mean, self.square = np.zeros_like(like), np.zeros_like(like)

    def step(self, gradient: Array) -> Array:
        """How far to go against `gradient`."""
        self.steps += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient**2
        mean = self.mean / (1 - 0.9**self.steps)
        square = self.square / (1 - 0.999**self.steps)
        return np.asarray(self.rate * mean / (np.sqrt(square) + 1e-8), np.float32)
