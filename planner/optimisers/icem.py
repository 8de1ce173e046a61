"""iCEM: sample-efficient cross-entropy (Pinneri et al. 2020, arXiv 2008.06389).

What it adds to CEM: noise that is correlated in time, a population that shrinks, elites kept from one
iteration to the next, and the mean as a candidate of the last one. Elites shifted from the last decision are
the planner's warm start here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.contract import Array
from planner.optimisers.contract import Effort, Problem, Solution, cost_of
from planner.optimisers.sampling import Incumbent, Std, around, spread_of


@dataclass(frozen=True)
class Icem:
    """`samples` in the first iteration, fewer by `shrink` in each further one, twice the `elites` at least.

    `colour` is the exponent of the noise's spectrum 1/f^colour over the sequence: 0 white, 2 a random walk.
    `kept` is the share of the elites that go into the next iteration, `inertia` how much of the old Gaussian
    stays in the new one.
    """

    samples: int
    iterations: int
    elites: int
    std: Std
    colour: float = 2.0
    shrink: float = 1.25
    kept: float = 0.3
    inertia: float = 0.1
    needs_gradient: bool = False

    @property
    def full(self) -> Effort:
        return Effort(self.samples, self.iterations)

    def optimise(self, problem: Problem, seed: Array, effort: Effort, rng: np.random.Generator) -> Solution:
        seed = problem.allow(seed[None])[0]
        best, mean, deviations = Incumbent(seed), seed, spread_of(self.std, seed)
        elite = seed[None][:0]
        candidates = done = 0
        for iteration in range(effort.iterations):
            least = min(2 * self.elites, effort.samples)
            count = max(round(effort.samples * self.shrink**-iteration), least)
            if iteration and not problem.time_for(count):
                break
            noise = coloured_noise(self.colour, (count, *seed.shape), rng)
            sequences = around(problem, mean, deviations, noise, rng)
            given = [best.actions[None], elite[: round(self.kept * len(elite))]]
            if iteration and iteration == effort.iterations - 1:
                given.append(problem.allow(mean[None]))
            joined = np.concatenate(given)[:count]
            sequences[: len(joined)] = joined
            costs = cost_of(problem, sequences)
            best.offer(sequences, costs)
            candidates, done = candidates + count, iteration + 1
            order = np.argsort(costs)[: self.elites]
            elite = sequences[order[np.isfinite(costs[order])]]
            if len(elite):
                mean = self.inertia * mean + (1 - self.inertia) * elite.mean(0)
                deviations = self.inertia * deviations + (1 - self.inertia) * elite.std(0)
                # The average of on and off is neither.
                mean[:, problem.switches] = best.actions[:, problem.switches]
        return Solution(best.actions, best.cost, candidates, done)


def coloured_noise(colour: float, shape: tuple[int, int, int], rng: np.random.Generator) -> Array:
    """Gaussian noise (N, T, A) of variance 1, power along T falling as 1/f^colour (Timmer & König 1995)."""
    count, length, dim = shape
    frequencies = np.fft.rfftfreq(length)
    frequencies[0] = 1 / length
    amplitudes = frequencies ** (-colour / 2)
    parts = rng.standard_normal((2, count, dim, len(frequencies))) * amplitudes
    # Frequencies of a real signal come in pairs of two parts each, but for the first and an even last.
    power = 4 * amplitudes**2
    for alone in (0, -1) if length % 2 == 0 else (0,):
        power[alone] /= 2
        parts[0, ..., alone] *= np.sqrt(2)
        parts[1, ..., alone] = 0.0
    signal = np.fft.irfft(parts[0] + 1j * parts[1], n=length, axis=-1) * length / np.sqrt(power.sum())
    return np.ascontiguousarray(signal.swapaxes(1, 2), dtype=np.float32)
