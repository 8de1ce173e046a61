from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.vjepa2.pose import Poses, difference, euler, moved, rotation


def vectors(low: float, high: float, count: int) -> st.SearchStrategy[list[float]]:
    return st.lists(st.floats(low, high), min_size=count, max_size=count)


@st.composite
def poses(draw: st.DrawFn) -> Poses:
    position, angles = draw(vectors(-1, 1, 3)), draw(vectors(-np.pi, np.pi, 3))
    return np.array([*position, *angles, draw(st.floats(0, 1))])


def assert_same_pose(found: Poses, expected: Poses) -> None:
    np.testing.assert_allclose(found[..., :3], expected[..., :3], atol=1e-9)
    np.testing.assert_allclose(rotation(found[..., 3:6]), rotation(expected[..., 3:6]), atol=1e-6)
    np.testing.assert_allclose(found[..., 6], expected[..., 6], atol=1e-9)


@given(poses(), poses())
def test_the_difference_of_two_poses_leads_from_one_to_the_other(start: Poses, end: Poses):
    assert_same_pose(moved(start, difference(start, end)), end)


@given(vectors(-np.pi, np.pi, 3))
def test_angles_name_a_rotation_and_it_names_them(angles: list[float]):
    matrix = rotation(np.array(angles))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(matrix) == pytest.approx(1.0)
    np.testing.assert_allclose(rotation(euler(matrix)), matrix, atol=1e-6)


@pytest.mark.parametrize("second", [np.pi / 2, -np.pi / 2])
def test_a_quarter_turn_of_the_second_angle_is_no_trap(second: float):
    matrix = rotation(np.array([0.4, second, -0.9]))
    np.testing.assert_allclose(rotation(euler(matrix)), matrix, atol=1e-9)


def test_the_axes_stay_where_they_are_while_turning():
    """First about x, then about the base's z: the tool's own z axis comes to point along the base's x."""
    matrix = rotation(np.array([np.pi / 2, 0.0, np.pi / 2]))
    np.testing.assert_allclose(matrix @ [0, 0, 1], [1, 0, 0], atol=1e-12)


def test_actions_are_in_the_base_frame_and_the_gripper_ends_at_its_stops():
    turned = np.array([0.5, 0.0, 0.2, np.pi, 0.0, 1.0, 0.9])
    found = moved(turned, np.array([0.01, 0.0, 0.0, 0.0, 0.0, 0.2, 0.5]))
    np.testing.assert_allclose(found[:3], [0.51, 0.0, 0.2])
    np.testing.assert_allclose(rotation(found[3:6]), rotation(np.array([np.pi, 0.0, 1.2])), atol=1e-12)
    assert found[6] == 1.0


def test_the_poses_of_the_published_example_differ_as_published(franka: tuple[np.ndarray, np.ndarray]):
    _, (start, end) = franka
    action = difference(start, end)
    np.testing.assert_allclose(action[:3], end[:3] - start[:3])
    assert np.abs(action[3:6]).max() < 0.05 and action[6] == 0.0, "it lifts without turning"
