"""What a bundle's graphs are fed on held-out data: the ranges that a quantiser has to cover."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.runtimes.registry import REFERENCE
from planner.bundle import Bundle
from planner.held_out import HeldOut


def calibration_rows(bundle: Bundle, held_out: HeldOut) -> dict[str, dict[str, NDArray[Any]]]:
    """Inputs by name for each graph, by the graph's name: one row for each step of the stretches."""
    exact = bundle.on(REFERENCE)
    model = exact.world_model()
    frames, tool = held_out.frames, model.normalise(held_out.tool)
    latents = exact.encoder().encode(frames.reshape(-1, *frames.shape[2:])).reshape(*frames.shape[:2], -1)
    goals = np.broadcast_to(latents[:, -1:], latents.shape)
    left = np.broadcast_to(
        np.arange(latents.shape[1], 0, -1, dtype=np.float32)[:, None], (*frames.shape[:2], 1)
    )
    of_heads = {"latent": _rows(latents), "goal": _rows(goals)}
    if model.heads_told_tool:
        of_heads["tool"] = _rows(tool)
    steps = slice(1, -1)
    return {
        "encoder": {"image": frames.reshape(-1, *frames.shape[2:])},
        "predictor": {
            "latent": _rows(latents[:, steps]),
            "previous": _rows(latents[:, :-2]),
            "tool": _rows(tool[:, steps]),
            "actions": _rows(held_out.blocks[:, 1:]),
        },
        "proposal": {**of_heads, "steps_left": _rows(left)},
        "energy": of_heads,
    }


def _rows(array: NDArray[Any]) -> NDArray[np.float32]:
    """(K, L, D) → (K·L, D)."""
    return np.ascontiguousarray(array.reshape(-1, array.shape[-1]), np.float32)
