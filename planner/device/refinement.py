"""`planner.optimisers.cem.Cem` on tensors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from planner.optimisers.cem import Cem
from planner.optimisers.sampling import FLIP_PROBABILITY, spread_of

Cost = Callable[[Tensor], Tensor]
"""Sequences (N, T, A) to costs (N,), infinite for what has none or was given up; the first never is."""


class Refinement(nn.Module):
    """The cross-entropy method around a seed (T, A). Its noise is drawn first, by `draw`, into buffers."""

    noise: Tensor
    turns: Tensor
    order: Tensor
    std: Tensor
    switches: Tensor
    unknown: Tensor

    def __init__(self, cem: Cem, switches: NDArray[np.bool_], length: int) -> None:
        super().__init__()
        self.cem = cem
        self._has_switches = bool(switches.any())
        shape = (length, len(switches))
        buffers = {
            "noise": torch.zeros(cem.iterations, cem.samples, *shape),
            # Of each switch of each sequence: whether it is turned over, since when, which way.
            "turns": torch.ones(cem.iterations, 3, cem.samples, 1, len(switches)),
            "order": torch.arange(length)[:, None],
            "std": torch.from_numpy(spread_of(cem.std, np.zeros(shape, np.float32))),
            "switches": torch.from_numpy(switches),
            "unknown": torch.tensor([float("inf")]),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)

    def draw(self, generator: torch.Generator | None) -> None:
        """Fresh noise for the next search. From its second iteration on, the mean is a candidate too."""
        self.noise.normal_(generator=generator)
        self.noise[1:, 1:2].zero_()
        if self._has_switches:
            self.turns.uniform_(generator=generator)
            self.turns[1:, 0, 1:2].fill_(1.0)

    def forward(
        self, cost: Cost, allow: Callable[[Tensor], Tensor], seed: Tensor, iterations: int
    ) -> tuple[Tensor, Tensor]:
        """The best allowed sequence (T, A) of the first `iterations`, and its cost (1,).

        The allowed `seed` is a candidate: the result is never worse.
        """
        best, least, mean, deviations = seed, self.unknown, seed, self.std
        for iteration in range(iterations):
            sequences = allow(self._around(mean, deviations, iteration))
            sequences[0].copy_(best)
            costs = cost(sequences)
            at = costs.argmin(0, keepdim=True)
            found = costs.index_select(0, at)
            best = torch.where(found < least, sequences.index_select(0, at)[0], best)
            least = torch.minimum(found, least)
            mean, deviations = self._refit(sequences, costs, mean, deviations)
            # The average of on and off is neither.
            mean = torch.where(self.switches, best, mean)
        return best, least

    def _around(self, centre: Tensor, deviations: Tensor, iteration: int) -> Tensor:
        sequences = centre + deviations * self.noise[iteration]
        if not self._has_switches:
            return sequences
        turned, since, either = self.turns[iteration].unbind(0)
        # A switch that the centre leaves alone (0) is turned either way.
        over = torch.where(centre == 0, (either - 0.5).sign(), -centre.sign())
        flipped = (turned < FLIP_PROBABILITY) & (self.order >= (since * len(centre)).floor())
        return torch.where(self.switches, torch.where(flipped, over, centre), sequences)

    def _refit(
        self, sequences: Tensor, costs: Tensor, mean: Tensor, deviations: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the elites whose cost is known; as they were if none is."""
        count = min(self.cem.elites, self.cem.samples)
        lowest, rows = costs.topk(count, largest=False)
        elites, known = sequences.index_select(0, rows), lowest.isfinite()
        share = (known / known.sum().clamp(min=1))[:, None, None]
        average = (elites * share).sum(0)
        spread = ((elites - average).square() * share).sum(0).sqrt().clamp(min=self.cem.min_std)
        any_known = known.any()
        return torch.where(any_known, average, mean), torch.where(any_known, spread, deviations)
