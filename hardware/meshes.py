"""Low-poly meshes for the simulator, whose software renderer takes time for every triangle.

vertices, triangles = load_mesh(path, scale=(1, 1, 1))
write_obj(out, *simplified(vertices, triangles, MAX_TRIANGLES))
"""

from __future__ import annotations

from pathlib import Path

import coal
import numpy as np
from numpy.typing import ArrayLike, NDArray

from hardware.errors import RobotError

# About what the Panda's collision meshes have; an arm of eight such links renders in 1 to 3 ms at 128 px.
MAX_TRIANGLES = 300

Vertices = NDArray[np.float64]
Triangles = NDArray[np.int64]


def load_mesh(path: Path, scale: ArrayLike = (1.0, 1.0, 1.0)) -> tuple[Vertices, Triangles]:
    """Vertices (V, 3) in metres and triangles (T, 3) of an STL, OBJ or Collada file. Raises `RobotError`."""
    try:
        mesh = coal.MeshLoader().load(str(path), np.asarray(scale, dtype=np.float64))
        vertices = np.array(mesh.vertices(), dtype=np.float64)
        corners = [mesh.tri_indices(i) for i in range(mesh.num_tris)]
    except (RuntimeError, ValueError) as error:
        raise RobotError(f"{path}: not a readable mesh; give STL, OBJ or Collada") from error
    triangles = np.array([[corner[0], corner[1], corner[2]] for corner in corners], dtype=np.int64)
    if len(triangles) == 0 or not np.isfinite(vertices).all():
        raise RobotError(f"{path}: a mesh without triangles, or with vertices that are not finite")
    return vertices, triangles


def simplified(
    vertices: Vertices, triangles: Triangles, max_triangles: int = MAX_TRIANGLES
) -> tuple[Vertices, Triangles]:
    """The mesh itself if it is small enough, else a coarser one of at most `max_triangles`.

    Vertex clustering (Rossignac and Borrel 1993): the vertices in one cell of a grid become their mean, and
    triangles that collapse go. No vertex moves further than a cell's diagonal; the cells grow until it fits.
    """
    cell = float(np.ptp(vertices, axis=0).max()) / 64
    coarse = vertices, triangles
    while len(coarse[1]) > max_triangles:
        coarse = _clustered(vertices, triangles, cell)
        cell *= 1.1
    return coarse


def _clustered(vertices: Vertices, triangles: Triangles, cell: float) -> tuple[Vertices, Triangles]:
    places = np.floor((vertices - vertices.min(axis=0)) / cell).astype(np.int64)
    _, cluster = np.unique(places, axis=0, return_inverse=True)
    cluster = cluster.reshape(-1)
    count = np.bincount(cluster)
    means = np.stack([np.bincount(cluster, vertices[:, axis]) / count for axis in range(3)], axis=1)
    corners = cluster[triangles]
    whole = (
        (corners[:, 0] != corners[:, 1]) & (corners[:, 1] != corners[:, 2]) & (corners[:, 2] != corners[:, 0])
    )
    corners = corners[whole]
    # The same triangle may begin at any of its corners; which way round it goes tells front from back.
    first = corners.argmin(axis=1)[:, None]
    corners = np.unique(np.take_along_axis(corners, (first + np.arange(3)) % 3, axis=1), axis=0)
    return means, corners


def write_obj(path: Path, vertices: Vertices, triangles: Triangles) -> None:
    """A Wavefront OBJ file; vertices that no triangle uses are left out."""
    used, corners = np.unique(triangles, return_inverse=True)
    lines = [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in vertices[used]]
    lines += [f"f {a} {b} {c}" for a, b, c in corners.reshape(-1, 3) + 1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
