"""Where the camera stands in the robot's base frame, from a board that the tool carries through its view.

Eye-to-hand: in every view  base_from_tool · tool_from_board = base_from_camera · camera_from_board,  where
the arm knows the first, the picture tells the last, and the other two are looked for.

Shah's closed form (J. Mechanisms Robotics 5(3), 2013) gives them at once, but takes every view at its word
and weighs rotation against translation by an accident of units. So it only gives a start, from the few views
on which most of the others agree (least median of squares), which views that are wrong cannot pull away. The
start is refined by what was really measured, the corners' pixels, with Huber's loss: an arm that is a
millimetre off in one view does not pull the others along. A view that still does not fit (joints read while
the arm moved, a board that was knocked) is left out and named. OpenCV's own hand-eye solvers do none of this,
and its version 5 has no Python binding for them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hardware.calibration.board import Corners
from hardware.calibration.lens import Lens
from hardware.calibration.pose import Pose
from hardware.camera.contract import Intrinsics
from hardware.errors import CalibrationError

# Views that a start is made from, and how many such choices are tried: with a quarter of the views wrong,
# some choice of 4 is all right with a probability of 1 - 1e-8.
VIEWS_OF_A_START = 4
STARTS = 50
# The tool has to turn at least this much, about two axes: else one direction stays unknown.
LEAST_TURN_RAD = np.radians(10.0)
HUBER = 1.345  # of the noise's standard deviation: 95 % efficient on Gaussian noise (Huber 1981)
MAD_TO_STD = 1.4826
# A view is left out if it fits worse than the others by this factor, and by more than pixel noise.
OUTLIER_FACTOR = 3.0
OUTLIER_PX = 2.0
MOST_LEFT_OUT = 0.25
MAX_ITERATIONS = 60
STEP = 1e-6  # m and rad, for the numeric Jacobian


@dataclass(frozen=True)
class View:
    """The board in one picture, and where the arm says its tool was."""

    base_from_tool: Pose
    corners: Corners


@dataclass(frozen=True)
class HandEye:
    """`view_px` (N,): RMS of each view, of all that were given; `kept` (N,) bool: those that counted.

    `position_std_m` and `angle_std_rad` are standard errors of the camera's pose: what it would change if the
    views had been others (jackknife), and what the lens leaves open.
    """

    base_from_camera: Pose
    tool_from_board: Pose
    view_px: NDArray[np.float64]
    kept: NDArray[np.bool_]
    position_std_m: float
    angle_std_rad: float

    @property
    def rms_px(self) -> float:
        return float(np.sqrt(np.mean(self.view_px[self.kept] ** 2)))


def solve(views: list[View], measured: Lens) -> HandEye:
    """Raises `CalibrationError` if the views do not determine the pose, or do not agree on it."""
    check_turns(views)
    lens = measured.intrinsics
    kept = np.ones(len(views), dtype=bool)
    estimate = _refine(views, lens, _start(views, lens))
    while True:
        view_px = np.array([_view_rms(view, lens, *estimate) for view in views])
        limit = max(OUTLIER_FACTOR * float(np.median(view_px[kept])), OUTLIER_PX)
        still = view_px <= limit
        if (still == kept).all():
            break
        kept = still
        if (~kept).sum() > MOST_LEFT_OUT * len(views):
            raise CalibrationError(
                f"{(~kept).sum()} of {len(views)} views do not fit the others: is the board loose, its "
                "square size wrong, or does the arm's model not match the arm?"
            )
        estimate = _refine([view for view, keep in zip(views, kept) if keep], lens, estimate)
    good = [view for view, keep in zip(views, kept) if keep]
    position_std_m, angle_std_rad = _jackknife(good, lens, estimate)
    distance_m = float(np.median([camera_from_board(view.corners, lens).position[2] for view in good]))
    # A focal length that is 1 % off puts the camera 1 % off its distance; a centre that is off turns it.
    position_std_m = float(np.hypot(position_std_m, distance_m * measured.focal_std_px / lens.fx))
    angle_std_rad = float(np.hypot(angle_std_rad, measured.centre_std_px / lens.fx))
    return HandEye(*estimate, view_px, kept, position_std_m, angle_std_rad)


def check_turns(views: list[View]) -> None:
    """Raise `CalibrationError` unless the tool was turned about two axes at least."""
    turns = np.array([(views[0].base_from_tool.inverse() @ view.base_from_tool).rotvec for view in views])
    spread = np.linalg.svd(turns - turns.mean(axis=0), compute_uv=False) / np.sqrt(len(views))
    if len(spread) < 2 or spread[1] < LEAST_TURN_RAD / 2:
        raise CalibrationError(
            "the tool was hardly turned between the views, or about one axis only: tilt it by 20° and more, "
            "forwards, sideways and around"
        )


def camera_from_board(corners: Corners, lens: Intrinsics) -> Pose:
    """From one picture alone."""
    found, rotvec, position = cv2.solvePnP(
        corners.board_m, corners.pixels, lens.matrix, np.array(lens.distortion), flags=cv2.SOLVEPNP_IPPE
    )
    if not found:
        raise CalibrationError("a view shows the board in a way that gives no pose; leave that picture out")
    return Pose.from_rotvec(rotvec.ravel(), position.ravel())


def reproject(
    view: View, lens: Intrinsics, base_from_camera: Pose, tool_from_board: Pose
) -> NDArray[np.float64]:
    """(N, 2) pixels where the view's corners should be, if the arm is where it says."""
    pose = base_from_camera.inverse() @ view.base_from_tool @ tool_from_board
    pixels, _ = cv2.projectPoints(
        view.corners.board_m.astype(np.float64),
        pose.rotvec,
        pose.position,
        lens.matrix,
        np.array(lens.distortion),
    )
    return pixels.reshape(-1, 2)


def _start(views: list[View], lens: Intrinsics) -> tuple[Pose, Pose]:
    """The closed form, of some random few views, that has the smallest median residual over all of them."""
    seen = [camera_from_board(view.corners, lens) for view in views]
    rng = np.random.default_rng(0)
    best, best_px = None, np.inf
    for _ in range(STARTS):
        chosen = rng.choice(len(views), min(VIEWS_OF_A_START, len(views)), replace=False)
        estimate = closed_form([views[i].base_from_tool for i in chosen], [seen[i] for i in chosen])
        px = float(np.median([_view_rms(view, lens, *estimate) for view in views]))
        if px < best_px:
            best, best_px = estimate, px
    if best is None:
        raise CalibrationError("no camera pose fits the views: turn the tool more between them")
    return best


def closed_form(base_from_tool: list[Pose], camera_from_board: list[Pose]) -> tuple[Pose, Pose]:
    """(base_from_camera, tool_from_board) by Shah's method, from three views or more."""
    kronecker = np.zeros((9, 9))
    for tool, board in zip(base_from_tool, camera_from_board):
        kronecker += np.kron(board.rotation, tool.rotation)
    u, _, vt = np.linalg.svd(kronecker)
    camera_rotation, board_rotation = (_rotation(vector) for vector in (u[:, 0], vt[0]))
    left = np.concatenate([np.hstack([tool.rotation, -np.eye(3)]) for tool in base_from_tool])
    right = np.concatenate(
        [
            camera_rotation @ board.position - tool.position
            for tool, board in zip(base_from_tool, camera_from_board)
        ]
    )
    positions = np.linalg.lstsq(left, right, rcond=None)[0]
    return Pose(camera_rotation, positions[3:]), Pose(board_rotation, positions[:3])


def _rotation(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation nearest to a multiple of the matrix whose columns `vector` (9,) strings together."""
    matrix = vector.reshape(3, 3, order="F")
    u, _, vt = np.linalg.svd(matrix * np.sign(np.linalg.det(matrix)))
    return u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt


def _refine(views: list[View], lens: Intrinsics, start: tuple[Pose, Pose]) -> tuple[Pose, Pose]:
    """Levenberg-Marquardt on both poses, 12 numbers, with Huber's weights."""
    estimate, damping = start, 1e-3
    errors = _errors(views, lens, *estimate)
    for _ in range(MAX_ITERATIONS):
        edge = _edge(errors)
        weights = _weights(errors, edge)
        jacobian = _jacobian(views, lens, *estimate)
        normal = jacobian.T @ (weights[:, None] * jacobian)
        gradient = jacobian.T @ (weights * errors.ravel())
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-12), -gradient)
        moved = _moved(*estimate, step)
        moved_errors = _errors(views, lens, *moved)
        if _cost(moved_errors, edge) < _cost(errors, edge):
            estimate, errors, damping = moved, moved_errors, damping / 10.0
            if np.abs(step).max() < 1e-9:
                break
        else:
            damping *= 10.0
            if damping > 1e9:
                break
    return estimate


def _errors(views: list[View], lens: Intrinsics, camera: Pose, board: Pose) -> NDArray[np.float64]:
    """(N, 2) pixels, of all views."""
    return np.concatenate([reproject(view, lens, camera, board) - view.corners.pixels for view in views])


def _edge(errors: NDArray[np.float64]) -> float:
    """Where Huber's loss goes from square to linear, in pixels."""
    return max(HUBER * MAD_TO_STD * float(np.median(np.linalg.norm(errors, axis=1))), 1e-9)


def _weights(errors: NDArray[np.float64], edge: float) -> NDArray[np.float64]:
    """(2 N,)"""
    sizes = np.linalg.norm(errors, axis=1)
    return np.repeat(np.minimum(1.0, edge / np.maximum(sizes, 1e-12)), 2)


def _cost(errors: NDArray[np.float64], edge: float) -> float:
    """Huber's loss."""
    sizes = np.linalg.norm(errors, axis=1)
    return float(np.where(sizes <= edge, sizes**2 / 2, edge * (sizes - edge / 2)).sum())


def _jacobian(views: list[View], lens: Intrinsics, camera: Pose, board: Pose) -> NDArray[np.float64]:
    """(2 N, 12): how the errors change with a small motion of either pose in its own frame."""
    columns = []
    for i in range(12):
        step = np.zeros(12)
        step[i] = STEP
        ahead = _errors(views, lens, *_moved(camera, board, step))
        behind = _errors(views, lens, *_moved(camera, board, -step))
        columns.append((ahead - behind).ravel() / (2 * STEP))
    return np.stack(columns, axis=1)


def _moved(camera: Pose, board: Pose, step: NDArray[np.float64]) -> tuple[Pose, Pose]:
    """`step` (12,): rotation vector and translation of each."""
    return camera @ Pose.from_rotvec(step[:3], step[3:6]), board @ Pose.from_rotvec(step[6:9], step[9:])


def _view_rms(view: View, lens: Intrinsics, camera: Pose, board: Pose) -> float:
    errors = reproject(view, lens, camera, board) - view.corners.pixels
    return float(np.sqrt(np.mean(np.sum(errors**2, axis=1))))


def _jackknife(views: list[View], lens: Intrinsics, estimate: tuple[Pose, Pose]) -> tuple[float, float]:
    """Standard errors of the camera's position (m) and angle (rad), from leaving out each view in turn.

    What one view less would change is taken from one Gauss-Newton step, as the estimate is that near.
    """
    count = len(views)
    errors = _errors(views, lens, *estimate)
    weights = _weights(errors, _edge(errors))
    jacobian = _jacobian(views, lens, *estimate)
    ends = np.cumsum([2 * len(view.corners.pixels) for view in views])
    changes = []
    for start, end in zip([0, *ends], ends):
        rest = np.r_[0:start, end : len(weights)]
        normal = jacobian[rest].T @ (weights[rest, None] * jacobian[rest])
        changes.append(np.linalg.solve(normal, -jacobian[rest].T @ (weights * errors.ravel())[rest])[:6])
    spread = np.array(changes) - np.mean(changes, axis=0)
    variance = (count - 1) / count * np.sum(spread**2, axis=0)
    return float(np.sqrt(variance[3:].sum())), float(np.sqrt(variance[:3].sum()))
