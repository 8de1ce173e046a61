"""Where an arm can work with its tool pointing straight down: how it stands, its home and its workspace.

    proposal = propose(robot)     # `robot`'s own home and workspace are not looked at

Everything is tried with the inverse kinematics that will drive the arm. Positions are in metres, with the
table at z = 0 and the arm facing +x.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hardware.errors import RobotError
from hardware.kinematics import Kinematics
from hardware.robot import Robot, Workspace

Array = NDArray[np.float64]

# The grid is made for arms of this reach (joint to joint to tool tip); a shorter arm gets a smaller one.
FULL_REACH_M = 0.85
GRID_X = np.arange(0.10, 0.95, 0.01)
GRID_Y = np.linspace(-0.26, 0.26, 5)
GRID_Z = np.arange(0.01, 0.42, 0.08)
MAX_WIDTH_X = 0.32
HOME_HEIGHT_M = 0.12
# The middle of the tasks, and the box they use: a workspace that holds it is worth more than a larger one. An
# arm that cannot reach it from the origin is moved back or forth, each metre at the price of so many m³.
MIDDLE_X = 0.46
TASK_BOX = (np.array([0.32, -0.25, 0.025]), np.array([0.61, 0.25, 0.24]))
TASK_BOX_WEIGHT = 10.0
MOVE_PRICE_M2 = 0.1

# A place counts as reached if the joints could move the tool this fast in any direction there, with every
# joint above the table. The servo shortens what a planner wants to do faster.
TOOL_SPEED_M_S = 0.12
MAX_POSITION_ERROR_M = 5e-4
MAX_ROTATION_ERROR_RAD = 5e-3
MIN_LIMIT_DISTANCE = 0.03
JOINT_HEIGHT_M = 0.03
MAX_SOLUTIONS = 10
SETTLING = 60


class Box(NamedTuple):
    """Corners (3,) of a box in the arm's own frame, what it is worth, and where the arm then stands."""

    low: Array
    high: Array
    worth: float
    stand_x: float


class Proposal(NamedTuple):
    """How far forward (m) the arm stands, its home (J,), and its workspace from where it stands."""

    stand_x: float
    home: Array
    workspace: Workspace

    def holds_the_tasks(self) -> bool:
        low, high = np.array(self.workspace.min), np.array(self.workspace.max)
        return bool((low <= TASK_BOX[0]).all() and (high >= TASK_BOX[1]).all())


def propose(robot: Robot) -> Proposal:
    """Where the arm should stand, a home with the tool straight down over the workspace, and that workspace.

    Of the postures that inverse kinematics finds from many starts and for eight headings of the tool, the
    ones nearest to the middle of the joints' limits are tried; the most useful box wins. Raises `RobotError`
    if no box is reached with the tool pointing down.
    """
    scale = min(1.0, _reach(robot) / FULL_REACH_M)
    best: tuple[Box, Array] | None = None
    for posture in _postures_down(robot, scale):
        found = _box_below(robot, posture, scale)
        if found is not None and (best is None or found[0].worth > best[0].worth + 1e-9):
            best = found
    if best is None:
        raise RobotError(
            f"with {robot.tool_link}'s z axis pointing straight down and its heading held, "
            f"{len(robot.joints)} joints reach no box over the table in front of the arm (+x); name a "
            "--tool-link whose z points out of the tool, on an arm with six joints or more"
        )
    box, home = best
    stand = np.array([box.stand_x, 0.0, 0.0])
    return Proposal(box.stand_x, home, Workspace(min=_corner(box.low + stand), max=_corner(box.high + stand)))


def _box_below(robot: Robot, posture: Array, scale: float) -> tuple[Box, Array] | None:
    """The best box for an arm that keeps near `posture`, and the home (J,) over the middle of it."""
    first = _best_box(_with(robot, posture), scale)
    if first is None:
        return None
    middle = (first.low + first.high) / 2
    middle[2] = np.clip(HOME_HEIGHT_M * scale, first.low[2], first.high[2])
    home = _settled(_with(robot, posture), middle, posture)
    if home is None:
        return None
    box = _best_box(_with(robot, home), scale)  # from the home that it will have
    return None if box is None else (box, home)


def _postures_down(robot: Robot, scale: float, count: int = 3) -> list[Array]:
    """Postures with the tool down somewhere in front of the arm, the most comfortable first."""
    lower, upper = robot.position_lower, robot.position_upper
    middle = np.clip((lower + upper) / 2, -np.pi, np.pi)
    kinematics = Kinematics(_with(robot, middle))
    rng = np.random.default_rng(0)
    span = np.minimum((upper - lower) / 2, np.pi / 2)
    starts = [middle, *np.clip(middle + rng.uniform(-span, span, (11, len(middle))), lower, upper)]
    for x, z in itertools.product((MIDDLE_X, 0.36, 0.56, 0.24), (HOME_HEIGHT_M, 0.24)):
        place = np.array([x, 0.0, z]) * scale
        found = [
            q
            for heading in np.arange(8) * np.pi / 4
            for start in starts
            if (q := _solve(kinematics, place, start, heading_rotation(heading))) is not None
            and kinematics.joint_origins(q)[1:, 2].min(initial=np.inf) > JOINT_HEIGHT_M
        ]
        if found:
            found.sort(key=lambda q: float(np.linalg.norm(q - middle)))
            distinct: list[Array] = []
            for q in found:
                if all(np.abs(q - other).max() > 0.5 for other in distinct):
                    distinct.append(q)
            return [_planar(robot, q) for q in distinct[:count]]
    return []


def heading_rotation(heading: float) -> Array:
    """(3, 3): the tool's z axis straight down, its x axis turned by `heading` rad from the base's."""
    c, s = np.cos(heading), np.sin(heading)
    return np.array([[c, s, 0.0], [s, -c, 0.0], [0.0, 0.0, -1.0]])


def _best_box(robot: Robot, scale: float) -> Box | None:
    """The most useful box of grid points that are all reached from `robot`'s home."""
    xs, ys, zs = GRID_X * scale, GRID_Y * scale, GRID_Z * scale
    reached = _reached(robot, xs, ys, zs)
    best: Box | None = None
    most = round(MAX_WIDTH_X / (GRID_X[1] - GRID_X[0]))
    centre = len(ys) // 2
    for i, half, top in itertools.product(range(len(xs)), range(1, centre + 1), range(2, len(zs))):
        rows = np.all(reached[:, centre - half : centre + half + 1, : top + 1], axis=(1, 2))
        for j in range(i + 2, min(i + most, len(xs) - 1) + 1):
            if not np.all(rows[i : j + 1]):
                break
            low = np.array([xs[i], ys[centre - half], zs[0]])
            high = np.array([xs[j], ys[centre + half], zs[top]])
            stand = np.array([round(MIDDLE_X * scale - (xs[i] + xs[j]) / 2, 4), 0.0, 0.0])
            shared = np.minimum(high + stand, TASK_BOX[1]) - np.maximum(low + stand, TASK_BOX[0])
            worth = float(
                TASK_BOX_WEIGHT * np.prod(np.maximum(shared, 0.0))
                + np.prod(high - low)
                - MOVE_PRICE_M2 * abs(stand[0])
            )
            if best is None or worth > best.worth + 1e-9:
                best = Box(low, high, worth, float(stand[0]))
    return best


def _reached(robot: Robot, xs: Array, ys: Array, zs: Array) -> NDArray[np.bool_]:
    """(X, Y, Z): whether inverse kinematics from home gets to each place, comfortably."""
    kinematics = Kinematics(robot)
    rotation = kinematics.tool_pose(robot.home)[1]
    reached = np.zeros((len(xs), len(ys), len(zs)), dtype=bool)
    for index in np.ndindex(*reached.shape):
        place = np.array([xs[index[0]], ys[index[1]], zs[index[2]]])
        q = _solve(kinematics, place, robot.home, rotation)
        reached[index] = q is not None and _comfortable(kinematics, q)
    return reached


def _comfortable(kinematics: Kinematics, q: Array) -> bool:
    robot = kinematics.robot
    if np.minimum(q - robot.position_lower, robot.position_upper - q).min() < MIN_LIMIT_DISTANCE:
        return False
    if kinematics.joint_origins(q)[1:, 2].min(initial=np.inf) < JOINT_HEIGHT_M:
        return False
    speeds = np.linalg.norm(np.linalg.pinv(kinematics.jacobian(q))[:, :3], axis=1) * TOOL_SPEED_M_S
    return bool((speeds <= robot.velocity_limits).all())


def _solve(kinematics: Kinematics, place: Array, start: Array, rotation: Array | None = None) -> Array | None:
    """Joints that bring the tool there, found from `start`; None if it is not reached."""
    if rotation is None:
        rotation = kinematics.tool_pose(start)[1]
    q, before = start, np.inf
    for _ in range(MAX_SOLUTIONS):
        solution = kinematics.inverse(place, rotation, q)
        q = solution.positions
        left = solution.position_error_m + solution.rotation_error_rad
        if (
            solution.position_error_m < MAX_POSITION_ERROR_M
            and solution.rotation_error_rad < MAX_ROTATION_ERROR_RAD
        ):
            return q
        if left > 0.9 * before:
            return None
        before = left
    return None


def _settled(robot: Robot, place: Array, start: Array) -> Array | None:
    """Joints that bring the tool there from `start`, heading kept, with spare joints at `robot`'s home."""
    kinematics = Kinematics(robot)
    q, rotation = _solve(kinematics, place, start), kinematics.tool_pose(start)[1]
    for _ in range(SETTLING):
        if q is None:
            return None
        q = _solve(kinematics, place, q, rotation)
    return q


def _planar(robot: Robot, q: Array) -> Array:
    """The same tool pose with spare joints turned so that the elbow stands over the plane y = 0.

    Gradient descent on the sum of the joints' y², in the null space of the tool's Jacobian.
    """
    kinematics = Kinematics(robot)
    place, rotation = kinematics.tool_pose(q)

    def aside(joints: Array) -> float:
        return float((kinematics.joint_origins(joints)[:, 1] ** 2).sum())

    rate = 4.0
    while rate > 0.1:
        jacobian = kinematics.jacobian(q)
        spare = np.eye(len(q)) - np.linalg.pinv(jacobian, rcond=1e-3) @ jacobian
        gradient = np.array([aside(q + step) - aside(q - step) for step in 1e-4 * np.eye(len(q))]) / 2e-4
        moved = np.clip(q - rate * spare @ gradient, robot.position_lower, robot.position_upper)
        solved = _solve(Kinematics(_with(robot, moved)), place, moved, rotation)
        if solved is not None and aside(solved) < aside(q) - 1e-9:
            q = solved
        else:
            rate /= 2
    return q


def _reach(robot: Robot) -> float:
    """The length of the outstretched arm in metres: the sum of the distances from joint to joint to tool."""
    kinematics = Kinematics(robot)
    q = np.zeros(len(robot.joints))
    points = np.vstack([kinematics.joint_origins(q), kinematics.tool_position(q)])
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())


def _corner(place: Array) -> tuple[float, float, float]:
    x, y, z = (round(float(value), 4) for value in place)
    return x, y, z


def _with(robot: Robot, home: Array) -> Robot:
    content = robot.model_dump()
    for joint, angle in zip(content["joints"], home):
        joint["home"] = float(angle)
    return Robot.model_validate(content)
