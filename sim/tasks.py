"""What the arm is asked to do, always by one picture of the goal.

reach        the tool tip is where the picture shows it
push         the cube's centre is; `push-far` is the same with goals 20 to 30 cm away
push-pose    a T-shaped block's centre is, and it is turned the same way, within 15°
pick-place   a cube, carried by a gripper; it counts once it is released and at rest

A goal is always the end of a scripted demonstration, so it is reachable, and its length gives the budget.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hardware.kinematics import GRIPPER, box_text
from hardware.robot import Robot
from sim.blocks import GRASP_CUBE, PUSH_CUBE, TEE, Block
from sim.conditions import NOMINAL, Conditions
from sim.control import DECISION_S, ControlLoop
from sim.errors import SimulationError
from sim.results import HOLD_S, TOLERANCE_M
from sim.scripts import MoveTo, PickPlace, Policy, PushAlong, PushTo, Sequence, Vector
from sim.world import World

PUSH_HEIGHT_M = 0.025
PEG_RADIUS_M = 0.012
TOLERANCE_RAD = float(np.radians(15.0))
REST_SPEED_M_S = 0.02
# A block at the end of the reach may leave no push that keeps all rules: then the last one drawn is taken.
MAX_DRAWS = 200
# Of 90 scenes none took more than two. An arm that does not get there takes a second for each.
MAX_DEMONSTRATIONS = 40


@dataclass(frozen=True)
class Task:
    """A task: which axes the arm acts on, which it holds, where things are put at the start.

    Boxes are in metres in the robot's base frame. `trained_as` names the task whose bundles serve this one,
    `robot` the robot file that it is for unless another is named, `play_steps` and `play_episodes` how much
    play a bundle is trained on.
    """

    name: str
    trained_as: str
    axes: tuple[str, ...]
    fixed: dict[str, float]
    tool_low: tuple[float, float, float]
    tool_high: tuple[float, float, float]
    robot: str = "panda"
    action_limit_m: float = 0.02
    block: Block | None = None
    object_low: tuple[float, float] = (0.36, -0.20)
    object_high: tuple[float, float] = (0.58, 0.20)
    object_yaw: float = np.pi
    goal_distance_m: tuple[float, float] = (0.08, 0.30)
    turns_count: bool = False
    max_demonstration_steps: int = 60
    play_steps: int = 100
    play_episodes: int = 2016

    @property
    def action_dim(self) -> int:
        return len(self.axes)

    @property
    def grasps(self) -> bool:
        return GRIPPER in self.axes

    def achieved(self, loop: ControlLoop) -> Vector:
        """What the goal is about, (4,) metres and rad: the block's centre and yaw, or the tool tip and 0."""
        if self.block is not None:
            return loop.world.object_pose()
        return np.append(loop.world.tool_position(), 0.0)

    def gap_m(self, achieved: Vector, goal: Vector) -> float:
        """Distance of two `achieved` in metres, on the table where the block stays on it.

        Where turns count it is that of the angles if that is worse, the angle's tolerance of 15° standing for
        the 3 cm of the distance's.
        """
        axes = slice(0, 2) if self.block is not None and not self.grasps else slice(0, 3)
        distance = float(np.linalg.norm(achieved[axes] - goal[axes]))
        if not self.turns_count:
            return distance
        return max(distance, float(turn_m(achieved[3], goal[3])))


def turn_m(yaw: Vector, goal: Vector) -> Vector:
    """Turns between yaws in rad as metres of distance: what is tolerated of one stands for the other's."""
    turn = np.abs((yaw - goal + np.pi) % (2 * np.pi) - np.pi)
    return np.asarray(turn / TOLERANCE_RAD * TOLERANCE_M)


_PUSH = Task(
    name="push",
    trained_as="push",
    axes=("x", "y"),
    fixed={"z": PUSH_HEIGHT_M},
    tool_low=(0.32, -0.25, PUSH_HEIGHT_M),
    tool_high=(0.61, 0.25, PUSH_HEIGHT_M),
    block=PUSH_CUBE,
    goal_distance_m=(0.07, 0.13),
)
TASKS = {
    "reach": Task(
        name="reach",
        trained_as="reach",
        axes=("x", "y", "z"),
        fixed={},
        tool_low=(0.34, -0.22, 0.04),
        tool_high=(0.58, 0.22, 0.24),
        play_steps=50,
        play_episodes=800,
    ),
    "push": _PUSH,
    "push-far": replace(_PUSH, name="push-far", goal_distance_m=(0.20, 0.30)),
    "push-pose": replace(
        _PUSH,
        name="push-pose",
        trained_as="push-pose",
        block=TEE,
        object_low=(0.40, -0.16),
        object_high=(0.55, 0.16),
        turns_count=True,
        max_demonstration_steps=90,
        play_episodes=2000,
    ),
    "pick-place": Task(
        name="pick-place",
        trained_as="pick-place",
        axes=("x", "y", "z", GRIPPER),
        fixed={},
        tool_low=(0.36, -0.20, 0.02),
        tool_high=(0.58, 0.20, 0.16),
        robot="panda_hand",
        action_limit_m=0.03,
        block=GRASP_CUBE,
        object_low=(0.38, -0.17),
        object_high=(0.56, 0.17),
        object_yaw=0.3,
        goal_distance_m=(0.08, 0.25),
        max_demonstration_steps=90,
        play_steps=120,
        play_episodes=2800,
    ),
}
TRAINED = tuple(task.name for task in TASKS.values() if task.trained_as == task.name)


def make_task(name: str) -> Task:
    """The task called `name`. Raises SimulationError for any other name."""
    if name not in TASKS:
        raise SimulationError(f"no task {name!r}; there are {', '.join(TASKS)}")
    return TASKS[name]


def make_loop(task: Task, robot: Robot, pixel_noise: float = 2.0) -> ControlLoop:
    """A fresh world for `task`, driven through servo and gate. Raises SimulationError if `robot` cannot."""
    check_robot(task, robot)
    return ControlLoop(World(robot, task.block, pixel_noise), task.axes, task.fixed)


def check_robot(task: Task, robot: Robot) -> None:
    """Raises SimulationError if `robot` cannot do `task`."""
    if task.grasps and robot.gripper is None:
        raise SimulationError(f"task {task.name} needs a gripper, robot {robot.name} has none: name another")
    low, high = robot.workspace_min, robot.workspace_max
    if np.any(low > task.tool_low) or np.any(high < task.tool_high):
        # No demonstration would ever succeed there, and a goal is the end of one.
        raise SimulationError(
            f"task {task.name} moves the tool over {box_text(task.tool_low, task.tool_high)}; "
            f"robot {robot.name} has only {box_text(low, high)}: name another robot"
        )


@dataclass(frozen=True)
class Episode:
    """A goal picture to pursue. Pictures are uint8 (H, W, 3); `goal` (4,) as in `Task.achieved`, for scoring.

    `demonstration` are the actions (A,) in metres that made the goal.
    """

    seed: int
    goal_image: NDArray[np.uint8]
    start_image: NDArray[np.uint8]
    goal: Vector
    start_distance_m: float
    demonstration: tuple[Vector, ...]
    budget_steps: int


def distance_m(task: Task, loop: ControlLoop, episode: Episode) -> float:
    """True distance to the goal, see `Task.gap_m`.

    A block that is held or still moves has not been placed: it counts as no nearer than twice the tolerance.
    """
    gap = task.gap_m(task.achieved(loop), episode.goal)
    world = loop.world
    if task.grasps and (world.object_is_touched() or world.object_speed() > REST_SPEED_M_S):
        return max(gap, 2 * TOLERANCE_M)
    return gap


def new_episode(task: Task, loop: ControlLoop, seed: int, conditions: Conditions = NOMINAL) -> Episode:
    """Make a goal by a scripted demonstration from a random start, and put the world back at that start.

    Pairs whose demonstration fails, or moves less than twice the tolerance, are drawn again. Raises
    SimulationError if that is all that is drawn.
    """
    world = loop.world
    world.restart(seed, conditions)
    rng = np.random.default_rng([seed, 0xE9])
    for _ in range(MAX_DEMONSTRATIONS):
        place_at_random(task, loop, rng)
        start = world.save()
        start_image = world.render()
        before = task.achieved(loop)
        demonstration = run_demonstration(task, loop, rng)
        goal, goal_image = task.achieved(loop), world.render()
        world.restore(start)
        world.forget(start)
        moved = task.gap_m(before, goal)
        if demonstration is not None and moved >= 2 * TOLERANCE_M:
            break
    else:
        raise SimulationError(
            f"robot {world.robot.name} ended none of {MAX_DEMONSTRATIONS} demonstrations of task "
            f"{task.name}: is its workspace where it reaches?"
        )
    loop.restart()
    return Episode(
        seed=seed,
        goal_image=goal_image,
        start_image=start_image,
        goal=goal,
        start_distance_m=moved,
        demonstration=tuple(demonstration),
        # Twice the demonstration, and the second that shows that the success is held.
        budget_steps=2 * len(demonstration) + round(HOLD_S / DECISION_S),
    )


def place_at_random(task: Task, loop: ControlLoop, rng: np.random.Generator) -> None:
    """Tool and object somewhere in their boxes, at rest, not touching."""
    world = loop.world
    while True:
        tool = rng.uniform(task.tool_low, task.tool_high)
        if task.block is None:
            break
        centre = rng.uniform(task.object_low, task.object_high)
        clear = task.block.radius * world.conditions.size + PEG_RADIUS_M + 0.01
        if task.grasps:
            # An open hand may be over the block, not around it.
            tool[2] = max(tool[2], task.block.height * world.conditions.size + 0.04)
            clear = 0.0
        if np.linalg.norm(centre - tool[:2]) > clear:
            world.place_object(centre[0], centre[1], rng.uniform(-task.object_yaw, task.object_yaw))
            break
    rotation = loop.kinematics.tool_pose(world.robot.home)[1]
    joints = world.robot.home
    for _ in range(10):
        joints = loop.kinematics.inverse(tool, rotation, joints).positions
    if world.robot.gripper is not None:
        joints = joints.copy()
        joints[-1] = world.robot.gripper.open
    world.set_joints(joints)
    loop.restart()


def run_demonstration(task: Task, loop: ControlLoop, rng: np.random.Generator) -> list[Vector] | None:
    """Run the scripted policy to a random goal; its actions, or None if it did not get there in time."""
    policy = demonstration_policy(task, loop, rng)
    actions: list[Vector] = []
    for _ in range(task.max_demonstration_steps):
        action = policy(loop)
        arrived = action is None
        actions.append(np.zeros(task.action_dim) if action is None else action)
        loop.execute(actions[-1])
        if arrived:
            return actions
    return None


def demonstration_policy(task: Task, loop: ControlLoop, rng: np.random.Generator) -> Policy:
    """A scripted policy to a goal drawn from the task's range of distances."""
    low, high = task.goal_distance_m
    speed = task.action_limit_m
    if task.turns_count:
        return Sequence(int(rng.integers(1, 4)), lambda loop: random_push(task, loop, rng, speed))
    while True:
        if task.block is None:
            start, goal = loop.world.tool_position(), rng.uniform(task.tool_low, task.tool_high)
            if low <= np.linalg.norm(goal - start) <= high:
                return MoveTo(goal, speed)
            continue
        centre = task.achieved(loop)[:2]
        angle = rng.uniform(-np.pi, np.pi)
        goal_xy = centre + rng.uniform(low, high) * np.array([np.cos(angle), np.sin(angle)])
        if np.all(goal_xy >= task.object_low) and np.all(goal_xy <= task.object_high):
            return PickPlace(goal_xy, speed) if task.grasps else PushTo(goal_xy, speed)


def random_push(task: Task, loop: ControlLoop, rng: np.random.Generator, speed_m: float) -> Policy:
    """A push along a random line that keeps the block in its box: it moves, and turns where off centre."""
    assert task.block is not None
    radius, middle = task.block.radius, (np.array(task.object_low) + task.object_high) / 2
    block, robot = loop.world.object_pose()[:2], loop.world.robot
    for _ in range(MAX_DRAWS):
        angle = rng.uniform(-np.pi, np.pi)
        length = rng.uniform(0.02, 0.14)
        aside = rng.uniform(-0.75, 0.75) * radius
        push = PushAlong(angle, aside, length, radius + PEG_RADIUS_M, speed_m)
        # Where the tool cannot get behind the block it would wait there for ever.
        start = push.start(block)
        reachable = np.all(start >= robot.workspace_min[:2]) and np.all(start <= robot.workspace_max[:2])
        end = block + length * push.direction
        inside = np.all(end >= task.object_low) and np.all(end <= task.object_high)
        if reachable and (inside or np.linalg.norm(end - middle) < np.linalg.norm(block - middle)):
            break
    return push
