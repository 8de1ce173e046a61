"""Cameras and light that were not recorded: pictures are shifted and recoloured, alike within a session.

What differs between the sessions of a dataset are a few hundred cameras and lights; this makes many more of
them out of those, so that the encoder does not learn these by heart.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# A camera that is turned by 3° sees 64 pixels shifted by almost five.
LARGEST_SHIFT_PX = 4
# How far the light's colour, and how far colours in it, are mixed: a matrix near the identity.
GAIN, MIX, OFFSET = 0.25, 0.1, 20.0


def augment(
    frames: NDArray[np.uint8], together: int, seeds: NDArray[np.int64], same: tuple[str, ...] = ()
) -> NDArray[np.uint8]:
    """Pictures (B, L, S, S, 3), each run of `together` windows changed in one way of its own.

    `seeds` (B / together,) tell in which. `same` is what did not differ between sessions: where the camera is
    part of it, nothing is shifted, as the pixel at which a thing is tells where it is.
    """
    edge = 0 if "camera" in same else LARGEST_SHIFT_PX
    runs = frames.reshape(-1, together * frames.shape[1], *frames.shape[2:])
    changed = [
        _changed(run, np.random.default_rng(seed), edge) for run, seed in zip(runs, seeds, strict=True)
    ]
    return np.stack(changed).reshape(frames.shape)


def _changed(pictures: NDArray[np.uint8], rng: np.random.Generator, edge: int) -> NDArray[np.uint8]:
    """Pictures (N, S, S, 3), shifted by `edge` at most with their edges repeated, and recoloured."""
    size = pictures.shape[1]
    top, left = rng.integers(2 * edge + 1, size=2)
    padded = np.pad(pictures, ((0, 0), (edge, edge), (edge, edge), (0, 0)), mode="edge")
    shifted = np.ascontiguousarray(padded[:, top : top + size, left : left + size])
    mixing = np.diag(1.0 + rng.uniform(-GAIN, GAIN, 3)) + rng.uniform(-MIX, MIX, (3, 3))
    colours = np.column_stack([mixing, rng.uniform(-OFFSET, OFFSET, 3)])
    return np.asarray(cv2.transform(shifted.reshape(-1, size, 3), colours), np.uint8).reshape(pictures.shape)
