"""A camera's pictures brought to the size that the robot file gives it: cut to that shape, then shrunk.

A webcam has no mode of 128x128; the bundle, the goal pictures and the simulator have that size. The vertical
field of view of the robot file is that of the fitted picture; a camera that is the wider one keeps all rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from hardware.camera.contract import Frame, Intrinsics
from hardware.errors import CameraError


@dataclass(frozen=True)
class Fit:
    """The middle of pictures of `source` (width, height) brought to `target`.

    Raises `CameraError` where that would enlarge them.
    """

    source: tuple[int, int]
    target: tuple[int, int]

    def __post_init__(self) -> None:
        if self.source[0] < self.target[0] or self.source[1] < self.target[1]:
            raise CameraError(
                "the camera gives {}x{} pictures, smaller than the robot file's {}x{}: "
                "ask it for a larger size".format(*self.source, *self.target)
            )

    @property
    def window(self) -> tuple[int, int, int, int]:
        """Left, top, width, height of what is kept of the source: as much as has the target's shape."""
        width, height = self.source
        kept_width = min(width, round(height * self.target[0] / self.target[1]))
        kept_height = min(height, round(width * self.target[1] / self.target[0]))
        return (width - kept_width) // 2, (height - kept_height) // 2, kept_width, kept_height

    def frame(self, frame: Frame) -> Frame:
        """Colour is averaged over areas, as in the encoder's preprocessing; depth is the nearest one."""
        if self.source == self.target:
            return frame
        left, top, width, height = self.window
        window = np.s_[top : top + height, left : left + width]
        image = cv2.resize(frame.image[window], self.target, interpolation=cv2.INTER_AREA)
        depth = frame.depth_mm
        if depth is not None:  # an average over an edge would be a distance at which nothing is
            depth = cv2.resize(depth[window], self.target, interpolation=cv2.INTER_NEAREST)
        return replace(frame, image=np.asarray(image, dtype=np.uint8), depth_mm=depth)

    def intrinsics(self, source: Intrinsics) -> Intrinsics:
        """Those of the fitted picture."""
        left, top, width, height = self.window
        sx, sy = self.target[0] / width, self.target[1] / height
        # Pixel centres are at whole numbers: the edge of the picture is at -0.5.
        return Intrinsics(
            *self.target,
            fx=source.fx * sx,
            fy=source.fy * sy,
            cx=(source.cx - left + 0.5) * sx - 0.5,
            cy=(source.cy - top + 0.5) * sy - 0.5,
            distortion=source.distortion,
        )
