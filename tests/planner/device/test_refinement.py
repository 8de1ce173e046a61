"""The search on tensors behaves as every optimiser does."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from planner.contract import Array
from planner.device.refinement import Refinement
from planner.optimisers.cem import Cem
from planner.optimisers.contract import Effort, Problem, Solution, check_optimiser, cost_of


class OnTensors:
    """`Refinement` as an Optimiser: what it does in one call is told beforehand."""

    needs_gradient = False
    cem = Cem(samples=40, iterations=4, elites=8, std=0.5)

    @property
    def full(self) -> Effort:
        return self.cem.full

    def optimise(self, problem: Problem, seed: Array, effort: Effort, rng: np.random.Generator) -> Solution:
        iterations = 1
        while iterations < effort.iterations and problem.time_for(effort.samples):
            iterations += 1
        cem = Cem(effort.samples, effort.iterations, self.cem.elites, self.cem.std)
        search = Refinement(cem, problem.switches, len(seed))
        search.draw(torch.Generator().manual_seed(int(rng.integers(1 << 31))))

        def cost(sequences: Tensor) -> Tensor:
            return torch.from_numpy(cost_of(problem, sequences.numpy()))

        def allow(sequences: Tensor) -> Tensor:
            return torch.from_numpy(problem.allow(sequences.numpy()))

        start = allow(torch.from_numpy(seed)[None])[0]
        best, least = search(cost, allow, start, iterations)
        return Solution(best.numpy(), float(least), iterations * cem.samples, iterations)


def test_it_keeps_the_contract_of_optimisers_switches_and_unknown_costs_included() -> None:
    check_optimiser(OnTensors())


def test_it_finds_the_bottom_of_a_bowl_and_turns_the_switch_that_helps() -> None:
    bottom = np.array([0.6, -0.4, 1.0], np.float32)
    problem = Problem(
        cost=lambda sequences: ((sequences - bottom) ** 2).sum((1, 2)).astype(np.float32),
        allow=lambda sequences: np.clip(sequences, -1, 1),
        switches=np.array([False, False, True]),
    )
    seed = np.tile(np.array([0.0, 0.0, -1.0], np.float32), (3, 1))
    found = OnTensors().optimise(problem, seed, Effort(300, 6), np.random.default_rng(0))
    np.testing.assert_allclose(found.actions, np.tile(bottom, (3, 1)), atol=0.1)


def test_from_the_second_iteration_on_the_mean_of_the_elites_is_a_candidate() -> None:
    asked = []

    def cost(sequences: Tensor) -> Tensor:
        asked.append(sequences.clone())
        return sequences.square().sum((1, 2))

    search = Refinement(Cem(samples=20, iterations=2, elites=5, std=0.5), np.array([False, False]), 3)
    search.draw(None)
    search(cost, lambda sequences: sequences.clamp(-1, 1), torch.full((3, 2), 0.5), 2)
    first, second = asked
    elites = first[first.square().sum((1, 2)).argsort()[:5]]
    torch.testing.assert_close(second[1], elites.mean(0))
    torch.testing.assert_close(first[0], torch.full((3, 2), 0.5))
    torch.testing.assert_close(second[0], elites[0])
