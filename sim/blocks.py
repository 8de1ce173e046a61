"""The things to push or to grasp: boxes joined to one block, which lies on the table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Point = tuple[float, float]


@dataclass(frozen=True)
class Block:
    """Boxes of one height, given by half extents and centres in metres around the centre of mass.

    `mass` in kg, `friction` the Coulomb coefficient, `colour` RGBA in 0…1.
    """

    boxes: tuple[tuple[Point, Point], ...]
    height: float
    mass: float
    friction: float = 0.5
    colour: tuple[float, float, float, float] = (0.85, 0.12, 0.12, 1.0)

    def halves(self, size: float) -> list[tuple[float, float, float]]:
        """Half extents of each box in metres, of a block `size` times as large."""
        return [(x * size, y * size, self.height / 2 * size) for (x, y), _ in self.boxes]

    def centres(self, size: float) -> list[tuple[float, float, float]]:
        """Centre of each box in metres, in the frame of the block's centre."""
        return [(x * size, y * size, 0.0) for _, (x, y) in self.boxes]

    @property
    def radius(self) -> float:
        """Of the circle around the centre that holds the block, in metres."""
        corners = [(abs(x) + half_x, abs(y) + half_y) for (half_x, half_y), (x, y) in self.boxes]
        return float(max(np.hypot(x, y) for x, y in corners))


def cube(edge: float, mass: float) -> Block:
    return Block(boxes=(((edge / 2, edge / 2), (0.0, 0.0)),), height=edge, mass=mass)


PUSH_CUBE = cube(0.06, mass=0.15)
GRASP_CUBE = cube(0.04, mass=0.08)
# A bar of 12 x 3 cm on a stem of 3 x 9 cm.
TEE = Block(
    boxes=(((0.06, 0.015), (0.0, 0.0257)), ((0.015, 0.045), (0.0, -0.0343))),
    height=0.04,
    mass=0.2,
)
