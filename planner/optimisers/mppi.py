"""MPPI: model predictive path integral control (Williams et al. 2017, arXiv 1509.01149)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.contract import Array
from planner.optimisers.contract import Effort, Problem, Solution, cost_of
from planner.optimisers.sampling import Incumbent, Std, around, spread_of


@dataclass(frozen=True)
class Mppi:
    """The mean moves to the average of its `samples` noisy copies, each weighted by exp(−cost / temperature).

    `temperature` is a share of the costs' standard deviation: energies differ in scale, this does not. Every
    mean is compared too, the last one by itself; the answer is the best sequence of all.
    """

    samples: int
    iterations: int
    std: Std
    temperature: float = 0.3
    needs_gradient: bool = False

    @property
    def full(self) -> Effort:
        return Effort(self.samples, self.iterations)

    def optimise(self, problem: Problem, seed: Array, effort: Effort, rng: np.random.Generator) -> Solution:
        seed = problem.allow(seed[None])[0]
        best, mean, deviations = Incumbent(seed), seed, spread_of(self.std, seed)
        candidates = done = 0
        for iteration in range(effort.iterations):
            if iteration and not problem.time_for(effort.samples):
                break
            noise = rng.standard_normal((effort.samples, *seed.shape), dtype=np.float32)
            sequences = around(problem, mean, deviations, noise, rng)
            sequences[0] = best.actions
            if iteration and effort.samples > 1:
                sequences[1] = problem.allow(mean[None])[0]
            costs = cost_of(problem, sequences)
            best.offer(sequences, costs)
            candidates, done = candidates + len(sequences), iteration + 1
            known = np.isfinite(costs)
            if known.any():
                scale = self.temperature * max(float(costs[known].std()), 1e-6)
                weights = np.exp(-(costs[known] - costs[known].min()) / scale)
                mean = np.tensordot(weights / weights.sum(), sequences[known], axes=1).astype(np.float32)
                # The average of on and off is neither.
                mean[:, problem.switches] = best.actions[:, problem.switches]
        last = np.stack([best.actions, problem.allow(mean[None])[0]])
        best.offer(last, cost_of(problem, last))
        return Solution(best.actions, best.cost, candidates + 1, done)
