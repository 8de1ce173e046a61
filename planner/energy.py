"""Energies: how far latents are from the goal's latent. Lower is nearer; zero is there."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from planner.contract import Array
from planner.world_model import Imagined, WorldModel


class Energy(Protocol):
    """Latents (N, D) with normalised tool states (N, P), and a goal latent (D,), to energies (N,)."""

    def __call__(self, latents: Array, tools: Array, goal: Array) -> Array: ...


def latent_distance(latents: Array, tools: Array, goal: Array) -> Array:
    """Mean squared difference of latents: needs no training, but the arm's own pose dominates it."""
    return np.asarray(np.mean((latents - goal) ** 2, axis=1, dtype=np.float32))


class TimeToGo:
    """Learned: expected model steps to the goal, from a classifier trained on hindsight goals of play."""

    def __init__(self, world_model: WorldModel) -> None:
        self._world_model = world_model

    def __call__(self, latents: Array, tools: Array, goal: Array) -> Array:
        return self._world_model.steps_to_go(latents, tools, goal)


def energies_along(energy: Energy, imagined: Imagined, goal: Array) -> Array:
    """Energies (N, H) of every step of N imagined futures."""
    latents, tools = (steps.reshape(-1, steps.shape[-1]) for steps in (imagined.latents, imagined.tools))
    return energy(latents, tools, goal).reshape(imagined.latents.shape[:2])


def of_path(along: Array) -> Array:
    """Energy (N,) of paths from those of their steps (N, H): the mean, the end counting once more in full.

    The mean rewards getting near early and staying; the end keeps the last step from being a detail.
    """
    return np.asarray(along.mean(1) + along[:, -1])


def path_energy(energy: Energy, imagined: Imagined, goal: Array) -> Array:
    """Energy (N,) of N imagined futures."""
    return of_path(energies_along(energy, imagined, goal))
