"""A toy world for planners: a point in the plane that goes where the actions push it, and sees it all."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from planner.bundle import ActionSpace
from planner.contract import Array, Observation, Plan
from planner.world_model import Imagined

LIMIT_M, PERIOD_NS = 0.02, 100_000_000


class ToyWorldModel:
    """Latent = (x, y) in units of the action limit; a block of two actions adds up; steps to go are exact."""

    block_dim = 4
    max_steps = 20

    def steps_to_go(self, latents: Array, goal: Array) -> Array:
        """Both actions of a step at full speed cover two units on each axis."""
        return (np.abs(latents - goal).max(1) / 2).astype(np.float32)

    def propose(self, latents: Array, goal: Array, steps_left: Array) -> Array:
        step = np.clip((goal - latents) / (2 * steps_left[:, None]), -1, 1).astype(np.float32)
        return np.tile(step, (1, 2))

    def rollout(self, observation: Observation, actions: Array) -> Imagined:
        moves = actions.reshape(*actions.shape[:2], 2, 2).sum(2)
        return Imagined((observation.latent + moves.cumsum(1)).astype(np.float32), actions)

    def rollout_reflex(
        self, observation: Observation, goal: Array, arrivals: Array, horizon: int
    ) -> Imagined:
        latent, latents, actions = np.tile(observation.latent, (len(arrivals), 1)), [], []
        for step in range(horizon):
            actions.append(self.propose(latent, goal, np.maximum(arrivals - step, 1)))
            latent = latent + actions[-1].reshape(-1, 2, 2).sum(1)
            latents.append(latent)
        return Imagined(np.stack(latents, 1), np.stack(actions, 1))

    def surprise(self, before: Observation, actions: Array, after: Array) -> float:
        return float(np.mean((before.latent + actions.reshape(2, 2).sum(0) - after) ** 2))


@dataclass(frozen=True)
class ToySurprise:
    p99: float = 0.25


@dataclass(frozen=True)
class ToyInfo:
    latent_dim: int = 2
    surprise: ToySurprise = ToySurprise()


@dataclass(frozen=True)
class ToyBundle:
    """What the planning loop reads of a bundle."""

    action: ActionSpace = ActionSpace(
        axes=("x", "y"), limit_m=LIMIT_M, period_s=0.1, block=2, fixed={"z": 0.0}
    )
    info: ToyInfo = ToyInfo()
    name: str = "toy"

    def world_model(self) -> ToyWorldModel:
        return ToyWorldModel()


@dataclass
class Scripted:
    """A planner that says what it is told to, and keeps what it was shown."""

    action: tuple[float, float] = (0.0, 0.0)
    name: str = "scripted"
    seen: list[Observation] = field(default_factory=list)
    goals: list[Array] = field(default_factory=list)

    def begin(self, goal: Array) -> None:
        self.goals.append(goal)

    def plan(self, observation: Observation) -> Plan:
        self.seen.append(observation)
        return Plan(
            np.array([self.action, (9.0, 9.0)], np.float32), energy=1.5, candidates=3, elapsed_s=0.002
        )


@pytest.fixture(scope="session")
def toy_bundle() -> ToyBundle:
    return ToyBundle()


@pytest.fixture
def scripted_planner() -> Scripted:
    return Scripted()
