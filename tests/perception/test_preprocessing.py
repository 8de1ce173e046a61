from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.preprocessing import prepare

seeds = st.integers(0, 2**32 - 1)


def noise(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def centre_square(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


@given(seeds, st.integers(16, 120), st.integers(16, 120), st.integers(1, 16))
@settings(deadline=None, max_examples=60)
def test_any_picture_becomes_a_square_of_the_asked_size(
    seed: int, height: int, width: int, size: int
) -> None:
    prepared = prepare(noise(seed, height, width), size)
    assert prepared.shape == (size, size, 3)
    assert prepared.dtype == np.uint8
    assert prepared.flags.c_contiguous


@given(seeds, st.integers(16, 120), st.integers(16, 120), st.integers(1, 16))
@settings(deadline=None, max_examples=60)
def test_what_lies_outside_the_centre_square_does_not_matter(
    seed: int, height: int, width: int, size: int
) -> None:
    image = noise(seed, height, width)
    elsewhere = np.full_like(image, 7)
    centre_square(elsewhere)[:] = centre_square(image)
    np.testing.assert_array_equal(prepare(image, size), prepare(elsewhere, size))


@given(seeds, st.integers(16, 120), st.integers(16, 120), st.integers(1, 16))
@settings(deadline=None, max_examples=60)
def test_shrinking_keeps_the_mean_colour(seed: int, height: int, width: int, size: int) -> None:
    image = noise(seed, height, width)
    gap = prepare(image, size).mean((0, 1)) - centre_square(image).mean((0, 1))
    assert np.abs(gap).max() <= 0.51  # rounding to whole grey levels


def test_a_picture_of_the_right_size_is_left_as_it_is() -> None:
    image = noise(0, 64, 64)
    np.testing.assert_array_equal(prepare(image, 64), image)


def test_a_shift_of_half_a_pixel_shows_in_the_grey_levels() -> None:
    image = np.zeros((128, 128, 3), np.uint8)
    image[:, 64:] = 200
    shifted = np.roll(image, 1, axis=1)
    difference = prepare(shifted, 64)[:, 32].astype(int) - prepare(image, 64)[:, 32]
    np.testing.assert_array_equal(difference, -100)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((64, 64, 3), np.float32), "float32"),
        (np.zeros((64, 64), np.uint8), r"\(64, 64\)"),
        (np.zeros((64, 64, 4), np.uint8), r"\(64, 64, 4\)"),
        (np.zeros((2, 64, 64, 3), np.uint8), r"\(2, 64, 64, 3\)"),
        (np.zeros((40, 100, 3), np.uint8), "100x40 pixels; the encoder needs at least 64x64"),
    ],
)
def test_anything_but_a_big_enough_rgb_picture_is_refused(image: np.ndarray, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        prepare(image, 64)
