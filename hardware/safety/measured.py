"""Reading joint states with distrust: which of them tell where the arm is, and how long ago that was."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hardware.arm.contract import JointState
from hardware.robot import Robot
from hardware.safety.command import as_array


class MeasuredJoints:
    """Where the joints were measured last. Times are the gate's own, in seconds."""

    def __init__(self, robot: Robot, timeout_s: float) -> None:
        self._robot, self._timeout_s = robot, timeout_s
        self.positions: NDArray[np.float64] | None = None  # (J,) rad; None before the first
        self.ignored = 0
        self._taken: float  # from the first on
        self._stamp_ns = 0

    def take(self, state: JointState, clock_s: float) -> NDArray[np.float64] | None:
        """The positions of `state`, or None where it does not count and is ignored."""
        positions = self._read(state)
        if positions is None:
            self.ignored += 1
            return None
        self.positions, self._taken, self._stamp_ns = positions, clock_s, state.stamp_ns
        return positions

    def silent_s(self, clock_s: float) -> float:
        return clock_s - self._taken

    def is_stale(self, clock_s: float) -> bool:
        return self.silent_s(clock_s) > self._timeout_s

    def _read(self, state: JointState) -> NDArray[np.float64] | None:
        """The measured positions, if they are complete, new, and where joints can be."""
        robot = self._robot
        try:
            ordered = state.ordered(robot.joint_names)
            positions, velocities = as_array(ordered.positions), as_array(ordered.velocities)
        except (KeyError, IndexError, TypeError, ValueError):
            return None
        if not positions.shape == velocities.shape == robot.home.shape:
            return None
        lower, upper = robot.position_lower, robot.position_upper
        # An arm may stand somewhat outside its limits; where this does not hold, a sensor is broken.
        possible = np.abs(positions - 0.5 * (lower + upper)) <= upper - lower
        repeated = state.stamp_ns == self._stamp_ns != 0
        return positions if possible.all() and np.isfinite(velocities).all() and not repeated else None
