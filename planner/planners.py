"""What plans: the baselines, the reflex alone (Mode-1), plain search, and reasoning (Mode-2)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from planner.budget import Allowance, Budget
from planner.bundle import Bundle
from planner.constraints import MotionLimits
from planner.contract import Array, Observation, Plan
from planner.energy import TimeToGo, latent_distance, path_energy
from planner.errors import PlannerError
from planner.optimisers.cem import Cem
from planner.optimisers.contract import CostAndGradient, Effort, Optimiser, Problem
from planner.optimisers.gradient import Gradient
from planner.optimisers.icem import Icem
from planner.optimisers.mppi import Mppi
from planner.scoring import PathCost, going_on_of

if TYPE_CHECKING:
    from planner.differentiable import DifferentiableModel


class HoldPlanner:
    """Baseline: never moves."""

    name = "hold"

    def __init__(self, bundle: Bundle) -> None:
        self._actions = np.zeros((bundle.action.block, bundle.action.dim), np.float32)

    def begin(self, goal: Array) -> None:
        pass

    def plan(self, observation: Observation) -> Plan:
        return Plan(self._actions, 0.0, 1, 0.0)


class RandomPlanner:
    """Baseline: a uniformly random action, kept for one model step."""

    name = "random"

    def __init__(self, bundle: Bundle, seed: int) -> None:
        self._action = bundle.action
        self._limits = MotionLimits(bundle.action, bundle.info.tool)
        self._rng = np.random.default_rng([seed, 0x4A])

    def begin(self, goal: Array) -> None:
        pass

    def plan(self, observation: Observation) -> Plan:
        sequence = self._rng.uniform(-1, 1, (1, self._action.block, self._action.dim))
        actions = self._limits.allow(sequence.astype(np.float32), observation.tool)[0]
        return Plan(actions * np.float32(self._action.limit_m), 0.0, 1, 0.0)


@dataclass(frozen=True)
class Found:
    """The chosen sequence (T, A) in −1…1, its energy, how many were compared, what was dropped for time."""

    actions: Array
    energy: float
    candidates: int
    dropped: str = ""


class LatentPlanner(ABC):
    """What the planners that use the world model share: goal, limits, time, and the last plan as a start."""

    name: str
    horizon: int

    def __init__(self, bundle: Bundle, seed: int = 0, budget: Budget | None = None) -> None:
        self.world_model = bundle.world_model()
        self.action = bundle.action
        self.limits = MotionLimits(bundle.action, bundle.info.tool)
        self.energy = TimeToGo(self.world_model)
        self.budget = budget or Budget()
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
        self.budget.start()
        found = self.search(observation)
        self._last = (observation.stamp_ns, found.actions)
        actions = found.actions * np.float32(self.action.limit_m)
        return Plan(actions, found.energy, found.candidates, self.budget.elapsed_s, found.dropped)

    @abstractmethod
    def search(self, observation: Observation) -> Found: ...

    def allow(self, sequences: Array, observation: Observation) -> Array:
        return self.limits.allow(sequences, observation.tool)

    def warm_start(self, stamp_ns: int) -> Array:
        """The rest of the last plan at `stamp_ns`, then zeros: (T, A) in −1…1. Zeros without one."""
        rest = np.zeros((self.horizon * self.action.block, self.action.dim), np.float32)
        if self._last is not None:
            _, actions = self._last
            passed = self.passed(stamp_ns)
            left = actions[passed : passed + len(rest)]
            rest[: len(left)] = left
        return rest

    def passed(self, stamp_ns: int) -> int:
        """How many actions of the last plan are over at `stamp_ns`; without a plan, as many as one has."""
        if self._last is None:
            return self.horizon * self.action.block
        return round((stamp_ns - self._last[0]) * 1e-9 / self.action.period_s)

    def problem(
        self,
        cost: PathCost,
        observation: Observation,
        horizon: int,
        cost_and_gradient: CostAndGradient | None = None,
    ) -> Problem:
        """What the optimisers need to know to search for sequences of `horizon` model steps."""
        return Problem(
            cost=cost,
            allow=lambda sequences: self.allow(sequences, observation),
            switches=self.limits.switches,
            time_for=lambda samples: self.budget.time_for(samples, horizon),
            cost_and_gradient=cost_and_gradient,
        )

    def refine(
        self, optimiser: Optimiser, problem: Problem, seed: Array, effort: Effort, horizon: int
    ) -> tuple[Array, float, int, int]:
        """The optimiser's best sequence, its cost, candidates and iterations; the time it took is learned."""
        began = self.budget.clock()
        solution = optimiser.optimise(problem, seed, effort, self._rng)
        each = (self.budget.clock() - began) / solution.iterations
        self.budget.refining.learn(solution.candidates // solution.iterations, horizon, each)
        return solution.actions, solution.cost, solution.candidates, solution.iterations


class Mode1Planner(LatentPlanner):
    """Reflex only: the goal-conditioned proposal, told the learned time-to-go as the steps left."""

    name = "mode1"
    horizon = 1

    def __init__(self, bundle: Bundle, seed: int = 0, budget: Budget | None = None) -> None:
        super().__init__(bundle, seed, budget)
        self.world_model.prepare(propose=[1])

    def search(self, observation: Observation) -> Found:
        model = self.world_model
        steps = model.steps_from(observation, self.goal)
        left = np.clip(np.array([steps], np.float32), 1.0, model.max_steps)
        tool = model.normalise(observation.tool)[None]
        block = model.propose(observation.latent[None], tool, self.goal, left)
        return Found(self.allow(block.reshape(1, -1, self.action.dim), observation)[0], steps, 1)


class CemPlanner(LatentPlanner):
    """Plain CEM under the distance of latents, as planners without a learned energy or proposal do."""

    name = "cem"
    horizon = 8
    optimiser = Cem(samples=200, iterations=4, elites=20, std=0.6)

    def __init__(self, bundle: Bundle, seed: int = 0, budget: Budget | None = None) -> None:
        super().__init__(bundle, seed, budget)
        self.world_model.prepare(predict=[self.optimiser.full.samples])

    def search(self, observation: Observation) -> Found:
        full = Allowance(self.horizon, self.optimiser.full)
        afford = self.budget.afford(full, seeds=0)
        cost = PathCost(self.world_model, latent_distance, observation, self.goal)
        problem = self.problem(cost, observation, afford.horizon)
        start = self.warm_start(observation.stamp_ns)[: afford.horizon * self.action.block]
        actions, energy, candidates, done = self.refine(
            self.optimiser, problem, start, afford.effort, afford.horizon
        )
        return Found(actions, energy, candidates, afford.shortfall(full, done))


MODE2 = Cem(samples=32, iterations=1, elites=8, std=0.2)
REFINERS: dict[str, Optimiser] = {
    "mode2": MODE2,
    "icem": Icem(samples=48, iterations=3, elites=8, std=0.2),
    "mppi": Mppi(samples=48, iterations=3, std=0.2),
    "gradient": Gradient(samples=8, iterations=10, std=0.2),
}


class Mode2Planner(LatentPlanner):
    """Reasoning: Mode-1 imagined for several times of arrival, the best kept, then refined by a short search.

    Both are judged by the learned time-to-go, which is trusted as far as it was seen to be right: while the
    goal is further than `trusted_steps`, whatever chooses by it exploits its errors where play never went, so
    the choice stays close to what Mode-1 does. Nearer, quite other times of arrival, staying put and the rest
    of the last plan compete too, and the refinement never loses to its own start.
    """

    trusted_steps = 8.0
    # Mode-1's own time of arrival and others: near the goal from 1 step on, far from it close to Mode-1's.
    arrival_count, latest_arrival, least_latest = 12, 1.5, 8.0
    far_earliest, far_latest = 0.75, 1.05
    kept_halfway = 0.5

    def __init__(
        self,
        bundle: Bundle,
        seed: int = 0,
        budget: Budget | None = None,
        name: str = "mode2",
        refiner: Optimiser | None = None,
        horizon: int = 6,
    ) -> None:
        super().__init__(bundle, seed, budget)
        self.name, self.refiner, self.horizon = name, refiner or REFINERS[name], horizon
        self._model = _differentiable(bundle, name) if self.refiner.needs_gradient else None
        self._fractions = np.linspace(0, 1, self.arrival_count - 1, dtype=np.float32)
        self._prepare()

    def search(self, observation: Observation) -> Found:
        steps = self.world_model.steps_from(observation, self.goal)
        near = steps <= self.trusted_steps
        arrivals = self.arrivals(steps)
        full = Allowance(self.horizon, self.refiner.full if near else Effort(0, 0))
        afford = self.budget.afford(full, len(arrivals) + 2 * near)
        warm = self.warm_start(observation.stamp_ns)[: afford.horizon * self.action.block]
        others = np.stack([warm, np.zeros_like(warm)])[: 2 * near]
        sequences, energies = self._imagine(observation, arrivals, others)
        best = int(np.argmin(energies))
        seed, energy, candidates, done = sequences[best], float(energies[best]), len(sequences), 0
        effort = afford.effort
        if effort.iterations and self.budget.time_for(effort.samples, afford.horizon):
            problem = self._refinement(observation, afford.horizon)
            seed, energy, more, done = self.refine(self.refiner, problem, seed, effort, afford.horizon)
            candidates += more
        return Found(seed, energy, candidates, afford.shortfall(full, done))

    def arrivals(self, steps: float) -> Array:
        """The times of arrival (N,) in model steps that are imagined when the goal is `steps` away. The first
        is Mode-1's own."""
        most = self.world_model.max_steps
        own = min(max(steps, 1.0), most)
        earliest, latest = 1.0, min(max(self.latest_arrival * steps, self.least_latest), most)
        if steps > self.trusted_steps:
            earliest, latest = self.far_earliest * own, min(self.far_latest * own, most)
        return np.append(own, earliest + self._fractions * (latest - earliest)).astype(np.float32)

    def _imagine(self, observation: Observation, arrivals: Array, others: Array) -> tuple[Array, Array]:
        """Mode-1's sequences for `arrivals`, then `others` (M, T, A), all made allowed; their energies."""
        began, model, dim = self.budget.clock(), self.world_model, self.action.dim
        horizon = others.shape[1] // self.action.block
        blocks = self.allow(others, observation).reshape(len(others), horizon, model.block_dim)
        imagined = model.rollout_reflex(observation, self.goal, arrivals, blocks)
        proposed = imagined.actions.reshape(len(imagined.actions), -1, dim)
        sequences = self.allow(proposed, observation)
        if (np.abs(sequences - proposed) > 1e-6).any():
            # The reflex led out of what is allowed: what comes of the allowed part is to be imagined anew.
            again = sequences.reshape(-1, horizon, model.block_dim)
            imagined = model.rollout(observation, again)
        energies = path_energy(self.energy, imagined, self.goal)
        energies[np.isnan(energies)] = np.inf  # which would be the least otherwise
        self.budget.seeding.learn(len(sequences), horizon, self.budget.clock() - began)
        return sequences, energies

    def _prepare(self) -> None:
        """For what a whole plan does, near the goal and far from it."""
        horizon, samples = self.horizon, self.refiner.full.samples
        seeds = (self.arrival_count, self.arrival_count + 2)
        kept, half = going_on_of(samples, self.kept_halfway), horizon // 2
        self.world_model.prepare(
            predict=[*seeds, samples, kept],
            propose=[self.arrival_count],
            steps_to_go=[*(count * horizon for count in seeds), samples * half, kept * (horizon - half)],
        )

    def _refinement(self, observation: Observation, horizon: int) -> Problem:
        cost = PathCost(self.world_model, self.energy, observation, self.goal, self.kept_halfway)
        model, goal = self._model, self.goal
        if model is None:
            return self.problem(cost, observation, horizon)
        return self.problem(
            cost,
            observation,
            horizon,
            lambda sequences: model.path_energy_and_gradient(observation, goal, sequences),
        )


def _differentiable(bundle: Bundle, name: str) -> DifferentiableModel:
    try:
        import planner.differentiable as differentiable
    except ModuleNotFoundError as error:
        raise PlannerError(
            f"planner {name} needs {error.name}, which is not installed: pip install 'jepa-arm[train]', "
            "or choose another planner"
        ) from error
    return differentiable.DifferentiableModel(bundle)
