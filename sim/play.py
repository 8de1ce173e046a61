"""Play: what the arm does while data is collected. Nothing here aims at an evaluation goal.

Reach plays waypoints; push plays pushes of the cube in random directions, and waypoints. Pauses and noise
are part of it: a model that never saw the arm rest cannot plan to rest.
"""

from __future__ import annotations

import numpy as np

from sim.control import ControlLoop
from sim.tasks import ACTION_LIMIT_M, MoveTo, Policy, PushTo, Task, Vector, limited

PUSH_SHARE = 0.75
PAUSE_SHARE = 0.3
NOISE_M = 0.004


class Play:
    """Endless purposeful motion: one small goal after another, sometimes a pause between."""

    def __init__(self, task: Task, rng: np.random.Generator) -> None:
        self.task = task
        self.rng = rng
        self._policy: Policy | None = None
        self._pause_steps = 0
        self._noise_m = rng.choice([0.0, NOISE_M, 2 * NOISE_M])

    def __call__(self, loop: ControlLoop) -> Vector:
        """The next action (A,) metres, within the action limit."""
        if self._pause_steps > 0:
            self._pause_steps -= 1
            return np.zeros(self.task.action_dim)
        if self._policy is None:
            self._policy = self._next_goal(loop)
        action = self._policy(loop)
        if action is None:
            self._policy = None
            if self.rng.random() < PAUSE_SHARE:
                self._pause_steps = int(self.rng.integers(1, 9))
            return np.zeros(self.task.action_dim)
        return limited(action + self.rng.normal(0.0, self._noise_m, len(action)), ACTION_LIMIT_M)

    def _next_goal(self, loop: ControlLoop) -> Policy:
        task, rng = self.task, self.rng
        speed = rng.uniform(0.5, 1.0) * ACTION_LIMIT_M
        if task.cube is None or rng.random() > PUSH_SHARE:
            return MoveTo(rng.uniform(task.tool_low, task.tool_high)[: task.action_dim], speed)
        centre = task.achieved(loop)[:2]
        angle = rng.uniform(-np.pi, np.pi)
        length = rng.uniform(0.03, 0.16)
        goal = centre + length * np.array([np.cos(angle), np.sin(angle)])
        return PushTo(np.clip(goal, task.object_low, task.object_high), speed)
