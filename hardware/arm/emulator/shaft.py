"""The output shaft of an emulated servo: it follows its goal under a velocity and an acceleration limit."""

from __future__ import annotations

import math
from dataclasses import dataclass

STEP_S = 0.001
# Without torque the gear train's friction stops the shaft. Gravity is not emulated: nothing drops.
FRICTION_TICKS_S2 = 30_000.0


@dataclass
class Shaft:
    """Position in encoder ticks, velocity in ticks/s."""

    position: float
    velocity: float = 0.0

    def advance(
        self, elapsed_s: float, goal: float | None, max_velocity: float, acceleration: float, stuck: bool
    ) -> None:
        """Let time pass: towards `goal` with a trapezoidal velocity profile, or to rest where it is None."""
        if stuck:
            self.velocity = 0.0
            return
        steps = math.ceil(elapsed_s / STEP_S)
        for _ in range(steps):
            self._step(elapsed_s / steps, goal, max_velocity, acceleration)

    def _step(self, dt: float, goal: float | None, max_velocity: float, acceleration: float) -> None:
        if goal is None:
            wanted, limit = 0.0, FRICTION_TICKS_S2 * dt
        else:
            way, limit = goal - self.position, acceleration * dt
            if abs(way) <= abs(self.velocity) * dt + 0.5 * limit * dt and abs(self.velocity) <= 2 * limit:
                self.position, self.velocity = goal, 0.0
                return
            # As fast as it can still brake from before the goal, one step of reaction time taken off.
            braking = math.sqrt(limit * limit / 4 + 2 * acceleration * abs(way)) - limit / 2
            wanted = math.copysign(min(max_velocity, braking), way)
        self.velocity += min(max(wanted - self.velocity, -limit), limit)
        self.position += self.velocity * dt
