"""The script for push-pose: try many pushes in a sketch of the world, do the best one, look, try again."""

from __future__ import annotations

import numpy as np
import pybullet
from numpy.typing import NDArray
from pybullet_utils.bullet_client import BulletClient

from sim.blocks import Block
from sim.conditions import Conditions
from sim.control import ControlLoop
from sim.scripts import PushAlong, Vector
from sim.tasks import PEG_RADIUS_M, Task, turn_m

PEG_LENGTH_M = 0.14
SKETCH_HZ = 240
# An arm's. Faster, the block slides on.
SKETCH_SPEED_M_S = 0.2
# How far apart the states of a push are that are looked at.
SPACING_M = 0.005

LINES = 24
AIMED_SHARE = 0.5
AIM_STD_RAD = 0.4
LONGEST_M = 0.16
# What a metre of the tool's way to a push, and of the push itself, is worth in metres of the gap.
WAY_WEIGHT, PUSH_WEIGHT = 0.03, 0.01
LEAST_GAIN_M = 0.005
CLOSE_M = 0.015
# Outside the box that it starts in the block is hard to get around.
MARGIN_M = 0.03


class PushSketch:
    """A block on the table and a peg without an arm: what a push would do, in ten milliseconds."""

    def __init__(self, block: Block, conditions: Conditions) -> None:
        bullet = self._bullet = BulletClient(pybullet.DIRECT)
        bullet.setGravity(0.0, 0.0, -9.81)
        bullet.setTimeStep(1.0 / SKETCH_HZ)
        table = bullet.createCollisionShape(pybullet.GEOM_BOX, halfExtents=(0.6, 0.6, 0.02))
        bullet.createMultiBody(0.0, table, -1, (0.45, 0.0, -0.02))
        size = conditions.size
        shape = bullet.createCollisionShapeArray(
            shapeTypes=[pybullet.GEOM_BOX] * len(block.boxes),
            halfExtents=block.halves(size),
            collisionFramePositions=block.centres(size),
        )
        self._height = block.height / 2 * size
        self._block = bullet.createMultiBody(
            block.mass * conditions.mass, shape, -1, (0.5, 0.0, self._height)
        )
        bullet.changeDynamics(self._block, -1, lateralFriction=block.friction * conditions.friction)
        peg = bullet.createCollisionShape(pybullet.GEOM_CYLINDER, radius=PEG_RADIUS_M, height=PEG_LENGTH_M)
        self._peg = bullet.createMultiBody(1.0, peg, -1, (0.0, 0.0, 0.1))
        self._hold = bullet.createConstraint(
            self._peg, -1, -1, -1, pybullet.JOINT_FIXED, (0, 0, 0), (0, 0, 0), (0.0, 0.0, 0.1)
        )

    def push(self, pose: Vector, start: Vector, end: Vector) -> Vector:
        """The peg goes straight from `start` to `end`, both (2,) metres, from a block that rests at `pose`
        (x, y, yaw). What there is every few millimetres: the peg's way so far, the block's pose, (N, 4)."""
        bullet, length = self._bullet, float(np.linalg.norm(end - start))
        turned = bullet.getQuaternionFromEuler((0.0, 0.0, pose[2]))
        for body, place, rotation in (
            (self._block, (pose[0], pose[1], self._height), turned),
            (self._peg, (*start, 0.1), (0, 0, 0, 1)),
        ):
            bullet.resetBasePositionAndOrientation(body, place, rotation)
            bullet.resetBaseVelocity(body, (0, 0, 0), (0, 0, 0))
        steps = max(round(length / SKETCH_SPEED_M_S * SKETCH_HZ), 1)
        every = max(round(SPACING_M / SKETCH_SPEED_M_S * SKETCH_HZ), 1)
        seen = []
        for step in range(1, steps + 1):
            there = start + (end - start) * (step / steps)
            bullet.changeConstraint(self._hold, (*there, 0.1), maxForce=200.0)
            bullet.stepSimulation()
            if step % every == 0 or step == steps:
                (x, y, _), rotation = bullet.getBasePositionAndOrientation(self._block)
                seen.append((length * step / steps, x, y, bullet.getEulerFromQuaternion(rotation)[2]))
        return np.array(seen)


class PushToPose:
    """Pushes until the block is at `goal` (x, y, yaw); None when it is, or no push promises to help.

    Of many lines to push along, every place to stop on each is compared. It sees the true pose, as all
    scripts do.
    """

    def __init__(
        self, task: Task, goal: Vector, speed_m: float, rng: np.random.Generator, sketch: PushSketch
    ) -> None:
        assert task.block is not None
        self.task, self.goal, self.speed_m, self.rng, self.sketch = task, goal, speed_m, rng, sketch
        self.radius_m = task.block.radius
        self.push: PushAlong | None = None

    def __call__(self, loop: ControlLoop) -> Vector | None:
        while True:
            if self.push is None:
                self.push = self.best_push(loop)
                if self.push is None:
                    return None
            action = self.push(loop)
            if action is not None:
                return action
            self.push = None

    def best_push(self, loop: ControlLoop) -> PushAlong | None:
        pose, tool = loop.world.object_pose()[[0, 1, 3]], loop.world.tool_position()[:2]
        robot = loop.world.robot
        now = float(self.gaps_m(pose))
        if now < CLOSE_M:
            return None
        best, least = None, now - LEAST_GAIN_M
        for _ in range(LINES):
            push = self._line(pose)
            start = push.start(pose[:2])
            end = start + push.direction * (push.standoff_m + push.length_m)
            # What arms do at the edge of their workspace is not sketched.
            if not all(
                np.all(robot.workspace_min[:2] <= point) and np.all(point <= robot.workspace_max[:2])
                for point in (start, end)
            ):
                continue
            way, *poses = self.sketch.push(pose, start, end).T
            places = np.stack(poses, axis=1)
            costs = self.gaps_m(places) + PUSH_WEIGHT * way + WAY_WEIGHT * np.linalg.norm(start - tool)
            costs = np.where(self._inside(places[:, :2]), costs, np.inf)
            stop = int(np.argmin(costs))
            if costs[stop] < least:
                best, least = push, float(costs[stop])
                best.length_m = float(way[stop]) - push.standoff_m
        return best

    def gaps_m(self, poses: Vector) -> Vector:
        """How far `poses` (..., 3) are from the goal: place and turn together, in metres of place."""
        return np.asarray(
            np.linalg.norm(poses[..., :2] - self.goal[:2], axis=-1) + turn_m(poses[..., 2], self.goal[2])
        )

    def _line(self, pose: Vector) -> PushAlong:
        rng, to_goal = self.rng, self.goal[:2] - pose[:2]
        angle, length = rng.uniform(-np.pi, np.pi), LONGEST_M / 2
        if rng.random() < AIMED_SHARE:
            angle = np.arctan2(to_goal[1], to_goal[0]) + rng.normal(0.0, AIM_STD_RAD)
            length = min(float(np.linalg.norm(to_goal)) + 2 * MARGIN_M, LONGEST_M)
        aside = rng.uniform(-0.75, 0.75) * self.radius_m
        return PushAlong(angle, aside, length, self.radius_m + PEG_RADIUS_M, self.speed_m)

    def _inside(self, places: Vector) -> NDArray[np.bool_]:
        low, high = np.array(self.task.object_low), np.array(self.task.object_high)
        inside = (places >= low - MARGIN_M) & (places <= high + MARGIN_M)
        return np.asarray(inside.all(axis=-1))
