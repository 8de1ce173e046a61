"""Where the camera stands, from corners computed by the laws of optics, with and without what goes wrong."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.calibration.board import Corners
from hardware.calibration.camera import MOST_POSE_PX
from hardware.calibration.hand_eye import View, closed_form, reproject, solve
from hardware.calibration.lens import Lens, measure_lens
from hardware.calibration.pose import Pose
from hardware.errors import CalibrationError

from .rendered import BOARD, LENS, looking_at

CAMERA = looking_at(np.array([0.85, 0.1, 0.5]), np.array([0.45, 0.0, 0.15]))
ON_TOOL = Pose.from_rotvec([0.1, -0.05, 0.3], [-0.08, -0.06, 0.03])
KNOWN = Lens(LENS, 0.1, np.full(4, 1.0))
GRID = np.array(
    [[x * 0.025, y * 0.025, 0.0] for y in range(1, BOARD.rows) for x in range(1, BOARD.columns)], np.float32
)
MIDDLE = np.array([0.0875, 0.0625, 0.0])


def tool_poses(count: int, rng: np.random.Generator, axes=(1, 1, 1)) -> list[Pose]:
    """With the board in view, tilted by up to 35° about each of the `axes` that are not 0."""
    poses = []
    for _ in range(count):
        rotation = CAMERA.rotation @ Pose.from_rotvec(rng.uniform(-0.6, 0.6, 3) * axes, np.zeros(3)).rotation
        middle = np.array([0.45, 0.0, 0.2]) + rng.uniform(-0.1, 0.1, 3)
        poses.append(Pose(rotation, middle - rotation @ MIDDLE) @ ON_TOOL.inverse())
    return poses


def seen(tool: Pose, rng: np.random.Generator, noise_px: float = 0.0) -> View:
    exact = reproject(View(tool, Corners(GRID, GRID[:, :2])), CAMERA, ON_TOOL, LENS)
    return View(tool, Corners(GRID, (exact + rng.normal(0.0, noise_px, exact.shape)).astype(np.float32)))


def shaken(pose: Pose, rng: np.random.Generator, metres: float, degrees: float) -> Pose:
    """As an arm that is not quite where it says."""
    return pose @ Pose.from_rotvec(np.radians(rng.normal(0, degrees, 3)), rng.normal(0, metres, 3))


def error(found: Pose) -> tuple[float, float]:
    """(m, degrees)"""
    difference = CAMERA.inverse() @ found
    return float(np.linalg.norm(difference.position)), float(np.degrees(np.linalg.norm(difference.rotvec)))


def test_exact_views_give_the_exact_pose():
    rng = np.random.default_rng(0)
    solved = solve([seen(tool, rng) for tool in tool_poses(10, rng)], KNOWN)
    metres, degrees = error(solved.base_from_camera)
    assert metres < 1e-5 and degrees < 1e-3
    np.testing.assert_allclose(solved.tool_from_board.position, ON_TOOL.position, atol=1e-5)
    assert solved.kept.all() and solved.rms_px < 1e-3


@given(st.integers(0, 10**6), st.integers(3, 6))
def test_the_closed_form_is_exact_for_any_poses(seed, count):
    rng = np.random.default_rng(seed)
    camera, board = (Pose.from_rotvec(rng.normal(0, 1.5, 3), rng.normal(0, 1, 3)) for _ in range(2))
    tools = [Pose.from_rotvec(rng.normal(0, 1, 3), rng.normal(0, 0.5, 3)) for _ in range(count)]
    found_camera, found_board = closed_form(tools, [camera.inverse() @ tool @ board for tool in tools])
    for found, true in ((found_camera, camera), (found_board, board)):
        np.testing.assert_allclose(found.rotation, true.rotation, atol=1e-6)
        np.testing.assert_allclose(found.position, true.position, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_noise_of_pixels_and_of_the_arm_costs_millimetres_and_the_error_is_estimated(seed):
    rng = np.random.default_rng(seed)
    tools = tool_poses(15, rng)
    views = [View(shaken(tool, rng, 0.001, 0.1), seen(tool, rng, 0.2).corners) for tool in tools]
    solved = solve(views, KNOWN)
    metres, degrees = error(solved.base_from_camera)
    assert metres < 0.004 and degrees < 0.6
    assert metres < 4 * solved.position_std_m and degrees < 4 * np.degrees(solved.angle_std_rad)
    assert solved.position_std_m < 0.008


def test_views_that_are_wrong_are_left_out_and_named():
    rng = np.random.default_rng(5)
    views = [seen(tool, rng, 0.2) for tool in tool_poses(14, rng)]
    wrong = {2: 0.03, 9: 0.05}
    for i, metres in wrong.items():
        shift = Pose(np.eye(3), np.array([metres, -metres, metres]))
        views[i] = View(shift @ views[i].base_from_tool, views[i].corners)
    solved = solve(views, KNOWN)
    assert set(np.flatnonzero(~solved.kept)) == set(wrong)
    metres, degrees = error(solved.base_from_camera)
    assert metres < 0.001 and degrees < 0.1


def test_corners_that_were_found_in_the_wrong_place_do_not_pull_the_camera_along():
    rng = np.random.default_rng(11)
    views = []
    for tool in tool_poses(14, rng):
        view = seen(tool, rng, 0.1)
        view.corners.pixels[rng.choice(len(GRID), 4, replace=False)] += (25.0, 18.0)
        views.append(view)
    metres, degrees = error(solve(views, KNOWN).base_from_camera)
    assert metres < 0.001 and degrees < 0.08


def test_views_of_which_half_are_wrong_do_not_pass_for_a_calibration():
    rng = np.random.default_rng(6)
    views = [seen(tool, rng, 0.2) for tool in tool_poses(12, rng)]
    views = [
        View(shaken(view.base_from_tool, rng, 0.05, 10.0), view.corners) if i % 2 else view
        for i, view in enumerate(views)
    ]
    try:
        solved = solve(views, KNOWN)
    except CalibrationError as refused:
        assert "do not fit the others" in str(refused)
    else:
        assert solved.rms_px > MOST_POSE_PX


@pytest.mark.parametrize("axes", [(0, 0, 1), (1, 0, 0), (0, 0, 0)])
def test_turning_about_one_axis_only_is_not_enough(axes):
    rng = np.random.default_rng(7)
    with pytest.raises(CalibrationError, match="hardly turned"):
        solve([seen(tool, rng, 0.1) for tool in tool_poses(12, rng, axes)], KNOWN)


def test_a_lens_that_is_a_little_off_is_corrected_by_what_the_arm_knows():
    rng = np.random.default_rng(10)
    views = [seen(tool, rng, 0.1) for tool in tool_poses(14, rng)]
    off = replace(LENS, fx=LENS.fx * 1.01, fy=LENS.fy * 1.01, cx=LENS.cx + 3)
    solved = solve(views, Lens(off, 0.1, np.full(4, 4.0)))
    metres, degrees = error(solved.base_from_camera)
    assert metres < 0.001 and degrees < 0.1
    assert abs(solved.lens.fx - LENS.fx) < 1.0
    certain = solve(views, Lens(off, 0.1, np.full(4, 1e-3)))
    assert abs(certain.lens.fx - off.fx) < 0.1, "a lens that is certain is left as it is"


def test_the_lens_is_found_from_views_of_the_board():
    rng = np.random.default_rng(8)
    near = looking_at(np.array([0.7, 0.05, 0.4]), np.array([0.45, 0.0, 0.2])).position - CAMERA.position
    tools = [Pose(np.eye(3), near * 0.3) @ tool for tool in tool_poses(20, rng)]
    lens = measure_lens([seen(tool, rng, 0.1).corners for tool in tools], (LENS.width, LENS.height))
    found = lens.intrinsics
    off = np.abs([found.fx - LENS.fx, found.fy - LENS.fy, found.cx - LENS.cx, found.cy - LENS.cy])
    assert (off < 4 * lens.std_px).all() and lens.std_px.max() < 6.0
    assert lens.rms_px < 0.3
    points = rng.uniform(-0.2, 0.2, (50, 3)) + [0, 0, 1]
    true, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), LENS.matrix, np.array(LENS.distortion))
    ours, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), found.matrix, np.array(found.distortion))
    assert np.abs((ours - true) - (ours - true).mean(axis=0)).max() < 2.0


def test_too_few_views_are_said():
    rng = np.random.default_rng(9)
    with pytest.raises(CalibrationError, match="found in 5 views; 8 are needed"):
        measure_lens([seen(tool, rng).corners for tool in tool_poses(5, rng)], (640, 480))
