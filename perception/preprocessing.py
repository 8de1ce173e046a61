"""From a camera frame to the encoder's input; the same function for simulated and real frames."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def prepare(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Centre-crop `image` uint8 (H, W, 3) to a square and shrink it to uint8 (size, size, 3).

    Area averaging keeps sub-pixel position in the grey levels, which is what the latent reads.
    Raises ValueError on anything that is not such an image, or is smaller than `size`.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected a uint8 (H, W, 3) RGB image, got {image.dtype} {image.shape}")
    height, width = image.shape[:2]
    side = min(height, width)
    if side < size:
        raise ValueError(f"the image is {width}x{height} pixels; the encoder needs at least {size}x{size}")
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    if side == size:
        return np.ascontiguousarray(square)
    return np.asarray(cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA), dtype=np.uint8)
