"""The ChArUco board: a chessboard with markers in its squares, so that a part of it is enough to be found."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from hardware.errors import CalibrationError

# Fewer corners than this leave the pose of the board uncertain.
LEAST_CORNERS = 8
PRINT_DPI = 300
INCH_M = 0.0254


@dataclass(frozen=True)
class Corners:
    """The corners found in one picture: where they are on the board (N, 3) m, and seen (N, 2) pixels."""

    board_m: NDArray[np.float32]
    pixels: NDArray[np.float32]


@dataclass(frozen=True)
class Board:
    """`columns` × `rows` squares of `square_m`, markers of `marker_m`; `dictionary` is OpenCV's name."""

    columns: int = 7
    rows: int = 5
    square_m: float = 0.025
    marker_m: float = 0.018
    dictionary: str = "DICT_5X5_50"

    def __post_init__(self) -> None:
        if min(self.columns, self.rows) < 3:
            raise CalibrationError(
                f"a board of {self.columns}x{self.rows} squares is too small: 4x3 at least"
            )
        if not 0.0 < self.marker_m < self.square_m:
            raise CalibrationError(
                f"markers of {self.marker_m * 1e3:g} mm do not fit squares of {self.square_m * 1e3:g} mm"
            )
        if not hasattr(cv2.aruco, self.dictionary):
            raise CalibrationError(f"OpenCV has no marker dictionary {self.dictionary}; DICT_5X5_50 is one")

    def find(self, image: NDArray[np.uint8]) -> Corners | None:
        """The corners of the board in `image` uint8 (H, W, 3) RGB; None if too little of it is to be seen."""
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        pixels, ids, _, _ = cv2.aruco.CharucoDetector(self._board).detectBoard(grey)
        if ids is None or len(ids) < LEAST_CORNERS:
            return None
        places = np.asarray(self._board.getChessboardCorners(), np.float32)[ids.ravel()]
        if min(np.ptp(places[:, 0]), np.ptp(places[:, 1])) < self.square_m / 2:
            return None  # all in one line
        return Corners(places, np.asarray(pixels, np.float32).reshape(-1, 2))

    def picture(self, dpi: int = PRINT_DPI) -> NDArray[np.uint8]:
        """To be printed at `dpi` and 100 %: uint8 (H, W)."""
        pixels_per_square = round(self.square_m / INCH_M * dpi)
        size = (self.columns * pixels_per_square, self.rows * pixels_per_square)
        return np.asarray(self._board.generateImage(size, marginSize=0), np.uint8)

    @cached_property
    def _board(self) -> cv2.aruco.CharucoBoard:
        dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, self.dictionary))
        return cv2.aruco.CharucoBoard((self.columns, self.rows), self.square_m, self.marker_m, dictionary)
