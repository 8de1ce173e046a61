"""What a planned motion may do: actions within their limit, the tool within what the model was trained on."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.bundle import ActionSpace, ToolNormalisation
from planner.contract import Array

POSITION = {"x": 0, "y": 1, "z": 2}


class MotionLimits:
    """Keeps sequences of actions, in units of the limit, within bounds and the tool where training saw it.

    Outside that range the world model guesses and its energy means nothing. The gripper, if there is one, is
    only kept within its bounds.
    """

    def __init__(self, action: ActionSpace, tool: ToolNormalisation) -> None:
        moving = [axis for axis in action.axes if axis in POSITION]
        rows = [POSITION[axis] for axis in moving]
        self.switches: NDArray[np.bool_] = np.array([axis not in POSITION for axis in action.axes])
        self._moves: slice | NDArray[np.bool_] = ~self.switches if self.switches.any() else slice(None)
        self._limit_m = action.limit_m
        self._rows = rows
        self._low = np.array(tool.low, np.float32)[rows]
        self._high = np.array(tool.high, np.float32)[rows]

    def allow(self, sequences: Array, tool: ArrayLike) -> Array:
        """Sequences (N, T, A) as far as they are allowed, for a tool whose state is now (P,) in metres.

        The way that the tool has come after each action is clipped into the range. A tool that is outside
        may stay, move along the border or come back, and what it has come back it does not leave again.
        Allowed sequences stay as they are.
        """
        bounded = np.clip(sequences, -1.0, 1.0).astype(np.float32, copy=False)
        now = np.asarray(tool, np.float32)[self._rows]
        low, high = (self._low - now) / self._limit_m, (self._high - now) / self._limit_m
        way = bounded[..., self._moves].cumsum(1)
        if (way >= low).all() and (way <= high).all():
            return bounded
        # From outside, the bound follows the tool in, so that what it has gained is not lost again.
        highest = np.maximum(high, np.minimum.accumulate(way, axis=1).clip(max=0))
        lowest = np.minimum(low, np.maximum.accumulate(way, axis=1).clip(min=0))
        kept = np.clip(way, lowest, highest)
        allowed = bounded.copy()
        allowed[..., self._moves] = np.diff(kept, axis=1, prepend=np.zeros_like(kept[:, :1]))
        return np.clip(allowed, -1.0, 1.0)
