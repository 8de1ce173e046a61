"""The shipped bundles on torch, and what they see of real held-out episodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from perception.runtimes.registry import offers
from planner.bundle import Bundle, load_bundle
from planner.contract import Array, Observation

MODELS = Path(__file__).parents[3] / "models"
PERIOD_NS = 100_000_000


@dataclass(frozen=True)
class Stretch:
    """Observations in order, one action apart by their stamps, and the goal they lead to."""

    observations: list[Observation]
    goal: Array


def on_torch(name: str) -> Bundle:
    (variant,) = next(offer.variants for offer in offers() if offer.runtime == "torch")
    return load_bundle(MODELS / name).on(variant)


@pytest.fixture(scope="session")
def push() -> Bundle:
    """Its reflex has four answers."""
    return on_torch("panda-push")


@pytest.fixture(scope="session")
def reach() -> Bundle:
    """Of before: its reflex has one answer."""
    return on_torch("panda-reach")


@pytest.fixture(scope="session")
def stretches(push: Bundle) -> list[Stretch]:
    """Of push: six, of episodes that nothing was trained on."""
    held_out = push.held_out()
    assert held_out is not None
    frames = held_out.frames
    latents = push.encoder().encode(frames.reshape(-1, *frames.shape[2:])).reshape(*frames.shape[:2], -1)
    return [
        Stretch(
            [
                Observation(seen[step], seen[step - 1], tool[step], step * PERIOD_NS)
                for step in range(1, len(seen) - 1)
            ],
            seen[-1],
        )
        for seen, tool in zip(latents, held_out.tool, strict=True)
    ]


@pytest.fixture(scope="session")
def draw_stretch() -> Callable[[Bundle, int], Stretch]:
    """Drawn latents that come nearer to their goal, the tool somewhere in its range."""

    def draw(bundle: Bundle, seed: int) -> Stretch:
        rng, dim, tool = np.random.default_rng(seed), bundle.info.latent_dim, bundle.info.tool
        goal, *noise = rng.standard_normal((9, dim)).astype(np.float32)
        latents = [goal + np.float32(0.5 * left) * drawn for left, drawn in zip(range(8, 0, -1), noise)]
        place = rng.uniform(tool.low, tool.high).astype(np.float32)
        observations = [
            Observation(now, before, place, step * PERIOD_NS)
            for step, (before, now) in enumerate(zip(latents, latents[1:]))
        ]
        return Stretch(observations, goal)

    return draw
