"""The lens of a camera from pictures of the board: Zhang's method, as OpenCV has it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hardware.calibration.board import Corners
from hardware.camera.contract import Intrinsics
from hardware.errors import CalibrationError

LEAST_VIEWS = 8


@dataclass(frozen=True)
class Lens:
    """`rms_px`: how far corners are from where the lens puts them. `std_px` (4,): standard errors of
    fx, fy, cx, cy, as OpenCV estimates them."""

    intrinsics: Intrinsics
    rms_px: float
    std_px: NDArray[np.float64]


def measure_lens(views: list[Corners], size: tuple[int, int]) -> Lens:
    """The intrinsics of a camera of `size` (width, height). Raises `CalibrationError` with too few views.

    k3 and tangential distortion stay zero. With an ordinary lens a dozen views do not tell k3 from k2, nor a
    tangential distortion from a camera that is turned a little and has its centre elsewhere; together they
    then bend the corners of the picture, where no board was seen, wherever they like.
    """
    if len(views) < LEAST_VIEWS:
        raise CalibrationError(
            f"the board was found in {len(views)} views; {LEAST_VIEWS} are needed, 15 are good"
        )
    places = [view.board_m for view in views]
    pixels = [view.pixels.reshape(-1, 1, 2) for view in views]
    flags = cv2.CALIB_FIX_K3 | cv2.CALIB_ZERO_TANGENT_DIST
    rms, matrix, distortion, _, _, deviations, _, _ = cv2.calibrateCameraExtended(
        places, pixels, size, None, None, flags=flags
    )
    k1, k2, p1, p2, k3 = (float(value) for value in np.ravel(distortion)[:5])
    fx, fy, cx, cy = (float(matrix[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
    width, height = size
    if not np.isfinite(rms) or not (0 < cx < width and 0 < cy < height):
        raise CalibrationError(
            "the views do not fit any lens: tilt the board more, up to 45°, and fill the picture"
        )
    intrinsics = Intrinsics(width, height, fx, fy, cx, cy, (k1, k2, p1, p2, k3))
    return Lens(intrinsics, float(rms), np.ravel(deviations)[:4].astype(np.float64))
