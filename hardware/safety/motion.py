"""Moving a reference point of the joints within every limit: the arithmetic under the safety gate.

The reference is integrated as v' = v + Δv, q' = q + v'·dt, so the velocity between two setpoints is exactly
v'. Braking from v at the acceleration limit a then covers at most v²/2a, whatever the later time steps are;
keeping that distance free at every step is what makes the limits impossible to cross.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hardware.kinematics import Kinematics

Array = NDArray[np.float64]


class Motion:
    """The limits of one robot as functions on joint positions `q` and velocities `v`, both (J,)."""

    def __init__(self, kinematics: Kinematics, max_braking_s: float, workspace_tolerance_m: float) -> None:
        robot = kinematics.robot
        self._kinematics = kinematics
        self._tolerance = workspace_tolerance_m
        self._lower = robot.position_lower
        self._upper = robot.position_upper
        self._acceleration = robot.acceleration_limits
        self._box_min = robot.workspace_min
        self._box_max = robot.workspace_max
        self.max_velocity: Array = np.minimum(
            robot.velocity_limits, robot.acceleration_limits * max_braking_s
        )

    def towards(self, goal: Array, q: Array, time_left: float, dt: float, rest_there: bool) -> Array:
        """The velocity that reaches `goal` in `time_left`, slowed uniformly to stay within the limits.

        With `rest_there` it is also slow enough to come to rest at the goal.
        """
        distance = goal - q
        wanted = distance / max(time_left, dt)
        limit = self.max_velocity
        if rest_there:
            limit = np.minimum(limit, self._stoppable(np.abs(distance), dt))
        excess = float((np.abs(wanted) / np.maximum(limit, 1e-12)).max())
        return wanted / excess if excess > 1.0 else wanted

    def step(self, wanted: Array, q: Array, v: Array, dt: float) -> Array:
        """The next velocity: from `v` as near to `wanted` as acceleration and position limits allow.

        All joints change in proportion, so that the tool keeps its direction while it brakes.
        """
        change = wanted - v
        excess = float((np.abs(change) / self._acceleration).max()) / dt
        if excess > 1.0 + 1e-9:
            change /= excess
        slowest = -self._stoppable(np.maximum(q - self._lower, 0.0), dt)
        fastest = self._stoppable(np.maximum(self._upper - q, 0.0), dt)
        return np.minimum(np.maximum(v + change, slowest), fastest)

    def step_in_workspace(self, wanted: Array, q: Array, v: Array, dt: float) -> Array:
        """Like `step`, but brakes where the tool could no longer come to rest inside the workspace.

        A tool that is already outside may only come nearer.
        """
        free = self.step(wanted, q, v, dt)
        if self._rests_inside(free, q, dt):
            return free
        braking = self.step(np.zeros_like(v), q, v, dt)
        halfway = 0.5 * (free + braking)
        return halfway if self._rests_inside(halfway, q, dt) else braking

    def target_is_inside(self, target: Array, q: Array) -> bool:
        """Whether `target` has the tool inside the workspace, or at least no further outside than `q`."""
        outside = self._outside(target)
        return outside <= self._tolerance or outside <= self._outside(q)

    def _rests_inside(self, v: Array, q: Array, dt: float) -> bool:
        braking_s = float((np.abs(v) / self._acceleration).max())
        return self.target_is_inside(q + v * (dt + 0.5 * braking_s), q)

    def _outside(self, q: Array) -> float:
        """How far (m) the tool is outside the workspace on its worst axis; negative inside."""
        tool = self._kinematics.tool_position(q)
        return float(np.maximum(self._box_min - tool, tool - self._box_max).max())

    def _stoppable(self, room: Array, dt: float) -> Array:
        """The velocity from which, after one step of `dt`, each joint can still stop within `room`."""
        return 2.0 * room / (np.sqrt(dt * dt + 2.0 * room / self._acceleration) + dt)
