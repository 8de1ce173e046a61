"""Pictures of a ChArUco board on the tool of an arm, drawn by the laws of optics from known poses."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from hardware.calibration.board import Board
from hardware.calibration.pose import Pose
from hardware.camera.contract import Intrinsics

LENS = Intrinsics(640, 480, 610.0, 606.0, 327.0, 236.0, (0.08, -0.12, 0.0006, -0.0004, 0.0))
BOARD = Board(7, 5, 0.025, 0.018)
SUPERSAMPLED = 2
TEXTURE_DPI = 254  # 10 pixels a millimetre


def looking_at(position: np.ndarray, target: np.ndarray) -> Pose:
    """A camera (z ahead, y down) in a frame whose z is up."""
    ahead = (target - position) / np.linalg.norm(target - position)
    right = np.cross(ahead, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    return Pose(np.stack([right, np.cross(ahead, right), ahead], axis=1), position)


@functools.cache
def _rays(lens: Intrinsics) -> np.ndarray:
    """(N, 3): where each of the finer pixels looks."""
    columns, rows = np.meshgrid(np.arange(lens.width * SUPERSAMPLED), np.arange(lens.height * SUPERSAMPLED))
    pixels = np.stack([columns, rows], axis=-1).reshape(-1, 1, 2).astype(np.float64)
    pixels = (pixels + 0.5) / SUPERSAMPLED - 0.5
    rays = cv2.undistortPoints(pixels, lens.matrix, np.array(lens.distortion)).reshape(-1, 2)
    return np.concatenate([rays, np.ones((len(rays), 1))], axis=1)


def render(
    camera_from_board: Pose, rng: np.random.Generator, lens: Intrinsics = LENS, board: Board = BOARD
) -> np.ndarray:
    """uint8 (H, W, 3): every pixel's ray traced through the distorted lens to the board's plane."""
    scale = SUPERSAMPLED
    rays = _rays(lens) @ camera_from_board.rotation
    origin = camera_from_board.inverse().position
    with np.errstate(divide="ignore", invalid="ignore"):
        along = -origin[2] / rays[:, 2]
        places = origin[:2] + along[:, None] * rays[:, :2]
    dots_per_m = TEXTURE_DPI / 0.0254
    texture = board.picture(TEXTURE_DPI)
    margin = round(0.01 * dots_per_m)  # the paper's white edge
    texture = cv2.copyMakeBorder(texture, *[margin] * 4, cv2.BORDER_CONSTANT, value=255)
    x = (places[:, 0] * dots_per_m + margin - 0.5).astype(np.float32)
    y = (places[:, 1] * dots_per_m + margin - 0.5).astype(np.float32)
    x[along <= 0] = y[along <= 0] = -1e6
    shape = (lens.height * scale, lens.width * scale)
    drawn = cv2.remap(
        texture,
        x.reshape(shape),
        y.reshape(shape),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=90,
    )
    grey = cv2.resize(drawn, (lens.width, lens.height), interpolation=cv2.INTER_AREA).astype(np.float32)
    grey = 30 + grey * 0.75 + rng.normal(0.0, 2.0, grey.shape)
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
