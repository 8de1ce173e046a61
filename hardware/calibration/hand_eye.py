"""Where the camera stands in the robot's base frame, from a board that the tool carries through its view.

Eye-to-hand: in every view  base_from_tool · tool_from_board = base_from_camera · camera_from_board,  where
the arm knows the first, the picture tells the last, and the other two are looked for.

Shah's closed form (J. Mechanisms Robotics 5(3), 2013) gives them at once, but takes every view at its word
and weighs rotation against translation by an accident of units. So it only gives a start, from the few views
on which most of the others agree (least median of squares), which views that are wrong cannot pull away. The
start is refined by what was really measured, the corners' pixels, with Huber's loss: an arm that is a
millimetre off in one view does not pull the others along. The lens' focal lengths and centre are refined with
it, as far as their own uncertainty lets them: from a small board alone they are known to half a percent or
so, which is millimetres in the camera's distance, while the arm measures in metres. A view that still does
not fit (joints read while the arm moved, a board that was knocked) is left out and named. OpenCV's own
hand-eye solvers do none of this, and its version 5 has no Python binding for them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
LENS_STEP_PX = 1e-3


@dataclass(frozen=True)
class View:
    """The board in one picture, and where the arm says its tool was."""

    base_from_tool: Pose
    corners: Corners


@dataclass(frozen=True)
class HandEye:
    """`view_px` (N,): RMS of each view, of all that were given; `kept` (N,) bool: those that counted.

    `lens` is the measured one, refined. `position_std_m` and `angle_std_rad` are standard errors of the
    camera's pose: what it would change if the views had been others, and what pixels and lens leave open.
    """

    base_from_camera: Pose
    tool_from_board: Pose
    lens: Intrinsics
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
    camera, board = _start(views, measured.intrinsics)
    kept = np.ones(len(views), dtype=bool)
    estimate = _refine(views, measured, _Estimate(camera, board, measured.intrinsics))
    while True:
        view_px = np.array([_view_rms(view, estimate) for view in views])
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
        estimate = _refine([view for view, keep in zip(views, kept) if keep], measured, estimate)
    good = [view for view, keep in zip(views, kept) if keep]
    position_std_m, angle_std_rad = _standard_errors(good, measured, estimate)
    return HandEye(
        estimate.camera, estimate.board, estimate.lens, view_px, kept, position_std_m, angle_std_rad
    )


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
    view: View, base_from_camera: Pose, tool_from_board: Pose, lens: Intrinsics
) -> NDArray[np.float64]:
    """(N, 2) pixels where the view's corners should be, if the arm is where it says."""
    return _project([view], _Estimate(base_from_camera, tool_from_board, lens))


def _start(views: list[View], lens: Intrinsics) -> tuple[Pose, Pose]:
    """The closed form, of some random few views, that has the smallest median residual over all of them."""
    seen = [camera_from_board(view.corners, lens) for view in views]
    rng = np.random.default_rng(0)
    best, best_px = None, np.inf
    for _ in range(STARTS):
        chosen = rng.choice(len(views), min(VIEWS_OF_A_START, len(views)), replace=False)
        estimate = closed_form([views[i].base_from_tool for i in chosen], [seen[i] for i in chosen])
        px = float(np.median([_view_rms(view, _Estimate(*estimate, lens)) for view in views]))
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


@dataclass(frozen=True)
class _Estimate:
    camera: Pose
    board: Pose
    lens: Intrinsics

    def moved(self, step: NDArray[np.floating]) -> _Estimate:
        """By `step` (16,): rotation vector and translation of either pose in its frame; fx, fy, cx, cy."""
        fx, fy, cx, cy = step[12:] + _pixels(self.lens)
        return _Estimate(
            self.camera @ Pose.from_rotvec(step[:3], step[3:6]),
            self.board @ Pose.from_rotvec(step[6:9], step[9:12]),
            replace(self.lens, fx=float(fx), fy=float(fy), cx=float(cx), cy=float(cy)),
        )


def _refine(views: list[View], measured: Lens, start: _Estimate) -> _Estimate:
    """Levenberg-Marquardt on both poses and the lens, 16 numbers, with Huber's weights."""
    estimate, damping = start, 1e-3
    for _ in range(MAX_ITERATIONS):
        noise_px = _noise_px(views, estimate)
        normal, gradient = _normal_equations(views, measured, estimate, noise_px)
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -gradient)
        moved = estimate.moved(step)
        if _cost(views, measured, moved, noise_px) < _cost(views, measured, estimate, noise_px):
            estimate, damping = moved, damping / 10.0
            if np.abs(step[:12]).max() < 1e-9:
                break
        else:
            damping *= 10.0
            if damping > 1e9:
                break
    return estimate


def _normal_equations(
    views: list[View], measured: Lens, estimate: _Estimate, noise_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(16, 16) and (16,), in square pixels."""
    errors = _errors(views, estimate)
    weights = np.repeat(np.minimum(1.0, HUBER * noise_px / np.maximum(_sizes(errors), 1e-12)), 2)
    jacobian = _jacobian(views, estimate)
    normal = jacobian.T @ (weights[:, None] * jacobian)
    gradient = jacobian.T @ (weights * errors.ravel())
    stiffness = (noise_px / measured.std_px) ** 2
    normal[12:, 12:] += np.diag(stiffness)
    gradient[12:] += stiffness * (_pixels(estimate.lens) - _pixels(measured.intrinsics))
    return normal, gradient


def _cost(views: list[View], measured: Lens, estimate: _Estimate, noise_px: float) -> float:
    """Huber's loss of the corners, and the square one of what the lens departs from how it was measured."""
    sizes, edge = _sizes(_errors(views, estimate)), HUBER * noise_px
    corners = np.where(sizes <= edge, sizes**2 / 2, edge * (sizes - edge / 2)).sum()
    departed = (_pixels(estimate.lens) - _pixels(measured.intrinsics)) / measured.std_px
    return float(corners + np.sum((noise_px * departed) ** 2) / 2)


def _noise_px(views: list[View], estimate: _Estimate) -> float:
    """The standard deviation of a corner's distance from where it should be, whatever a few of them do."""
    return max(MAD_TO_STD * float(np.median(_sizes(_errors(views, estimate)))), 1e-6)


def _errors(views: list[View], estimate: _Estimate) -> NDArray[np.float64]:
    """(N, 2) pixels, of all views."""
    return _project(views, estimate) - np.concatenate([view.corners.pixels for view in views])


def _project(views: list[View], estimate: _Estimate) -> NDArray[np.float64]:
    """(N, 2) pixels where the corners of all views should be."""
    lens, camera_from_base = estimate.lens, estimate.camera.inverse()
    points = []
    for view in views:
        camera_from_board = camera_from_base @ view.base_from_tool @ estimate.board
        points.append(view.corners.board_m @ camera_from_board.rotation.T + camera_from_board.position)
    nowhere = np.zeros(3)
    pixels, _ = cv2.projectPoints(
        np.concatenate(points), nowhere, nowhere, lens.matrix, np.array(lens.distortion)
    )
    return np.asarray(pixels, np.float64).reshape(-1, 2)


def _sizes(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.norm(errors, axis=1)


def _jacobian(views: list[View], estimate: _Estimate) -> NDArray[np.float64]:
    """(2 N, 16)"""
    columns = []
    for i in range(16):
        step = np.zeros(16)
        step[i] = STEP if i < 12 else LENS_STEP_PX
        ahead, behind = _project(views, estimate.moved(step)), _project(views, estimate.moved(-step))
        columns.append((ahead - behind).ravel() / (2 * step[i]))
    return np.stack(columns, axis=1)


def _pixels(lens: Intrinsics) -> NDArray[np.float64]:
    return np.array([lens.fx, lens.fy, lens.cx, lens.cy])


def _view_rms(view: View, estimate: _Estimate) -> float:
    return float(np.sqrt(np.mean(_sizes(_errors([view], estimate)) ** 2)))


def _standard_errors(views: list[View], measured: Lens, estimate: _Estimate) -> tuple[float, float]:
    """Of the camera's position (m) and angle (rad).

    Leaving out each view in turn (jackknife) tells what the arm's errors, the same for all corners of a view,
    do; the inverse of the normal equations what the corners' noise and the lens' uncertainty do. What one
    view less would change is taken from one Gauss-Newton step, as the estimate is that near.
    """
    count, noise_px = len(views), _noise_px(views, estimate)
    normal, _ = _normal_equations(views, measured, estimate, noise_px)
    formal = noise_px**2 * np.diag(np.linalg.inv(normal))[:6]
    changes = []
    for i in range(count):
        rest, gradient = _normal_equations(views[:i] + views[i + 1 :], measured, estimate, noise_px)
        changes.append(np.linalg.solve(rest, -gradient)[:6])
    spread = np.array(changes) - np.mean(changes, axis=0)
    variance = (count - 1) / count * np.sum(spread**2, axis=0) + formal
    return float(np.sqrt(variance[3:].sum())), float(np.sqrt(variance[:3].sum()))
