"""V-JEPA 2 written down plainly from its equations: float64 NumPy, slow, one clip at a time.

It shares nothing with the models but the names of their weights, and exists to hold them to it: tests and
`python -m perception.vjepa2.parity` compare the two. Equations: pre-norm transformer (Vaswani et al. 2017,
with the norm before each part), rotary positions (Su et al. 2021) along time, row and column, exact GELU;
the action-conditioned predictor as in Assran et al. 2025, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = Mapping[str, Array]
Position = tuple[float | None, ...]

_erf = np.vectorize(math.erf, otypes=[np.float64])


def encode(weights: Weights, clip: Array, depth: int, heads: int, release: str, patch: int = 16) -> Array:
    """Features (N, W) of one normalised clip (T, S, S, 3): T even, or one frame."""
    image = len(clip) == 1
    kernel = "patch_embed_img" if image and release == "2.1" else "patch_embed"
    tubelet = 1 if kernel == "patch_embed_img" else 2
    if image and release == "2.0":
        clip = np.concatenate([clip, clip])
    side = clip.shape[1] // patch
    stretch = 15 / (side - 1) if release == "2.1" else 1.0
    tokens: list[Array] = []
    positions: list[Position] = []
    for time in range(len(clip) // tubelet):
        for row in range(side):
            for column in range(side):
                cube = clip[
                    time * tubelet : (time + 1) * tubelet,
                    row * patch : (row + 1) * patch,
                    column * patch : (column + 1) * patch,
                ]
                # (out, colour, time, row, column) against (time, row, column, colour)
                token = np.einsum("octhw,thwc->o", weights[f"{kernel}.proj.weight"], cube)
                tokens.append(token + weights[f"{kernel}.proj.bias"])
                positions.append((float(time), row * stretch, column * stretch))
    x = np.array(tokens)
    if release == "2.1":
        x = x + weights["img_mod_embed" if image else "video_mod_embed"][0, 0]
    for i in range(depth):
        x = block(weights, f"blocks.{i}.", x, positions, heads, release, lambda looking, seen: True)
    return layer_norm(x, weights, "norm." if release == "2.0" else "norms_block.3.")


def predict(
    weights: Weights, features: Array, actions: Array, states: Array, depth: int, heads: int
) -> Array:
    """Features (T, P, W) that follow each of `features` (T, P, W), under actions and states (T, 7)."""
    side = math.isqrt(features.shape[1])
    tokens: list[Array] = []
    positions: list[Position] = []
    times: list[int] = []
    for time in range(len(features)):
        tokens.append(linear(actions[time], weights, "action_encoder."))
        tokens.append(linear(states[time], weights, "state_encoder."))
        positions += [(time, None, None), (time, None, None)]
        for patch, feature in enumerate(features[time]):
            tokens.append(linear(feature, weights, "predictor_embed."))
            positions.append((time, patch // side, patch % side))
        times += [time] * (2 + features.shape[1])
    x = np.array(tokens)
    for i in range(depth):
        prefix = f"predictor_blocks.{i}."
        x = block(weights, prefix, x, positions, heads, "2.0", lambda a, b: times[b] <= times[a])
    x = linear(layer_norm(x, weights, "predictor_norm."), weights, "predictor_proj.")
    return np.array([row[2:] for row in x.reshape(len(features), -1, features.shape[2])])


def block(
    weights: Weights,
    prefix: str,
    x: Array,
    positions: Sequence[Position],
    heads: int,
    release: str,
    may_see: Callable[[int, int], bool],
) -> Array:
    """One transformer block over tokens (N, W)."""
    count, width = x.shape
    normed = layer_norm(x, weights, f"{prefix}norm1.")
    queries, keys, values = np.split(linear(normed, weights, f"{prefix}attn.qkv."), 3, axis=1)
    visible = np.array([[may_see(i, j) for j in range(count)] for i in range(count)])
    size = width // heads
    turns = [turn(position, size, release) for position in positions]
    mixed = []
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        q = np.array([matrix @ vector for matrix, vector in zip(turns, queries[:, own], strict=True)])
        k = np.array([matrix @ vector for matrix, vector in zip(turns, keys[:, own], strict=True)])
        scores = np.where(visible, q @ k.T / math.sqrt(size), -np.inf)
        shares = np.exp(scores - scores.max(1, keepdims=True))
        mixed.append(shares / shares.sum(1, keepdims=True) @ values[:, own])
    x = x + linear(np.concatenate(mixed, axis=1), weights, f"{prefix}attn.proj.")
    hidden = linear(layer_norm(x, weights, f"{prefix}norm2."), weights, f"{prefix}mlp.fc1.")
    hidden = hidden * 0.5 * (1 + _erf(hidden / math.sqrt(2)))
    return x + linear(hidden, weights, f"{prefix}mlp.fc2.")


def turn(position: Position, size: int, release: str) -> Array:
    """The matrix (size, size) that a query or key at a position (time, row, column) is multiplied by.

    A third of the features, rounded down to an even number, belongs to each coordinate; a coordinate that is
    None leaves its third as it is, and so is what remains.
    """
    matrix = np.eye(size)
    third = size // 3 - size // 3 % 2
    for axis, coordinate in enumerate(position):
        if coordinate is None:
            continue
        for i in range(third // 2):
            even, odd = axis * third + 2 * i, axis * third + 2 * i + 1
            if release == "2.0":  # the slip of the first release: even and odd have angles of their own
                angle_even, angle_odd = (
                    angle(coordinate, j % (third // 2), third) for j in (2 * i, 2 * i + 1)
                )
            else:
                angle_even = angle_odd = angle(coordinate, i, third)
            matrix[even, even], matrix[even, odd] = math.cos(angle_even), -math.sin(angle_even)
            matrix[odd, odd], matrix[odd, even] = math.cos(angle_odd), math.sin(angle_odd)
    return matrix


def angle(coordinate: float, index: int, third: int) -> float:
    return coordinate * 10_000.0 ** (-2 * index / third)


def linear(x: Array, weights: Weights, prefix: str) -> Array:
    return x @ weights[f"{prefix}weight"].T + weights[f"{prefix}bias"]


def layer_norm(x: Array, weights: Weights, prefix: str) -> Array:
    deviation = x - x.mean(-1, keepdims=True)
    scaled = deviation / np.sqrt((deviation**2).mean(-1, keepdims=True) + 1e-6)
    return scaled * weights[f"{prefix}weight"] + weights[f"{prefix}bias"]
