"""From a camera frame to the encoder's input; the same function for simulated and real frames.

Where the frame is on a GPU already, the same is said in products of matrices (`Shrinking`).
"""

from __future__ import annotations

from dataclasses import dataclass

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
    top, left, side = _centre(height, width, size)
    square = image[top : top + side, left : left + side]
    if side == size:
        return np.ascontiguousarray(square)
    return np.asarray(cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA), dtype=np.uint8)


@dataclass(frozen=True)
class Shrinking:
    """`prepare` for frames of one size: grey levels of the square at (`top`, `left`) of `side` pixels are
    `weights` (S, side) · square · `weights`ᵀ · `scale`, rounded; ties go up if `ties_up`, else to even.

    Sums of whole ratios are exact in float32, and so is every level; of others a level may differ by one
    where it lies between two.
    """

    top: int
    left: int
    side: int
    weights: NDArray[np.float32]
    scale: float
    ties_up: bool


def shrinking(height: int, width: int, size: int) -> Shrinking:
    """Raises ValueError for frames smaller than `size`."""
    top, left, side = _centre(height, width, size)
    ratio = side / size
    edges = np.arange(size)[:, None] * ratio
    pixels = np.arange(side)[None]
    covered = np.minimum(pixels + 1, edges + ratio) - np.maximum(pixels, edges)
    covered = covered.clip(0)
    whole = side % size == 0
    # OpenCV multiplies sums of whole ratios once, and rounds those of four pixels in integers.
    weights = covered.round() if whole else covered / ratio
    scale = float(np.float32(1 / ratio**2)) if whole else 1.0
    return Shrinking(top, left, side, weights.astype(np.float32), scale, ties_up=side == 2 * size)


def _centre(height: int, width: int, size: int) -> tuple[int, int, int]:
    """Top, left and side in pixels of the square that is kept."""
    side = min(height, width)
    if side < size:
        raise ValueError(f"the image is {width}x{height} pixels; the encoder needs at least {size}x{size}")
    return (height - side) // 2, (width - side) // 2, side
