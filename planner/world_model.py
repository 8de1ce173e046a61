"""The learned world model at run time: predictor, proposal and energy graphs, on the bundle's runtime.

Actions here are blocks in units of the action limit, float32 (N, block·A) in −1…1; tool positions are in
metres outside, normalised inside.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.bundle import Bundle
from planner.contract import Array, Observation


@dataclass(frozen=True)
class State:
    """N states of the world model: latents (N, D) of now and one step ago, normalised tool states (N, P)."""

    latent: Array
    previous: Array
    tool: Array

    def take(self, rows: NDArray[np.intp]) -> State:
        return State(self.latent[rows], self.previous[rows], self.tool[rows])


@dataclass(frozen=True)
class Imagined:
    """N imagined futures of H steps: `latents` (N, H, D), the blocks (N, H, block·A) of them, the `end`."""

    latents: Array
    actions: Array
    end: State


class WorldModel:
    """Imagines what actions would do. Open it once; calls are not thread-safe."""

    def __init__(self, bundle: Bundle) -> None:
        graphs, size = bundle.info.graphs, bundle.info.latent_dim
        self.block_dim = bundle.action.block * bundle.action.dim
        state = {"latent": size, "previous": size, "tool": bundle.info.tool.dim}
        self._predictor = bundle.open(graphs.predictor, {**state, "actions": self.block_dim})
        self._proposal = bundle.open(graphs.proposal, {"latent": size, "goal": size, "steps_left": 1})
        self._energy = bundle.open(graphs.energy, {"latent": size, "goal": size})
        self._tool_mean = np.array(bundle.info.tool.mean, dtype=np.float32)
        self._tool_std = np.array(bundle.info.tool.std, dtype=np.float32)
        self.max_steps = bundle.info.max_steps
        self.prepare(steps_to_go=[1])  # of every decision

    def prepare(
        self, predict: Iterable[int] = (), propose: Iterable[int] = (), steps_to_go: Iterable[int] = ()
    ) -> None:
        """Make each method as fast as it can be for so many rows at once; others may be slower."""
        for session, sizes in (
            (self._predictor, predict),
            (self._proposal, propose),
            (self._energy, steps_to_go),
        ):
            for rows in sizes:
                session.prepare(rows)

    def predict(self, latent: Array, previous: Array, tool: Array, actions: Array) -> tuple[Array, Array]:
        """One step: latents (N, D), normalised tool (N, P), actions (N, block·A) → next latent, next tool."""
        inputs = {"latent": latent, "previous": previous, "tool": tool, "actions": actions}
        following, moved = self._predictor.run(inputs)
        return following, moved

    def normalise(self, tool: Array) -> Array:
        """Tool states (..., P) in metres as the model takes them."""
        return ((tool - self._tool_mean) / self._tool_std).astype(np.float32)

    def propose(self, latents: Array, goal: Array, steps_left: Array) -> Array:
        """Mode-1: the block (N, block·A) that leads from `latents` (N, D) to `goal` (D,) in (N,) steps.

        Of the answers that the reflex has, the likeliest; in bundles of before it has but one.
        """
        inputs = {
            "latent": latents,
            "goal": np.broadcast_to(goal, latents.shape),
            "steps_left": steps_left[:, None].astype(np.float32),
        }
        actions, *logits = self._proposal.run(inputs)
        if not logits:
            return np.asarray(actions)
        return np.asarray(actions)[np.arange(len(latents)), np.argmax(logits[0], axis=1)]

    def steps_to_go(self, latents: Array, goal: Array) -> Array:
        """Learned time-to-go (N,) in model steps from `latents` (N, D) to `goal` (D,)."""
        (steps,) = self._energy.run({"latent": latents, "goal": np.broadcast_to(goal, latents.shape)})
        return np.asarray(steps)

    def rollout(self, start: Observation | State, actions: Array) -> Imagined:
        """Imagine N action sequences (N, H, block·A) from an observation, or each from its own state."""
        count, horizon, _ = actions.shape
        state = self._state(start, count) if isinstance(start, Observation) else start
        latents = np.empty((count, horizon, state.latent.shape[1]), np.float32)
        for step in range(horizon):
            state = self._advance(state, np.ascontiguousarray(actions[:, step]))
            latents[:, step] = state.latent
        return Imagined(latents, actions, state)

    def rollout_reflex(
        self, observation: Observation, goal: Array, arrivals: Array, others: Array
    ) -> Imagined:
        """Imagine Mode-1 once for each number of steps to arrive in, `arrivals` (N,); after these rows come
        those of `others` (M, H, block·A), sequences imagined along with them for H steps as they are."""
        reflexes, horizon = len(arrivals), others.shape[1]
        state = self._state(observation, reflexes + len(others))
        latents = np.empty((len(state.latent), horizon, state.latent.shape[1]), np.float32)
        actions = np.empty((len(state.latent), horizon, self.block_dim), np.float32)
        actions[reflexes:] = others
        for step in range(horizon):
            left = np.maximum(arrivals - step, 1)
            actions[:reflexes, step] = self.propose(state.latent[:reflexes], goal, left)
            state = self._advance(state, np.ascontiguousarray(actions[:, step]))
            latents[:, step] = state.latent
        return Imagined(latents, actions, state)

    def _advance(self, state: State, actions: Array) -> State:
        following, tool = self.predict(state.latent, state.previous, state.tool, actions)
        return State(following, state.latent, tool)

    def _state(self, observation: Observation, count: int) -> State:
        tool = self.normalise(observation.tool)
        return State(
            np.tile(observation.latent, (count, 1)),
            np.tile(observation.previous, (count, 1)),
            np.tile(tool, (count, 1)),
        )
