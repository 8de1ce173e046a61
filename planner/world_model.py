"""The learned world model at run time: predictor, proposal and energy graphs, on the bundle's runtime.

Actions here are blocks in units of the action limit, float32 (N, block·A) in −1…1; tool positions are in
metres outside, normalised inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.runtimes.contract import Session
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
    """N imagined futures of H steps: `latents` (N, H, D), normalised `tools` (N, H, P), the blocks
    (N, H, block·A) that led there, the `end`."""

    latents: Array
    tools: Array
    actions: Array
    end: State


class WorldModel:
    """Imagines what actions would do. Open it once; calls are not thread-safe."""

    def __init__(self, bundle: Bundle) -> None:
        graphs, size = bundle.info.graphs, bundle.info.latent_dim
        self.block_dim = bundle.action.block * bundle.action.dim
        state = {"latent": size, "previous": size, "tool": bundle.info.tool.dim}
        self._predictor = bundle.open(graphs.predictor, {**state, "actions": self.block_dim})
        told = {"tool": bundle.info.tool.dim}
        self._proposal = bundle.open(graphs.proposal, {"latent": size, "goal": size, "steps_left": 1}, told)
        self._energy = bundle.open(graphs.energy, {"latent": size, "goal": size}, told)
        self.heads_told_tool = _is_told(self._energy)
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

    def propose(self, latents: Array, tools: Array, goal: Array, steps_left: Array) -> Array:
        """Mode-1: the block (N, block·A) that leads to `goal` (D,) in (N,) steps, from `latents` (N, D) and
        normalised `tools` (N, P).

        Of the answers that the reflex has, the likeliest; in bundles of before it has but one.
        """
        inputs = {
            "latent": latents,
            "goal": _rows(goal, len(latents)),
            "steps_left": steps_left[:, None].astype(np.float32),
        }
        actions, *logits = _run_head(self._proposal, inputs, tools)
        if not logits:
            return np.asarray(actions)
        return np.asarray(actions)[np.arange(len(latents)), np.argmax(logits[0], axis=1)]

    def steps_to_go(self, latents: Array, tools: Array, goal: Array) -> Array:
        """Learned time-to-go (N,) in model steps from `latents` (N, D), where normalised tool states are
        `tools` (N, P), to `goal` (D,)."""
        inputs = {"latent": latents, "goal": _rows(goal, len(latents))}
        (steps,) = _run_head(self._energy, inputs, tools)
        return np.asarray(steps)

    def steps_from(self, observation: Observation, goal: Array) -> float:
        """Learned time-to-go in model steps from an observation to `goal` (D,)."""
        tool = self.normalise(observation.tool)
        return float(self.steps_to_go(observation.latent[None], tool[None], goal)[0])

    def rollout(self, start: Observation | State, actions: Array) -> Imagined:
        """Imagine N action sequences (N, H, block·A) from an observation, or each from its own state."""
        count, horizon, _ = actions.shape
        state = self._state(start, count) if isinstance(start, Observation) else start
        latents, tools = _room_for(state, horizon)
        for step in range(horizon):
            state = self._advance(state, np.ascontiguousarray(actions[:, step]))
            latents[:, step], tools[:, step] = state.latent, state.tool
        return Imagined(latents, tools, actions, state)

    def rollout_reflex(
        self, observation: Observation, goal: Array, arrivals: Array, others: Array
    ) -> Imagined:
        """Imagine Mode-1 once for each number of steps to arrive in, `arrivals` (N,); after these rows come
        those of `others` (M, H, block·A), sequences imagined along with them for H steps as they are."""
        reflexes, horizon = len(arrivals), others.shape[1]
        state = self._state(observation, reflexes + len(others))
        latents, tools = _room_for(state, horizon)
        actions = np.empty((len(state.latent), horizon, self.block_dim), np.float32)
        actions[reflexes:] = others
        for step in range(horizon):
            left = np.maximum(arrivals - step, 1)
            now, tool = state.latent[:reflexes], state.tool[:reflexes]
            actions[:reflexes, step] = self.propose(now, tool, goal, left)
            state = self._advance(state, np.ascontiguousarray(actions[:, step]))
            latents[:, step], tools[:, step] = state.latent, state.tool
        return Imagined(latents, tools, actions, state)

    def _advance(self, state: State, actions: Array) -> State:
        following, tool = self.predict(state.latent, state.previous, state.tool, actions)
        return State(following, state.latent, tool)

    def _state(self, observation: Observation, count: int) -> State:
        tool = self.normalise(observation.tool)
        return State(*(_rows(row, count) for row in (observation.latent, observation.previous, tool)))


def _run_head(head: Session, inputs: dict[str, Array], tools: Array) -> Sequence[Array]:
    """The outputs of a head for `inputs`, which is told the normalised `tools` (N, P) if it asks for them."""
    return head.run(inputs | {"tool": tools} if _is_told(head) else inputs)


def _is_told(head: Session) -> bool:
    return any(port.name == "tool" for port in head.inputs)


def _rows(row: Array, count: int) -> Array:
    """`count` times the one row (D,), in a third of the time of np.tile: it is in every call."""
    return row[None].repeat(count, axis=0)


def _room_for(states: State, horizon: int) -> tuple[Array, Array]:
    """For the latents (N, H, D) and tools (N, H, P) that follow on N states."""
    latents, tools = (
        np.empty((len(rows), horizon, rows.shape[1]), np.float32) for rows in (states.latent, states.tool)
    )
    return latents, tools
