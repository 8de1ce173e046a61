"""The receding-horizon loop: remember latents, plan from the newest, act on the first action, again.

loop = RecedingHorizon(bundle, make_planner("mode2", bundle))
loop.begin(goal_latent)
loop.observe(latent, tool_position, stamp_ns)      # each frame
decision = loop.decide()                           # when it is time to
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from planner.bundle import Bundle
from planner.contract import Array, Observation, Planner
from planner.errors import PlannerError
from planner.planners import make_planner

# Arrived: the learned time-to-go stays below this many model steps for this long.
REACHED_STEPS = 0.5
REACHED_HOLD_NS = 1_000_000_000

__all__ = ["Decision", "RecedingHorizon", "make_planner"]


@dataclass(frozen=True)
class Decision:
    """What to do now: `action` (A,) metres over one action period, decided from the frame at `stamp_ns`.

    `steps_to_go` is the learned distance to the goal in model steps; `surprise` the prediction error of the
    last step as a multiple of its 99 % quantile on held-out data, NaN until two steps have been seen;
    `reached` says that the goal has been met, and held, for a second.
    """

    action: Array
    energy: float
    steps_to_go: float
    surprise: float
    plan_ms: float
    candidates: int
    reached: bool
    stamp_ns: int


class RecedingHorizon:
    """Pursues one goal at a time with a planner, from a stream of latents stamped in nanoseconds."""

    def __init__(self, bundle: Bundle, planner: Planner) -> None:
        self._action = bundle.action
        self._surprise_scale = bundle.info.surprise.p99
        self._latent_dim = bundle.info.latent_dim
        self._world_model = bundle.world_model()
        self._planner = planner
        self._goal: Array | None = None
        self._history: deque[tuple[int, Array, Array]] = deque()
        self._decisions: deque[tuple[int, Array]] = deque()
        self._near_since_ns: int | None = None

    def begin(self, goal: ArrayLike) -> None:
        """Pursue the goal latent (D,). Raises PlannerError if it is none of this bundle's."""
        latent = np.asarray(goal, dtype=np.float32)
        if latent.shape != (self._latent_dim,) or not np.isfinite(latent).all():
            raise PlannerError(
                f"the goal latent must be {self._latent_dim} finite numbers, not {latent.shape}"
            )
        self._goal = latent
        self._near_since_ns = None
        self._decisions.clear()
        self._planner.begin(latent)

    def end(self) -> None:
        """Pursue nothing any more."""
        self._goal = None

    def observe(self, latent: ArrayLike, tool_position: ArrayLike, stamp_ns: int) -> None:
        """Remember a latent (D,) and the tool (3,) metres at `stamp_ns`; late or broken ones are dropped."""
        z = np.asarray(latent, dtype=np.float32)
        tool = np.asarray(tool_position, dtype=np.float32)
        if z.shape != (self._latent_dim,) or tool.shape != (3,):
            return
        if not (np.isfinite(z).all() and np.isfinite(tool).all()):
            return
        if self._history and stamp_ns <= self._history[-1][0]:
            return
        self._history.append((stamp_ns, z, tool))
        horizon_ns = 3 * self._action.step_ns
        while self._history[0][0] < stamp_ns - horizon_ns:
            self._history.popleft()
        while self._decisions and self._decisions[0][0] < stamp_ns - 2 * horizon_ns:
            self._decisions.popleft()

    def decide(self) -> Decision | None:
        """Plan from the newest latent. None while the last model step has a gap in it, or without a goal."""
        if self._goal is None or not self._history:
            return None
        stamp_ns = self._history[-1][0]
        observation = self._observation(stamp_ns)
        if observation is None:
            return None
        plan = self._planner.plan(observation)
        steps = float(self._world_model.steps_to_go(observation.latent[None], self._goal)[0])
        surprise = self._surprise(observation)
        action = np.clip(plan.actions[0], -self._action.limit_m, self._action.limit_m)
        self._decisions.append((stamp_ns, action))
        return Decision(
            action=action,
            energy=plan.energy,
            steps_to_go=steps,
            surprise=surprise,
            plan_ms=plan.elapsed_s * 1e3,
            candidates=plan.candidates,
            reached=self._is_reached(steps, stamp_ns),
            stamp_ns=stamp_ns,
        )

    def _observation(self, stamp_ns: int) -> Observation | None:
        """Latents at `stamp_ns` and one model step earlier, or None if the history does not hold both."""
        now = self._at(stamp_ns)
        before = self._at(stamp_ns - self._action.step_ns)
        if now is None or before is None:
            return None
        return Observation(latent=now[1], previous=before[1], tool=now[2], stamp_ns=now[0])

    def _at(self, stamp_ns: int) -> tuple[int, Array, Array] | None:
        """The entry nearest to `stamp_ns`, if it is within half an action period."""
        if not self._history:
            return None
        nearest = min(self._history, key=lambda entry: abs(entry[0] - stamp_ns))
        return nearest if abs(nearest[0] - stamp_ns) <= 0.5e9 * self._action.period_s else None

    def _surprise(self, observation: Observation) -> float:
        """How wrong the model was about now, one step ago, under the actions that were then decided."""
        before = self._observation(observation.stamp_ns - self._action.step_ns)
        if before is None:
            return float("nan")
        block = [
            self._action_at(before.stamp_ns + round(i * self._action.period_s * 1e9))
            for i in range(self._action.block)
        ]
        actions = np.concatenate(block).astype(np.float32) / np.float32(self._action.limit_m)
        return self._world_model.surprise(before, actions, observation.latent) / self._surprise_scale

    def _action_at(self, stamp_ns: int) -> Array:
        """The action in force at `stamp_ns`; zeros before the first decision."""
        slack_ns = 0.25e9 * self._action.period_s
        for decided_ns, action in reversed(self._decisions):
            if decided_ns <= stamp_ns + slack_ns:
                return action
        return np.zeros(self._action.dim, np.float32)

    def _is_reached(self, steps: float, stamp_ns: int) -> bool:
        if steps > REACHED_STEPS:
            self._near_since_ns = None
            return False
        if self._near_since_ns is None:
            self._near_since_ns = stamp_ns
        return stamp_ns - self._near_since_ns >= REACHED_HOLD_NS
