"""Play: what the arm does while data is collected. Nothing here aims at an evaluation goal.

Reach plays waypoints; the other tasks play waypoints and pushes to random places, or grasps and releases.
Pauses, noise and motions broken off are part of it: a model that never saw the arm rest cannot plan to rest.
"""

from __future__ import annotations

import numpy as np

from sim.control import ControlLoop
from sim.push_to_pose import PushSketch, PushToPose
from sim.scripts import MoveTo, PickPlace, Policy, PushTo, Vector, limited
from sim.tasks import Task, random_push

BLOCK_SHARE = 0.75
PAUSE_SHARE = 0.3
BREAK_OFF_SHARE = 0.1
NOISE_SHARE = 0.2
PUSH_LENGTH_M = (0.03, 0.30)
# Where turns count: pushes along any line, or as many as lead to a pose, near in half of them.
ANY_LINE_SHARE = 0.2
NEAR_SHARE, NEAR_M, NEAR_RAD = 0.5, 0.08, 1.0


class Play:
    """Endless purposeful motion: one small goal after another, sometimes a pause between."""

    def __init__(self, task: Task, rng: np.random.Generator) -> None:
        self.task = task
        self.rng = rng
        self._sketch: PushSketch | None = None
        self._policy: Policy | None = None
        self._pause_steps = 0
        self._steps_left = 0
        self._grip = 1.0
        noise = NOISE_SHARE * task.action_limit_m
        self._noise_m = rng.choice([0.0, noise, 2 * noise])

    def __call__(self, loop: ControlLoop) -> Vector:
        """The next action (A,) metres, within the action limit."""
        if self._pause_steps > 0:
            self._pause_steps -= 1
            return self._complete(np.zeros(self.motion_dim))
        if self._policy is None:
            self._policy = self._next_goal(loop)
            broken_off = self.rng.random() < BREAK_OFF_SHARE
            self._steps_left = int(self.rng.integers(1, 30)) if broken_off else self.task.play_steps
        action = self._policy(loop) if self._steps_left > 0 else None
        self._steps_left -= 1
        if action is None:
            self._policy = None
            if self.rng.random() < PAUSE_SHARE:
                self._pause_steps = int(self.rng.integers(1, 9))
            return self._complete(np.zeros(self.motion_dim))
        if len(action) > self.motion_dim:
            self._grip = float(np.sign(action[-1]))
        motion = action[: self.motion_dim] + self.rng.normal(0.0, self._noise_m, self.motion_dim)
        return self._complete(limited(motion, self.task.action_limit_m))

    @property
    def motion_dim(self) -> int:
        """How many axes of the action move the tool; a gripper is none of them."""
        return self.task.action_dim - self.task.grasps

    def _complete(self, motion: Vector) -> Vector:
        """`motion` with the gripper going on as it did."""
        return np.append(motion, self._grip * self.task.action_limit_m) if self.task.grasps else motion

    def _next_goal(self, loop: ControlLoop) -> Policy:
        task, rng = self.task, self.rng
        speed = rng.uniform(0.5, 1.0) * task.action_limit_m
        if task.block is None or rng.random() > BLOCK_SHARE:
            if task.grasps and rng.random() < 0.5:
                self._grip = rng.choice([-1.0, 1.0])
            return MoveTo(rng.uniform(task.tool_low, task.tool_high)[: self.motion_dim], speed)
        if task.grasps:
            return PickPlace(rng.uniform(task.object_low, task.object_high), speed)
        if task.turns_count:
            return self._push_and_turn(loop, speed)
        angle = rng.uniform(-np.pi, np.pi)
        length = rng.uniform(*PUSH_LENGTH_M) * rng.uniform(0.2, 1.0)
        goal = loop.world.object_pose()[:2] + length * np.array([np.cos(angle), np.sin(angle)])
        return PushTo(np.clip(goal, task.object_low, task.object_high), speed)

    def _push_and_turn(self, loop: ControlLoop, speed_m: float) -> Policy:
        task, rng, block = self.task, self.rng, self.task.block
        assert block is not None
        if rng.random() < ANY_LINE_SHARE:
            return random_push(task, loop, rng, speed_m)
        x, y, _, yaw = loop.world.object_pose()
        if rng.random() < NEAR_SHARE:
            place = np.array([x, y]) + rng.uniform(-NEAR_M, NEAR_M, 2)
            yaw += rng.uniform(-NEAR_RAD, NEAR_RAD)
        else:
            place, yaw = rng.uniform(task.object_low, task.object_high), rng.uniform(-np.pi, np.pi)
        goal = np.append(np.clip(place, task.object_low, task.object_high), yaw)
        if self._sketch is None:
            self._sketch = PushSketch(block, loop.world.conditions)
        return PushToPose(task, goal, speed_m, rng, self._sketch)
