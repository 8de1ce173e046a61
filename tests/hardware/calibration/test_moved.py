"""Whether the camera was moved is told from the scene, whatever moves in it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from hardware.calibration.moved import Placement, compare

from .rendered import LENS


def scene(seed: int = 0) -> np.ndarray:
    """A table with things on it."""
    rng = np.random.default_rng(seed)
    image = np.full((480, 640, 3), 110, np.uint8)
    for _ in range(140):
        x, y = rng.integers(0, 640), rng.integers(0, 480)
        size = rng.integers(6, 40, 2)
        colour = tuple(int(c) for c in rng.integers(0, 255, 3))
        if rng.random() < 0.5:
            cv2.rectangle(image, (x, y), (x + size[0], y + size[1]), colour, -1)
        else:
            cv2.ellipse(image, (x, y), tuple(int(s) for s in size), 30, 0, 360, colour, -1)
    return cv2.GaussianBlur(image, (3, 3), 0)


def turned(image: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
    """What the camera sees after it was turned (rad)."""
    rotation = cv2.Rodrigues(np.array([pitch, yaw, 0.0]))[0]
    homography = LENS.matrix @ rotation @ np.linalg.inv(LENS.matrix)
    return cv2.warpPerspective(image, homography, (640, 480), borderMode=cv2.BORDER_REFLECT)


def noisy(image: np.ndarray, gain: float = 1.0, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(image * gain + rng.normal(0.0, 3.0, image.shape), 0, 255).astype(np.uint8)


def with_an_arm(image: np.ndarray, at: int) -> np.ndarray:
    """A thing that hides a third of the picture, with corners of its own."""
    image = image.copy()
    arm = scene(9)[:300, :200]
    image[100:400, at : at + 200] = arm
    return image


@pytest.mark.parametrize("gain", [0.7, 1.0, 1.2])
def test_a_camera_that_was_not_moved_is_in_place_also_in_other_light(gain):
    found = compare(noisy(scene()), noisy(scene(), gain, seed=4))
    assert found.placement is Placement.IN_PLACE
    assert found.shift_px is not None and found.shift_px < 1.0


def test_an_arm_that_moves_through_the_picture_does_not_move_the_camera():
    found = compare(noisy(with_an_arm(scene(), 50)), noisy(with_an_arm(scene(), 330), seed=4))
    assert found.placement is Placement.IN_PLACE, found


@pytest.mark.parametrize("pixels", [6.0, 14.0, 40.0])
def test_a_camera_that_was_turned_is_told_by_how_many_pixels(pixels):
    found = compare(noisy(scene()), noisy(turned(scene(), pixels / LENS.fx, 0.0), 0.9, seed=4))
    assert found.placement is Placement.MOVED
    assert found.shift_px == pytest.approx(pixels, rel=0.15, abs=0.7)
    assert found.text == f"camera moved since calibration: {found.shift_px:.0f} px"


def test_a_moved_camera_is_told_also_when_the_arm_moved():
    after = with_an_arm(turned(scene(), 0.02, 0.015), 300)
    found = compare(noisy(with_an_arm(scene(), 50)), noisy(after, seed=4))
    assert found.placement is Placement.MOVED
    assert found.shift_px == pytest.approx(np.hypot(0.02 * LENS.fx, 0.015 * LENS.fy), rel=0.2)


@pytest.mark.parametrize(
    "now", [scene(77), np.zeros((480, 640, 3), np.uint8), np.full((480, 640, 3), 200, np.uint8)]
)
def test_another_scene_says_nothing_about_the_camera(now):
    found = compare(noisy(scene()), now)
    assert found.placement is Placement.UNKNOWN and found.shift_px is None
    assert "cannot tell" in found.text


def test_another_size_is_named():
    found = compare(scene(), scene()[:240, :320])
    assert found.placement is Placement.UNKNOWN
    assert "calibrated at 640x480, now 320x240" in found.text
