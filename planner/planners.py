"""The planners by name: `hold` and `random` (baselines), `mode1` (reflex), `cem`, `mode2` (reasoning)."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from planner.bundle import ActionSpace, Bundle
from planner.contract import Array, Observation, Plan, Planner
from planner.energy import TimeToGo, latent_distance, path_energy
from planner.errors import PlannerError
from planner.optimisers.cem import CemConfig, optimise
from planner.world_model import Imagined, WorldModel


class HoldPlanner:
    """Baseline: never moves."""

    name = "hold"

    def __init__(self, action: ActionSpace) -> None:
        self._actions = np.zeros((action.block, action.dim), np.float32)

    def begin(self, goal: Array) -> None:
        pass

    def plan(self, observation: Observation) -> Plan:
        return Plan(self._actions, 0.0, 1, 0.0)


class RandomPlanner:
    """Baseline: a uniformly random action, kept for one model step."""

    name = "random"

    def __init__(self, action: ActionSpace, seed: int) -> None:
        self._action = action
        self._rng = np.random.default_rng([seed, 0x4A])

    def begin(self, goal: Array) -> None:
        pass

    def plan(self, observation: Observation) -> Plan:
        limit = self._action.limit_m
        actions = self._rng.uniform(-limit, limit, (self._action.block, self._action.dim))
        return Plan(actions.astype(np.float32), 0.0, 1, 0.0)


class LatentPlanner(ABC):
    """What the planners that use the world model share: goal, action units, and the last plan as a start."""

    name: str
    horizon: int

    def __init__(self, world_model: WorldModel, action: ActionSpace, seed: int) -> None:
        self.world_model = world_model
        self.action = action
        self.energy = TimeToGo(world_model)
        self._seed = seed
        self._rng = np.random.default_rng(seed)
        self._goal: Array | None = None
        self._last: tuple[int, Array] | None = None

    @property
    def goal(self) -> Array:
        if self._goal is None:
            raise PlannerError("no goal to pursue: call begin() first")
        return self._goal

    def begin(self, goal: Array) -> None:
        self._goal = np.asarray(goal, dtype=np.float32)
        self._last = None
        self._rng = np.random.default_rng(self._seed)

    def plan(self, observation: Observation) -> Plan:
        started = time.perf_counter()
        blocks, energy, candidates = self.search(observation)
        actions = blocks.reshape(-1, self.action.dim)
        self._last = (observation.stamp_ns, actions)
        return Plan(actions * self.action.limit_m, energy, candidates, time.perf_counter() - started)

    @abstractmethod
    def search(self, observation: Observation) -> tuple[Array, float, int]:
        """The chosen blocks (H, block·A) in −1…1, their energy, and how many sequences were compared."""

    def warm_start(self, stamp_ns: int) -> Array:
        """The rest of the last plan at `stamp_ns`, then zeros: (H, block·A) in −1…1. Zeros without one."""
        rest = np.zeros((self.horizon * self.action.block, self.action.dim), np.float32)
        if self._last is not None:
            stamp, actions = self._last
            passed = round((stamp_ns - stamp) * 1e-9 / self.action.period_s)
            left = actions[passed : passed + len(rest)]
            rest[: len(left)] = left
        return rest.reshape(self.horizon, -1)


class Mode1Planner(LatentPlanner):
    """Reflex only: the goal-conditioned proposal, told the learned time-to-go as the steps left."""

    name = "mode1"
    horizon = 1

    def search(self, observation: Observation) -> tuple[Array, float, int]:
        latent = observation.latent[None]
        steps = self.energy(latent, self.goal)
        left = np.clip(steps, 1.0, self.world_model.max_steps)
        return self.world_model.propose(latent, self.goal, left), float(steps[0]), 1


class CemPlanner(LatentPlanner):
    """Plain CEM under the distance of latents, as planners without a learned energy or proposal do."""

    name = "cem"
    horizon = 8
    config = CemConfig(samples=200, iterations=4, elites=20, std=0.6)

    def search(self, observation: Observation) -> tuple[Array, float, int]:
        def cost(sequences: Array) -> Array:
            return path_energy(
                latent_distance, self.world_model.rollout(observation, sequences).latents, self.goal
            )

        blocks, energy = optimise(cost, self.warm_start(observation.stamp_ns), self.config, self._rng)
        return blocks, energy, self.config.samples * self.config.iterations


class Mode2Planner(LatentPlanner):
    """Reasoning: Mode-1 imagined for several times of arrival, the best kept, then refined by a short CEM.

    Both are judged by the learned time-to-go, which is trusted as far as it was seen to be right: while the
    goal is further than `trusted_steps`, an optimiser would exploit its errors where play never went, so the
    choice stays among what the reflex would do. Nearer, staying put and the rest of the last plan compete
    too, and the refinement never loses to its own start.
    """

    name = "mode2"
    horizon = 6
    arrivals = 12
    trusted_steps = 8.0
    config = CemConfig(samples=48, iterations=1, elites=8, std=0.2)

    def search(self, observation: Observation) -> tuple[Array, float, int]:
        model, goal = self.world_model, self.goal
        arrivals = np.linspace(1, model.max_steps, self.arrivals, dtype=np.float32)
        imagined = model.rollout_reflex(observation, goal, arrivals, self.horizon)
        if float(self.energy(observation.latent[None], goal)[0]) > self.trusted_steps:
            blocks, energy = self._best(imagined)
            return blocks, energy, self.arrivals
        warm = self.warm_start(observation.stamp_ns)
        others = model.rollout(observation, np.stack([warm, np.zeros_like(warm)]))
        start, _ = self._best(imagined, others)

        def cost(sequences: Array) -> Array:
            return path_energy(self.energy, model.rollout(observation, sequences).latents, goal)

        blocks, energy = optimise(cost, start, self.config, self._rng)
        return blocks, energy, self.arrivals + 2 + self.config.samples * self.config.iterations

    def _best(self, *futures: Imagined) -> tuple[Array, float]:
        """The actions (H, block·A) of the future with the least energy, and that energy."""
        latents = np.concatenate([future.latents for future in futures])
        energies = path_energy(self.energy, latents, self.goal)
        best = int(np.argmin(energies))
        return np.concatenate([future.actions for future in futures])[best], float(energies[best])


PLANNERS: dict[str, Callable[[Bundle, int], Planner]] = {
    "hold": lambda bundle, seed: HoldPlanner(bundle.action),
    "random": lambda bundle, seed: RandomPlanner(bundle.action, seed),
    "mode1": lambda bundle, seed: Mode1Planner(bundle.world_model(), bundle.action, seed),
    "cem": lambda bundle, seed: CemPlanner(bundle.world_model(), bundle.action, seed),
    "mode2": lambda bundle, seed: Mode2Planner(bundle.world_model(), bundle.action, seed),
}


def make_planner(name: str, bundle: Bundle, seed: int = 0) -> Planner:
    """The planner called `name`, over the bundle's world model. Raises PlannerError for any other name."""
    if name not in PLANNERS:
        raise PlannerError(f"no planner {name!r}; there are {', '.join(PLANNERS)}")
    return PLANNERS[name](bundle, seed)
