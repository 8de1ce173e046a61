"""The cross-entropy method over action sequences (Rubinstein & Kroese 2004), limits kept while sampling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.contract import Array
from planner.optimisers.contract import Effort, Problem, Solution, cost_of
from planner.optimisers.sampling import Incumbent, Std, around, spread_of


@dataclass(frozen=True)
class Cem:
    """`samples` sequences in each of `iterations`; the `elites` refit the Gaussian, `min_std` at least."""

    samples: int
    iterations: int
    elites: int
    std: Std
    min_std: float = 0.05
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
            if done == effort.iterations:
                break
            order = np.argsort(costs)[: self.elites]
            elite = sequences[order[np.isfinite(costs[order])]]
            if len(elite):
                mean, deviations = elite.mean(0), np.maximum(elite.std(0), self.min_std)
                # The average of on and off is neither.
                mean[:, problem.switches] = best.actions[:, problem.switches]
        return Solution(best.actions, best.cost, candidates, done)
