"""`planner.constraints.MotionLimits` on tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from planner.bundle import ActionSpace, ToolNormalisation
from planner.constraints import POSITION


class TensorLimits(nn.Module):
    """Keeps sequences of actions, in units of the limit, within bounds and the tool where training saw it."""

    rows: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, action: ActionSpace, tool: ToolNormalisation) -> None:
        super().__init__()
        unbounded = float("inf")
        rows = [POSITION.get(axis) for axis in action.axes]
        low = [-unbounded if row is None else tool.low[row] for row in rows]
        high = [unbounded if row is None else tool.high[row] for row in rows]
        # A gripper has no way to bound: any row of the tool state will do for it.
        self.register_buffer("rows", torch.tensor([row or 0 for row in rows]))
        self.register_buffer("low", torch.tensor(low))
        self.register_buffer("high", torch.tensor(high))
        self._limit_m = action.limit_m

    def forward(self, sequences: Tensor, tool: Tensor) -> Tensor:
        """Sequences (N, T, A) as far as they are allowed, for a tool whose state is now (P,) in metres.

        What is allowed stays as it is, to the last bit.
        """
        bounded = sequences.clamp(-1.0, 1.0)
        now = tool.index_select(0, self.rows)
        low, high = (self.low - now) / self._limit_m, (self.high - now) / self._limit_m
        way = bounded.cumsum(1)
        # From outside, the bound follows the tool in, so that what it has gained is not lost again.
        highest = torch.maximum(high, way.cummin(1).values.clamp(max=0.0))
        lowest = torch.minimum(low, way.cummax(1).values.clamp(min=0.0))
        kept = torch.minimum(torch.maximum(way, lowest), highest)
        as_it_was = kept == way
        as_it_was = as_it_was & functional.pad(as_it_was[:, :-1], (0, 0, 1, 0), value=True)
        moves = kept - functional.pad(kept[:, :-1], (0, 0, 1, 0))
        return torch.where(as_it_was, bounded, moves).clamp(-1.0, 1.0)
