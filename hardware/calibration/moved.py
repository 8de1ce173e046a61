"""Whether a camera was moved since its calibration: told from what stands still in its pictures.

Corners of the scene (ORB) are found again in a new picture. If many are where they were, the camera is too,
whatever else in the picture has moved. If not, the largest group that moved together says how far it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

FEATURES = 1500
# Fewer matches than this, or than this share of them moving together, say nothing.
LEAST_MATCHES = 20
LEAST_TOGETHER = 0.3
STILL_PX = 2.0
RANSAC_PX = 3.0


class Placement(Enum):
    IN_PLACE = "in place"
    MOVED = "moved"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Comparison:
    """`shift_px`: how far the scene is from where it was, at the size of the pictures; None if unknown."""

    placement: Placement
    shift_px: float | None
    text: str


def compare(reference: NDArray[np.uint8], now: NDArray[np.uint8]) -> Comparison:
    """Two pictures, uint8 (H, W, 3) RGB, of the scene: at calibration and now."""
    if reference.shape != now.shape:
        sizes = f"{reference.shape[1]}x{reference.shape[0]}, now {now.shape[1]}x{now.shape[0]}"
        return _unknown(f"the camera was calibrated at {sizes}: use that size, or calibrate again")
    before, after = _matches(reference, now)
    if len(before) < LEAST_MATCHES:
        return _unknown(f"only {len(before)} things in the picture are known from the calibration's")
    shifts = np.linalg.norm(after - before, axis=1)
    still = shifts < STILL_PX
    if still.sum() >= LEAST_MATCHES and still.mean() >= LEAST_TOGETHER:
        shift = float(np.median(shifts[still]))
        return Comparison(Placement.IN_PLACE, shift, f"in place since its calibration ({shift:.1f} px)")
    _, together = cv2.estimateAffinePartial2D(before, after, ransacReprojThreshold=RANSAC_PX)
    group = np.zeros(len(before), bool) if together is None else together.ravel().astype(bool)
    if group.sum() < LEAST_MATCHES or group.mean() < LEAST_TOGETHER:
        return _unknown("too little of the scene is as it was at the calibration")
    shift = float(np.median(shifts[group]))
    return Comparison(Placement.MOVED, shift, f"camera moved since calibration: {shift:.0f} px")


def _unknown(text: str) -> Comparison:
    return Comparison(Placement.UNKNOWN, None, f"cannot tell whether the camera was moved: {text}")


def _matches(
    reference: NDArray[np.uint8], now: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(N, 2) pixels each: the same things in both pictures, as far as ORB can tell."""
    orb = cv2.ORB.create(FEATURES)
    greys = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (reference, now))
    (first, described), (second, described_now) = (orb.detectAndCompute(grey, None) for grey in greys)
    if described is None or described_now is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(described, described_now)
    before = np.array([first[match.queryIdx].pt for match in matches], np.float32).reshape(-1, 2)
    after = np.array([second[match.trainIdx].pt for match in matches], np.float32).reshape(-1, 2)
    return before, after
