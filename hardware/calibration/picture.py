"""The residuals as a picture: where each corner was seen, and where the arm says it should be."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from hardware.calibration.hand_eye import HandEye, View, reproject

COLUMNS = 4
TILE_WIDTH = 480
SEEN, EXPECTED, LEFT_OUT = (60, 220, 60), (255, 60, 60), (255, 160, 0)
# A residual of a pixel would not be seen: its line is drawn this much longer.
EXAGGERATED = 20.0


def draw_residuals(
    images: list[NDArray[np.uint8]], names: list[str], views: list[View], solved: HandEye
) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) RGB: green circles seen, red lines to where they should be, 20 times as long."""
    tiles = []
    for image, name, view, px, kept in zip(images, names, views, solved.view_px, solved.kept):
        scale = TILE_WIDTH / image.shape[1]
        tile = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        expected = reproject(view, solved.base_from_camera, solved.tool_from_board, solved.lens)
        for seen, wanted in zip(view.corners.pixels, expected):
            start = _point(seen * scale)
            cv2.line(
                tile, start, _point((seen + (wanted - seen) * EXAGGERATED) * scale), EXPECTED, 1, cv2.LINE_AA
            )
            cv2.circle(tile, start, 3, SEEN, 1, cv2.LINE_AA)
        words = f"{name}: {px:.2f} px" + ("" if kept else ", left out")
        cv2.rectangle(tile, (0, 0), (tile.shape[1], 22), (0, 0, 0), -1)
        cv2.putText(
            tile, words, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, SEEN if kept else LEFT_OUT, 1, cv2.LINE_AA
        )
        tiles.append(tile)
    blank = np.zeros_like(tiles[0])
    tiles += [blank] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[i : i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)]
    return np.asarray(np.vstack(rows), np.uint8)


def _point(pixel: NDArray[np.floating]) -> tuple[int, int]:
    return int(round(float(pixel[0]))), int(round(float(pixel[1])))
