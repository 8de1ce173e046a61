"""One whole Mode-2 plan on tensors: no shape and no branch depends on a value, so CUDA can capture it.

    plan = Mode2Plan(networks, bundle, refiner, horizon).to(device)
    plan.refinement.draw(generator)
    outputs = plan(inputs, last, iterations)

It is what `planner.planners.Mode2Planner` does; where that goes one way or another, this goes both and takes
one. Inputs and outputs are a vector each, so that each is one copy to the device or from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from planner.bundle import Bundle
from planner.constraints import MotionLimits
from planner.contract import Array, Observation
from planner.device.limits import TensorLimits
from planner.device.networks import Networks
from planner.device.refinement import Refinement
from planner.optimisers.cem import Cem
from planner.planners import Mode2Planner
from planner.scoring import FEW

UNKNOWN = float("inf")


class State(NamedTuple):
    """N states of the world model: latents (N, D) of now and one step ago, normalised tool states (N, P)."""

    latent: Tensor
    previous: Tensor
    tool: Tensor

    def take(self, rows: Tensor) -> State:
        return State(*(values.index_select(0, rows) for values in self))


@dataclass(frozen=True)
class Planned:
    """The chosen sequence (T, A) in −1…1 and its energy; the learned steps to go from where it starts."""

    actions: Array
    energy: float
    steps: float


class Mode2Plan(nn.Module):
    """Mode-1 imagined for several times of arrival, the best kept, near the goal refined.

    `refiner.samples`, `refiner.iterations` and `horizon` (model steps) fix all shapes.
    """

    fractions: Tensor
    order: Tensor
    tool_mean: Tensor
    tool_std: Tensor

    def __init__(self, networks: Networks, bundle: Bundle, refiner: Cem, horizon: int) -> None:
        super().__init__()
        info, action = bundle.info, bundle.action
        self.length, self.dim = horizon * action.block, action.dim
        self.trusted_steps, self.max_steps = Mode2Planner.trusted_steps, float(info.max_steps)
        self._horizon, self._block = horizon, action.block
        self._widths = (info.latent_dim, info.latent_dim, info.latent_dim, info.tool.dim, 1)
        self.networks = networks
        self.limits = TensorLimits(action, info.tool)
        switches = MotionLimits(action, info.tool).switches
        self.refinement = Refinement(refiner, switches, self.length)
        buffers = {
            "fractions": torch.linspace(0, 1, Mode2Planner.arrival_count - 1),
            "order": torch.arange(self.length),
            "tool_mean": torch.tensor(info.tool.mean),
            "tool_std": torch.tensor(info.tool.std),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)

    @property
    def inputs(self) -> int:
        return sum(self._widths)

    @property
    def outputs(self) -> int:
        return self.length * self.dim + 2

    def pack(self, observation: Observation, goal: Array, passed: int) -> Array:
        """The inputs of a plan, of whose last one `passed` actions are over, all of them if there is none."""
        parts = (observation.latent, observation.previous, goal, observation.tool, [passed])
        return np.concatenate(parts, dtype=np.float32)

    def unpack(self, outputs: Array) -> Planned:
        return Planned(outputs[:-2].reshape(-1, self.dim), float(outputs[-2]), float(outputs[-1]))

    def forward(self, inputs: Tensor, last: Tensor, iterations: int) -> Tensor:
        """Outputs of `inputs` and the `last` plan (T, A), refined by the first `iterations` of the search."""
        latent, previous, goal, tool, passed = inputs.split(self._widths)
        start = State(latent[None], previous[None], ((tool - self.tool_mean) / self.tool_std)[None])
        steps = self.networks.steps_to_go(start.latent, start.tool, goal)
        near = steps <= self.trusted_steps
        seeds = self._seeds(start, goal, tool, steps, self._rest(last, passed))
        energies = self._energies(start, goal, seeds)
        # Staying put and the last plan's rest compete near the goal only.
        energies[-2:].masked_fill_(~near, UNKNOWN)
        best = energies.argmin(0, keepdim=True)
        chosen, energy = seeds.index_select(0, best)[0], energies.index_select(0, best)
        if iterations:
            refined, less = self.refinement(
                lambda sequences: self._costs(start, goal, sequences),
                lambda sequences: self.limits(sequences, tool),
                chosen,
                iterations,
            )
            chosen, energy = torch.where(near, refined, chosen), torch.where(near, less, energy)
        return torch.cat([chosen.flatten(), energy, steps])

    def _rest(self, last: Tensor, passed: Tensor) -> Tensor:
        """`last` without the actions that are over, then zeros (T, A)."""
        at = self.order + passed
        over = (at < 0) | (at >= self.length)
        shifted = last.index_select(0, at.clamp(0, self.length - 1).long())
        return shifted.masked_fill(over[:, None], 0.0)

    def _seeds(self, start: State, goal: Tensor, tool: Tensor, steps: Tensor, rest: Tensor) -> Tensor:
        """Allowed sequences (N + 2, T, A): the reflex for N times of arrival, then `rest`, then staying."""
        arrivals = self._arrivals(steps)
        state, blocks = _rows(start, len(arrivals)), []
        for step in range(self._horizon):
            left = (arrivals - step).clamp(min=1)
            blocks.append(self.networks.propose(state.latent, state.tool, goal, left))
            state = self._advance(state, blocks[-1])
        reflex = torch.stack(blocks, 1).unflatten(2, (self._block, self.dim)).flatten(1, 2)
        return self.limits(torch.cat([reflex, torch.stack([rest, torch.zeros_like(rest)])]), tool)

    def _arrivals(self, steps: Tensor) -> Tensor:
        """Times of arrival (N,), Mode-1's own first, for a goal that is `steps` (1,) away."""
        own = steps.clamp(1, self.max_steps)
        latest = (Mode2Planner.latest_arrival * steps).clamp(min=Mode2Planner.least_latest)
        near = 1 + self.fractions * (latest.clamp(max=self.max_steps) - 1)
        earliest, latest = Mode2Planner.far_earliest * own, Mode2Planner.far_latest * own
        latest = latest.clamp(max=self.max_steps)
        far = earliest + self.fractions * (latest - earliest)
        return torch.cat([own, torch.where(steps <= self.trusted_steps, near, far)])

    def _energies(self, start: State, goal: Tensor, sequences: Tensor) -> Tensor:
        """Path energies (N,) of sequences (N, T, A)."""
        _, along = self._imagine(_rows(start, len(sequences)), goal, self._blocks(sequences))
        return _of_path(along)

    def _costs(self, start: State, goal: Tensor, sequences: Tensor) -> Tensor:
        """Path energies (N,), infinite for those that are given up halfway. The first never is."""
        count, half = len(sequences), self._horizon // 2
        going_on = max(round(Mode2Planner.kept_halfway * count), FEW)
        if going_on >= count or not half:
            return self._energies(start, goal, sequences)
        blocks = self._blocks(sequences)
        midway, early = self._imagine(_rows(start, count), goal, blocks[:, :half])
        hopes = _of_path(early)
        hopes[0].fill_(-UNKNOWN)
        better = hopes.topk(going_on, largest=False, sorted=False).indices
        blocks = blocks[:, half:].index_select(0, better)
        _, late = self._imagine(midway.take(better), goal, blocks)
        known = _of_path(torch.cat([early.index_select(0, better), late], 1))
        return torch.full_like(hopes, UNKNOWN).index_copy(0, better, known)

    def _imagine(self, state: State, goal: Tensor, blocks: Tensor) -> tuple[State, Tensor]:
        """Where blocks (N, H, block·A) lead, and the energies (N, H) along the way."""
        passed = []
        for block in blocks.unbind(1):
            state = self._advance(state, block)
            passed.append(state)
        latents, tools = (
            torch.stack([getattr(each, name) for each in passed], 1).flatten(0, 1)
            for name in ("latent", "tool")
        )
        along = self.networks.steps_to_go(latents, tools, goal)
        return state, along.unflatten(0, (len(blocks), len(passed)))

    def _advance(self, state: State, block: Tensor) -> State:
        following, tool = self.networks.predict(*state, block)
        return State(following, state.latent, tool)

    def _blocks(self, sequences: Tensor) -> Tensor:
        return sequences.unflatten(1, (self._horizon, self._block)).flatten(2)


def _rows(state: State, count: int) -> State:
    """`count` times the one state."""
    return State(*(values.repeat(count, 1) for values in state))


def _of_path(along: Tensor) -> Tensor:
    """`planner.energy.of_path`; what has no energy is infinitely far: a NaN must not win a comparison."""
    return (along.mean(1) + along[:, -1]).nan_to_num(nan=UNKNOWN, posinf=UNKNOWN)
