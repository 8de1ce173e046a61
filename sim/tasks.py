"""What the arm is asked to do: `reach` (tool tip) and `push` (object) to where the goal picture shows it.

A goal is always the end of a scripted demonstration, so it is reachable, and its length gives the budget.
The scripts see the true state; nothing that plans from pictures does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hardware.robot import Robot
from sim.control import DECISION_S, ControlLoop
from sim.errors import SimulationError
from sim.results import HOLD_S, TOLERANCE_M
from sim.world import Cube, World

ACTION_LIMIT_M = 0.02
MAX_DEMONSTRATION_STEPS = 60
PUSH_HEIGHT_M = 0.025
PEG_RADIUS_M = 0.012

Vector = NDArray[np.float64]
Policy = Callable[[ControlLoop], Vector | None]


@dataclass(frozen=True)
class Task:
    """A task: which axes the arm acts on, which it holds, where things are put at the start."""

    name: str
    axes: tuple[str, ...]
    fixed: dict[str, float]
    tool_low: tuple[float, float, float]
    tool_high: tuple[float, float, float]
    cube: Cube | None = None
    object_low: tuple[float, float] = (0.36, -0.20)
    object_high: tuple[float, float] = (0.58, 0.20)
    goal_distance_m: tuple[float, float] = (0.08, 0.30)

    @property
    def action_dim(self) -> int:
        return len(self.axes)

    def achieved(self, loop: ControlLoop) -> Vector:
        """What the goal is about, (3,) metres: the object where there is one, else the tool tip."""
        position = loop.world.object_position() if self.cube is not None else loop.world.tool_position()
        assert position is not None
        return position


TASKS = {
    "reach": Task(
        name="reach",
        axes=("x", "y", "z"),
        fixed={},
        tool_low=(0.34, -0.22, 0.04),
        tool_high=(0.58, 0.22, 0.24),
    ),
    "push": Task(
        name="push",
        axes=("x", "y"),
        fixed={"z": PUSH_HEIGHT_M},
        tool_low=(0.32, -0.25, PUSH_HEIGHT_M),
        tool_high=(0.61, 0.25, PUSH_HEIGHT_M),
        cube=Cube(),
        goal_distance_m=(0.07, 0.13),
    ),
}


def make_task(name: str) -> Task:
    """The task called `name`. Raises SimulationError for any other name."""
    if name not in TASKS:
        raise SimulationError(f"no task {name!r}; there are {', '.join(TASKS)}")
    return TASKS[name]


def make_loop(task: Task, robot: Robot, pixel_noise: float = 2.0) -> ControlLoop:
    """A fresh world for `task`, driven through servo and gate."""
    return ControlLoop(World(robot, task.cube, pixel_noise), task.axes, task.fixed)


@dataclass(frozen=True)
class Episode:
    """A goal picture to pursue. Pictures are uint8 (H, W, 3); `goal` (3,) metres is for scoring only."""

    seed: int
    goal_image: NDArray[np.uint8]
    start_image: NDArray[np.uint8]
    goal: Vector
    start_distance_m: float
    demonstration_steps: int
    budget_steps: int


def distance_m(task: Task, loop: ControlLoop, episode: Episode) -> float:
    """True distance to the goal: 3-D for `reach`, on the table for `push`."""
    gap = task.achieved(loop) - episode.goal
    return float(np.linalg.norm(gap[:2] if task.cube is not None else gap))


def new_episode(task: Task, loop: ControlLoop, seed: int) -> Episode:
    """Make a goal by a scripted demonstration from a random start, and put the world back at that start.

    Pairs whose demonstration fails, or moves less than twice the tolerance, are drawn again.
    """
    world = loop.world
    world.restart(seed)
    rng = np.random.default_rng([seed, 0xE9])
    while True:
        place_at_random(task, loop, rng)
        start = world.save()
        start_image = world.render()
        before = task.achieved(loop)
        steps = run_demonstration(task, loop, rng)
        goal, goal_image = task.achieved(loop), world.render()
        world.restore(start)
        world.forget(start)
        moved = float(np.linalg.norm(goal - before))
        if steps is not None and moved >= 2 * TOLERANCE_M:
            break
    loop.restart()
    return Episode(
        seed=seed,
        goal_image=goal_image,
        start_image=start_image,
        goal=goal,
        start_distance_m=moved,
        demonstration_steps=steps,
        # Twice the demonstration, and the second that shows that the success is held.
        budget_steps=2 * steps + round(HOLD_S / DECISION_S),
    )


def place_at_random(task: Task, loop: ControlLoop, rng: np.random.Generator) -> None:
    """Tool and object somewhere in their boxes, at rest, not touching."""
    world = loop.world
    while True:
        tool = rng.uniform(task.tool_low, task.tool_high)
        if task.cube is None:
            break
        centre = rng.uniform(task.object_low, task.object_high)
        if np.linalg.norm(centre - tool[:2]) > task.cube.size / np.sqrt(2) + PEG_RADIUS_M + 0.01:
            world.place_object(centre[0], centre[1], rng.uniform(-np.pi, np.pi))
            break
    rotation = loop.kinematics.tool_pose(world.robot.home)[1]
    joints = world.robot.home
    for _ in range(10):
        joints = loop.kinematics.inverse(tool, rotation, joints).positions
    world.set_joints(joints)
    loop.restart()


def run_demonstration(task: Task, loop: ControlLoop, rng: np.random.Generator) -> int | None:
    """Run the scripted policy to a random goal; its length in decisions, or None if it did not get there."""
    policy = demonstration_policy(task, loop, rng)
    for step in range(MAX_DEMONSTRATION_STEPS):
        action = policy(loop)
        if action is None:
            loop.execute(np.zeros(task.action_dim))
            return step + 1
        loop.execute(action)
    return None


def demonstration_policy(task: Task, loop: ControlLoop, rng: np.random.Generator) -> Policy:
    """A scripted policy to a goal drawn from the task's range of distances."""
    low, high = task.goal_distance_m
    while True:
        if task.cube is None:
            start, goal = loop.world.tool_position(), rng.uniform(task.tool_low, task.tool_high)
            if low <= np.linalg.norm(goal - start) <= high:
                return MoveTo(goal)
            continue
        centre = task.achieved(loop)[:2]
        angle = rng.uniform(-np.pi, np.pi)
        goal_xy = centre + rng.uniform(low, high) * np.array([np.cos(angle), np.sin(angle)])
        if np.all(goal_xy >= task.object_low) and np.all(goal_xy <= task.object_high):
            return PushTo(goal_xy)


class MoveTo:
    """Move the tool straight to `goal` (A,) metres; None when it is there."""

    def __init__(self, goal: Vector, speed_m: float = ACTION_LIMIT_M) -> None:
        self.goal = goal
        self.speed_m = speed_m

    def __call__(self, loop: ControlLoop) -> Vector | None:
        error = self.goal - loop.world.tool_position()[: len(self.goal)]
        if np.linalg.norm(error) < 0.004:
            return None
        return limited(error, self.speed_m)


class PushTo:
    """Go around behind the cube, then push it until its centre is at `goal` (2,) metres; None when there."""

    STANDOFF_M = 0.065

    def __init__(self, goal: Vector, speed_m: float = ACTION_LIMIT_M) -> None:
        self.goal = goal
        self.speed_m = speed_m
        self.behind = False

    def __call__(self, loop: ControlLoop) -> Vector | None:
        position = loop.world.object_position()
        assert position is not None
        cube, tool = position[:2], loop.world.tool_position()[:2]
        to_goal = self.goal - cube
        distance = float(np.linalg.norm(to_goal))
        if distance < 0.006:
            return None
        direction = to_goal / distance
        offset = tool - cube
        along = float(offset @ direction)
        aside = offset - along * direction
        if self.behind and (along > 0.0 or np.linalg.norm(aside) > 0.035):
            self.behind = False
        if not self.behind:
            target = cube - direction * self.STANDOFF_M
            if np.linalg.norm(tool - target) < 0.012:
                self.behind = True
            else:
                return limited(_around(tool, target, cube, self.STANDOFF_M) - tool, self.speed_m)
        # Steer towards the line behind the centre while pushing; slow down over the last centimetres.
        speed = min(self.speed_m, 0.004 + 0.5 * distance)
        return limited(direction * speed - 0.8 * aside, self.speed_m)


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
