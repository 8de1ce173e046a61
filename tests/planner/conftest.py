"""A toy world for planners: a point in the plane that goes where the actions push it, and sees it all."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from perception.surprise import Yardstick
from planner.bundle import ActionSpace, ToolNormalisation
from planner.contract import Array, Observation, Plan
from planner.world_model import Imagined, State

LIMIT_M, PERIOD_NS = 0.02, 100_000_000


class ToyWorldModel:
    """Latent = (x, y) in units of the action limit; a block of two actions adds up; steps to go are exact."""

    block_dim = 4
    max_steps = 20

    def prepare(self, **sizes: object) -> None:
        pass

    def steps_to_go(self, latents: Array, tools: Array, goal: Array) -> Array:
        """Both actions of a step at full speed cover two units on each axis."""
        return (np.abs(latents - goal).max(1) / 2).astype(np.float32)

    def steps_from(self, observation: Observation, goal: Array) -> float:
        return float(self.steps_to_go(observation.latent[None], observation.tool[None], goal)[0])

    def propose(self, latents: Array, tools: Array, goal: Array, steps_left: Array) -> Array:
        step = np.clip((goal - latents) / (2 * steps_left[:, None]), -1, 1).astype(np.float32)
        return np.tile(step, (1, 2))

    def rollout(self, start: Observation | State, actions: Array) -> Imagined:
        moves = actions.reshape(*actions.shape[:2], 2, 2).sum(2)
        here = start.latent if isinstance(start, Observation) else start.latent[:, None]
        latents = (here + moves.cumsum(1)).astype(np.float32)
        return Imagined(latents, latents, actions, State(latents[:, -1], latents[:, -1], latents[:, -1]))

    def rollout_reflex(
        self, observation: Observation, goal: Array, arrivals: Array, others: Array
    ) -> Imagined:
        latent, actions = np.tile(observation.latent, (len(arrivals), 1)), []
        for step in range(others.shape[1]):
            actions.append(self.propose(latent, latent, goal, np.maximum(arrivals - step, 1)))
            latent = latent + actions[-1].reshape(-1, 2, 2).sum(1)
        return self.rollout(observation, np.concatenate([np.stack(actions, 1), others]))

    def normalise(self, tool: Array) -> Array:
        return tool

    def predict(self, latent: Array, previous: Array, tool: Array, actions: Array) -> tuple[Array, Array]:
        """The tool is not part of this world: it stays."""
        return latent + actions.reshape(-1, 2, 2).sum(1), tool


@dataclass(frozen=True)
class ToySurprise:
    """One unit of surprise is a latent that is off by 0.5, or a tool by 1 cm; nothing else counts."""

    scales: dict[str, float] = field(
        default_factory=lambda: {"latent": 0.25, "tool": 0.01, "outlier": 1e30, "stillness": 1e30}
    )
    slow: float = 2.0
    hold: float = 3.0
    stop: float = 5.0


@dataclass(frozen=True)
class ToyInfo:
    latent_dim: int = 2
    surprise: ToySurprise = ToySurprise()
    tool: ToolNormalisation = ToolNormalisation(
        mean=(0.5, 0.0, 0.1), std=(1.0, 1.0, 1.0), low=(-9.0, -9.0, -9.0), high=(9.0, 9.0, 9.0)
    )


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

    def yardstick(self) -> Yardstick:
        return Yardstick(*(np.float32(array) for array in (np.eye(2), np.eye(2), np.zeros(2), np.ones(3))))


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
