"""A rigid motion: `base_from_tool @ tool_from_board` is `base_from_board`."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Pose:
    """`rotation` (3, 3) and `position` (3,) m: a point p of the second frame is rotation · p + position."""

    rotation: NDArray[np.float64]
    position: NDArray[np.float64]

    @classmethod
    def from_rotvec(cls, rotvec: ArrayLike, position: ArrayLike) -> Pose:
        rotation, _ = cv2.Rodrigues(np.asarray(rotvec, dtype=np.float64))
        return cls(rotation, np.asarray(position, dtype=np.float64))

    @property
    def rotvec(self) -> NDArray[np.float64]:
        """(3,) rad: axis times angle."""
        return cv2.Rodrigues(self.rotation)[0].ravel()

    def __matmul__(self, other: Pose) -> Pose:
        return Pose(self.rotation @ other.rotation, self.rotation @ other.position + self.position)

    def inverse(self) -> Pose:
        return Pose(self.rotation.T, -self.rotation.T @ self.position)
