"""Scripted policies. They see the true state; nothing that plans from pictures does.

A policy takes the control loop and gives the next action (A,) in metres, or None when it is done. Play and
demonstrations are made of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sim.control import ControlLoop

Vector = NDArray[np.float64]
Policy = Callable[[ControlLoop], Vector | None]


class MoveTo:
    """Move the tool straight to `goal` (A,) metres; None when it is there."""

    def __init__(self, goal: Vector, speed_m: float) -> None:
        self.goal = goal
        self.speed_m = speed_m

    def __call__(self, loop: ControlLoop) -> Vector | None:
        error = self.goal - loop.world.tool_position()[: len(self.goal)]
        if np.linalg.norm(error) < 0.004:
            return None
        return limited(error, self.speed_m)


class PushTo:
    """Go around behind the block, then push it until its centre is at `goal` (2,) metres; None when there."""

    STANDOFF_M = 0.065

    def __init__(self, goal: Vector, speed_m: float) -> None:
        self.goal = goal
        self.speed_m = speed_m
        self.behind = False

    def __call__(self, loop: ControlLoop) -> Vector | None:
        block, tool = loop.world.object_pose()[:2], loop.world.tool_position()[:2]
        to_goal = self.goal - block
        distance = float(np.linalg.norm(to_goal))
        if distance < 0.006:
            return None
        direction = to_goal / distance
        offset = tool - block
        along = float(offset @ direction)
        aside = offset - along * direction
        if self.behind and (along > 0.0 or np.linalg.norm(aside) > 0.035):
            self.behind = False
        if not self.behind:
            target = block - direction * self.STANDOFF_M
            if np.linalg.norm(tool - target) < 0.012:
                self.behind = True
            else:
                return limited(_around(tool, target, block, self.STANDOFF_M) - tool, self.speed_m)
        # Steer towards the line behind the centre while pushing; slow down over the last centimetres.
        speed = min(self.speed_m, 0.004 + 0.5 * distance)
        return limited(direction * speed - 0.8 * aside, self.speed_m)


class PushAlong:
    """Go around the block to a line `aside_m` beside its centre, then push along it: that moves and turns it.

    `angle` rad is the direction of the push; `length_m` how far the tool goes on after it could touch.
    """

    MARGIN_M = 0.02

    def __init__(
        self, angle: float, aside_m: float, length_m: float, radius_m: float, speed_m: float
    ) -> None:
        self.direction = np.array([np.cos(angle), np.sin(angle)])
        self.aside_m, self.length_m, self.speed_m = aside_m, length_m, speed_m
        self.standoff_m = radius_m + self.MARGIN_M
        self.end: Vector | None = None

    def start(self, block: Vector) -> Vector:
        """Where the tool (2,) begins to push a block whose centre is at `block` (2,) metres."""
        beside = np.array([-self.direction[1], self.direction[0]]) * self.aside_m
        return block - self.direction * self.standoff_m + beside

    def __call__(self, loop: ControlLoop) -> Vector | None:
        tool = loop.world.tool_position()[:2]
        if self.end is None:
            block = loop.world.object_pose()[:2]
            start = self.start(block)
            if np.linalg.norm(tool - start) >= 0.008:
                return limited(_around(tool, start, block, self.standoff_m) - tool, self.speed_m)
            self.end = tool + self.direction * (self.standoff_m + self.length_m)
        error = self.end - tool
        if error @ self.direction < 0.004:
            return None
        return limited(error, self.speed_m)


class PickPlace:
    """Grasp the block, carry it over `goal` (2,) metres, put it down, let go, rise; None when that is done.

    Actions are (4,): x, y, z and the gripper. A block that was lost is grasped again.
    """

    HOVER_M = 0.13
    CLEAR_M = 0.09
    # How far beside the block's centre the fingers still get around it, and how fast the funnel above widens.
    ASIDE_M, STEEPNESS = 0.012, 4.0
    SETTLE_STEPS = 6

    def __init__(self, goal: Vector, speed_m: float) -> None:
        self.goal, self.speed_m = goal, speed_m
        self.phase = "approach"
        self.waited = 0

    def __call__(self, loop: ControlLoop) -> Vector | None:
        tool, block = loop.world.tool_position(), loop.world.object_pose()[:3]
        if self.phase in ("lift", "carry", "lower") and np.linalg.norm(block - tool) > 0.04:
            self.phase, self.waited = "approach", 0
        return getattr(self, f"_{self.phase}")(tool, block)

    def _approach(self, tool: Vector, block: Vector) -> Vector:
        aside = float(np.linalg.norm(block[:2] - tool[:2]))
        if aside < self.ASIDE_M and tool[2] - block[2] < 0.005:
            self._next("close")
        # Down a funnel: no sharp bound decides between down and up, which a picture could not tell.
        height = block[2] + min(self.STEEPNESS * max(aside - self.ASIDE_M, 0.0), self.HOVER_M - block[2])
        # Sideways only above the block.
        place = block[:2] if aside < self.ASIDE_M or tool[2] > height - 0.02 else tool[:2]
        return self._towards(np.array([place[0], place[1], height]), tool, opening=True)

    def _close(self, tool: Vector, block: Vector) -> Vector:
        self.waited += 1
        if self.waited >= self.SETTLE_STEPS:
            self._next("lift")
        return self._towards(tool, tool, opening=False)

    def _lift(self, tool: Vector, block: Vector) -> Vector:
        if tool[2] > self.CLEAR_M:
            self._next("carry")
        return self._towards(np.array([tool[0], tool[1], self.HOVER_M]), tool, opening=False)

    def _carry(self, tool: Vector, block: Vector) -> Vector:
        if np.linalg.norm(self.goal - tool[:2]) < 0.008:
            self._next("lower")
        return self._towards(np.array([*self.goal, self.CLEAR_M + 0.01]), tool, opening=False)

    def _lower(self, tool: Vector, block: Vector) -> Vector:
        if tool[2] < 0.024:
            self._next("release")
        return self._towards(np.array([*self.goal, 0.02]), tool, opening=False)

    def _release(self, tool: Vector, block: Vector) -> Vector:
        self.waited += 1
        if self.waited >= self.SETTLE_STEPS:
            self._next("rise")
        return self._towards(tool, tool, opening=True)

    def _rise(self, tool: Vector, block: Vector) -> Vector | None:
        if tool[2] > self.HOVER_M - 0.01:
            return None
        return self._towards(np.array([tool[0], tool[1], self.HOVER_M]), tool, opening=True)

    def _next(self, phase: str) -> None:
        self.phase, self.waited = phase, 0

    def _towards(self, target: Vector, tool: Vector, opening: bool) -> Vector:
        motion = limited(target - tool, self.speed_m)
        return np.append(motion, self.speed_m if opening else -self.speed_m)


class Sequence:
    """One policy after the other, the next made when the one before it is done."""

    def __init__(self, count: int, make: Callable[[ControlLoop], Policy]) -> None:
        self.left, self.make = count, make
        self.policy: Policy | None = None

    def __call__(self, loop: ControlLoop) -> Vector | None:
        while True:
            if self.policy is None:
                if self.left == 0:
                    return None
                self.left, self.policy = self.left - 1, self.make(loop)
            action = self.policy(loop)
            if action is not None:
                return action
            self.policy = None


def _around(tool: Vector, target: Vector, centre: Vector, radius: float) -> Vector:
    """The next point on a way from `tool` to `target` that keeps `radius` from `centre` (all (2,) metres)."""
    line = target - tool
    share = np.clip((centre - tool) @ line / max(float(line @ line), 1e-9), 0.0, 1.0)
    if np.linalg.norm(tool + share * line - centre) >= radius * 0.9:
        return target
    from_angle = np.arctan2(*(tool - centre)[::-1])
    to_angle = np.arctan2(*(target - centre)[::-1])
    turn = (to_angle - from_angle + np.pi) % (2 * np.pi) - np.pi
    next_angle = from_angle + np.sign(turn) * min(abs(turn), 0.6)
    return centre + 1.1 * radius * np.array([np.cos(next_angle), np.sin(next_angle)])


def limited(step: Vector, limit_m: float) -> Vector:
    """`step` shortened so that no axis exceeds `limit_m`, in the same direction."""
    largest = float(np.max(np.abs(step)))
    return step if largest <= limit_m else step * (limit_m / largest)
