from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.jepa.augmentation import LARGEST_SHIFT_PX, augment

SIZE = 24
seeds = st.lists(st.integers(0, 2**62 - 1), min_size=2, max_size=4, unique=True)


def pictures(runs: int, together: int) -> np.ndarray:
    """Windows of two pictures: a dark square on a light ground, somewhere."""
    rng = np.random.default_rng(0)
    frames = np.full((runs * together, 2, SIZE, SIZE, 3), 140, np.uint8)
    for frame in frames.reshape(-1, SIZE, SIZE, 3):
        row, column = rng.integers(8, 12, 2)
        frame[row : row + 4, column : column + 4] = 40
    return frames


def centres(frames: np.ndarray) -> np.ndarray:
    """Where the square is, (N, 2) pixels."""
    grey = frames.reshape(-1, SIZE, SIZE, 3).astype(float).mean(3)
    dark = grey < (grey.min((1, 2), keepdims=True) + grey.max((1, 2), keepdims=True)) / 2
    return np.array([np.argwhere(each).mean(0) for each in dark])


@given(seeds)
@settings(deadline=None, max_examples=30)
def test_a_run_is_changed_in_one_way_and_other_runs_in_others(seeds: list[int]) -> None:
    frames = pictures(len(seeds), 3)
    changed = augment(frames, 3, np.array(seeds))
    assert changed.shape == frames.shape and changed.dtype == np.uint8
    moved = (centres(changed) - centres(frames)).reshape(len(seeds), -1, 2)
    np.testing.assert_allclose(moved, moved[:, :1].repeat(6, 1), atol=1e-9)
    assert np.abs(moved).max() <= LARGEST_SHIFT_PX
    ground = changed.reshape(len(seeds), -1, SIZE, SIZE, 3)[:, :, 0, 0].astype(int)
    np.testing.assert_array_equal(ground, ground[:, :1].repeat(6, 1))
    assert len({tuple(run[0]) for run in ground}) > 1


def test_the_same_seeds_change_pictures_the_same_way() -> None:
    frames = pictures(2, 2)
    first = augment(frames, 2, np.array([3, 4]))
    np.testing.assert_array_equal(first, augment(frames, 2, np.array([3, 4])))
    assert not np.array_equal(first, augment(frames, 2, np.array([3, 5])))


@given(seeds)
@settings(deadline=None, max_examples=30)
def test_pictures_of_a_camera_that_nobody_moved_are_recoloured_where_they_are(seeds: list[int]) -> None:
    frames = pictures(len(seeds), 3)
    changed = augment(frames, 3, np.array(seeds), same=("camera",))
    np.testing.assert_array_equal(centres(changed), centres(frames))
    assert not np.array_equal(changed, frames)


def test_shifts_reach_as_far_as_they_may_both_ways() -> None:
    frames = pictures(1, 1)
    moved = np.array([(centres(augment(frames, 1, np.array([s]))) - centres(frames))[0] for s in range(200)])
    for axis in range(2):
        assert set(np.round(moved[:, axis])) == set(range(-LARGEST_SHIFT_PX, LARGEST_SHIFT_PX + 1))
