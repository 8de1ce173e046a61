"""Tool poses as V-JEPA 2-AC has them, and the actions between them.

A pose (..., 7) is x, y, z in metres in the arm's base frame, extrinsic x-y-z Euler angles in rad (the third
turned last: R = Rz·Ry·Rx), and the closedness of the gripper, 0 open to 1 closed. An action (..., 7) is the
difference of two poses, in the base frame: the turn is R(end)·R(start)ᵀ.
Source: how the public planner and data loader of facebookresearch/vjepa2 make and apply actions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Poses = NDArray[np.float64]


def moved(pose: Poses, action: Poses) -> Poses:
    """The pose after an action; shapes (..., 7) that broadcast. A gripper stays within open and closed."""
    turned = rotation(action[..., 3:6]) @ rotation(pose[..., 3:6])
    position = pose[..., :3] + action[..., :3]
    closedness = np.clip(pose[..., 6:] + action[..., 6:], 0.0, 1.0)
    return np.concatenate([position, euler(turned), closedness], axis=-1)


def difference(start: Poses, end: Poses) -> Poses:
    """The action that leads from one pose to another; shapes (..., 7) that broadcast."""
    turn = rotation(end[..., 3:6]) @ np.swapaxes(rotation(start[..., 3:6]), -1, -2)
    return np.concatenate([end[..., :3] - start[..., :3], euler(turn), end[..., 6:] - start[..., 6:]], -1)


def rotation(angles: Poses) -> NDArray[np.float64]:
    """Rotation matrices (..., 3, 3) of extrinsic x-y-z Euler angles (..., 3) in rad."""
    (sx, sy, sz), (cx, cy, cz) = (np.moveaxis(f(angles), -1, 0) for f in (np.sin, np.cos))
    rows = [
        [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
        [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
        [-sy, cy * sx, cy * cx],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def euler(matrices: NDArray[np.float64]) -> Poses:
    """Extrinsic x-y-z Euler angles (..., 3) in rad of rotation matrices; the second is within ±π/2.

    Where that is a quarter turn, the first and the third turn about the same axis, and the third is 0.
    """
    m = matrices
    cosine = np.hypot(m[..., 0, 0], m[..., 1, 0])
    regular = cosine > 1e-9
    first = np.where(
        regular,
        np.arctan2(m[..., 2, 1], m[..., 2, 2]),
        np.arctan2(-m[..., 1, 2], m[..., 1, 1]),
    )
    third = np.where(regular, np.arctan2(m[..., 1, 0], m[..., 0, 0]), 0.0)
    return np.stack([first, np.arctan2(-m[..., 2, 0], cosine), third], axis=-1)
