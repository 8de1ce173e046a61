"""A sample of episodes that nothing was trained on: what runtimes are compared by (`planner.accuracy`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.dataset import Episodes
from planner.contract import Array
from planner.errors import BundleError

FILE = "held_out.npz"
# Six times the twelve frames are half a megabyte, and give 1,200 candidates to rank.
STRETCHES, STRETCH_STEPS = 6, 12


@dataclass(frozen=True)
class HeldOut:
    """K stretches of L consecutive model steps; the last frame of each is its goal.

    `frames` uint8 (K, L, S, S, 3) RGB as the encoder takes them; `tool` float32 (K, L, P) metres; `blocks`
    float32 (K, L−1, block·A): the actions between them, in units of the action limit (−1…1).
    """

    frames: NDArray[np.uint8]
    tool: Array
    blocks: Array

    def write(self, path: Path) -> None:
        np.savez_compressed(path, frames=self.frames, tool=self.tool, blocks=self.blocks)


def sample_held_out(episodes: Episodes, block: int, limit_m: float, seed: int = 0) -> HeldOut:
    """A stretch from each of STRETCHES episodes spread over `episodes`, from a random moment of it.

    Raises BundleError if the episodes are shorter than a stretch.
    """
    rng, parts = np.random.default_rng(seed), []
    steps = np.arange(STRETCH_STEPS) * block
    if episodes.actions.shape[1] < steps[-1]:
        raise BundleError(
            f"episodes of {episodes.actions.shape[1]} actions are too short to sample {steps[-1]} from: "
            "export without --data"
        )
    for index in np.linspace(0, len(episodes) - 1, STRETCHES).round().astype(int):
        first = int(rng.integers(episodes.actions.shape[1] - steps[-1] + 1))
        actions = episodes.actions[index, first : first + steps[-1]] / np.float32(limit_m)
        moments = first + steps
        parts.append(
            (
                episodes.frames[index, moments],
                episodes.tool[index, moments],
                actions.reshape(len(steps) - 1, -1),
            )
        )
    frames, tool, blocks = (np.stack(arrays) for arrays in zip(*parts, strict=True))
    return HeldOut(frames, tool, blocks.astype(np.float32))


def read_held_out(path: Path, image_size: int, tool_dim: int, block_dim: int) -> HeldOut:
    """Raises BundleError if the file is damaged or does not fit the bundle."""
    try:
        with np.load(path, allow_pickle=False) as file:
            held_out = HeldOut(file["frames"], file["tool"], file["blocks"])
    except Exception as error:  # whatever the parsers of zip and header make of damaged bytes
        raise BundleError(f"{path} cannot be read ({error}): export the bundle again") from error
    shape = held_out.frames.shape[:2]
    expected: dict[str, tuple[Any, tuple[int, ...]]] = {
        "frames": (np.uint8, (*shape, image_size, image_size, 3)),
        "tool": (np.float32, (*shape, tool_dim)),
        "blocks": (np.float32, (shape[0], shape[1] - 1, block_dim)),
    }
    for name, (dtype, wanted) in expected.items():
        array = getattr(held_out, name)
        if array.dtype != dtype or array.shape != wanted or not np.isfinite(array).all():
            raise BundleError(
                f"{path} holds {name} {array.dtype} {array.shape}, it should hold finite "
                f"{np.dtype(dtype)} {wanted}: export the bundle again"
            )
    return held_out
