"""The receding-horizon loop: remember latents, plan from the newest, act on the first action, again.

loop = RecedingHorizon(bundle, make_planner("mode2", bundle))
loop.begin(goal_latent)
loop.observe(latent, tool_position, stamp_ns)      # each frame
decision = loop.decide()                           # when it is time to
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from planner.bundle import Bundle
from planner.contract import Array, Observation, Planner
from planner.errors import PlannerError
from planner.registry import make_planner
from planner.surprise import LONGEST, SHORTEST, Caution, SurpriseMonitor

# Arrived: the learned time-to-go stays below this many model steps for this long. An arm on its way covers
# them in less; at rest on the goal, time-to-go is still wrong by about as many.
REACHED_STEPS = 3.0
REACHED_HOLD_NS = 1_000_000_000
# A command that is followed later than this after its frame, or has no successor for that long, does not do
# what the world model was told: commands are refused or run out then.
ON_TIME_NS = 110_000_000

__all__ = ["Decision", "RecedingHorizon", "make_planner"]


@dataclass(frozen=True)
class Decision:
    """What to do now: `action` (A,) metres over one action period, decided from the frame at `stamp_ns`.

    `steps_to_go` is the learned distance to the goal in model steps; `surprise` how far the last steps are
    from what the model expects (`perception.surprise`), NaN until two have been seen, and `caution` what that
    asks of the safety gate; `reached` says that the goal has been met, and held, for a second;
    `dropped` what the planner had no time for, in words.
    """

    action: Array
    energy: float
    steps_to_go: float
    surprise: float
    caution: Caution
    plan_ms: float
    candidates: int
    reached: bool
    stamp_ns: int
    dropped: str


class RecedingHorizon:
    """Pursues one goal at a time with a planner, from a stream of latents stamped in nanoseconds."""

    def __init__(self, bundle: Bundle, planner: Planner) -> None:
        self._action = bundle.action
        self._latent_dim = bundle.info.latent_dim
        self._tool_dim = bundle.info.tool.dim
        self._world_model = bundle.world_model()
        self._monitor = SurpriseMonitor(bundle, self._world_model)
        self._planner = planner
        self._goal: Array | None = None
        self._history: deque[tuple[int, Array, Array]] = deque()
        self._decisions: deque[tuple[int, Array]] = deque()
        self._shares: deque[tuple[int, float | None]] = deque([(0, 1.0)])
        self._followed: dict[int, int] | None = None
        self._began_ns = 0
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
        # What happened before, to whomever's orders, is no surprise.
        self._began_ns = self._history[-1][0] if self._history else 0
        self._planner.begin(latent)

    def end(self) -> None:
        """Pursue nothing any more."""
        self._goal = None

    def permit(self, share: float | None, stamp_ns: int) -> None:
        """From `stamp_ns` on `share` of the decided motion reaches the arm: the safety gate's word.

        Without it that is all. None says that the gate has stopped the arm: until it goes on nothing
        surprises, and what happened in the meantime does not either.
        """
        if self._shares[-1][1] is None:
            self._began_ns = stamp_ns
        self._shares.append((stamp_ns, share))

    def followed(self, decided_ns: int, now_ns: int) -> None:
        """The gate has begun, now, to follow the command decided from the frame at `decided_ns`.

        Whoever calls this calls it for every command: one that was refused or late is told by its absence.
        Where nobody does, all are taken to be followed at once.
        """
        if self._followed is None:
            self._followed = {}
        self._followed[decided_ns] = now_ns - decided_ns

    def observe(self, latent: ArrayLike, tool_position: ArrayLike, stamp_ns: int) -> None:
        """Remember a latent (D,) and the tool state (P,) in metres; late or broken ones are dropped."""
        z = np.asarray(latent, dtype=np.float32)
        tool = np.asarray(tool_position, dtype=np.float32)
        if z.shape != (self._latent_dim,) or tool.shape != (self._tool_dim,):
            return
        if not (np.isfinite(z).all() and np.isfinite(tool).all()):
            return
        if self._history and stamp_ns <= self._history[-1][0]:
            return
        self._history.append((stamp_ns, z, tool))
        horizon_ns = LONGEST * self._action.step_ns
        while self._history[0][0] < stamp_ns - horizon_ns:
            self._history.popleft()
        for past in (self._decisions, self._shares):
            # The last of those from before is in force at the beginning.
            while len(past) > 1 and past[1][0] < stamp_ns - horizon_ns:
                past.popleft()
        if self._followed is not None:
            begin_ns = stamp_ns - 2 * horizon_ns
            self._followed = {at: delay for at, delay in self._followed.items() if at >= begin_ns}

    def decide(self) -> Decision | None:
        """Plan from the newest latent. None while the last model step has a gap in it, or without a goal."""
        if self._goal is None or not self._history:
            return None
        stamp_ns = self._history[-1][0]
        observation = self._observation(stamp_ns)
        if observation is None:
            return None
        plan = self._planner.plan(observation)
        steps = self._world_model.steps_from(observation, self._goal)
        surprise, caution = self._surprise(stamp_ns)
        action = np.clip(plan.actions[0], -self._action.limit_m, self._action.limit_m)
        self._decisions.append((stamp_ns, action))
        return Decision(
            action=action,
            energy=plan.energy,
            steps_to_go=steps,
            surprise=surprise,
            caution=caution,
            plan_ms=plan.elapsed_s * 1e3,
            candidates=plan.candidates,
            reached=self._is_reached(steps, stamp_ns),
            stamp_ns=stamp_ns,
            dropped=plan.dropped,
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

    def _surprise(self, stamp_ns: int) -> tuple[float, Caution]:
        """How much the last model steps since `begin` surprise, under the actions that reached the arm."""
        if self._shares[-1][1] is None:
            return float("nan"), Caution.CALM
        steps: list[tuple[int, Array, Array]] = []
        while len(steps) < LONGEST:
            step = self._at(stamp_ns - len(steps) * self._action.step_ns)
            if step is None or step[0] < self._began_ns:
                break
            steps.insert(0, step)
        if len(steps) < SHORTEST:
            return float("nan"), Caution.CALM
        actions = np.array([self._block_from(step[0]) for step in steps[:-1]], np.float32)
        latents, tools = (np.array([step[i] for step in steps], np.float32) for i in (1, 2))
        if not self._went_as_decided(steps[0][0], stamp_ns):
            return self._monitor.judge(latents, tools, None)
        return self._monitor.judge(latents, tools, actions)

    def _went_as_decided(self, from_ns: int, to_ns: int) -> bool:
        """Whether what was decided in this time reached the arm on time and without a gap."""
        if self._followed is None:
            return True
        # The newest command may still be on its way, and has not done much yet.
        decided = [at for at, _ in self._decisions if from_ns - ON_TIME_NS <= at <= to_ns - ON_TIME_NS]
        on_time = all(self._followed.get(at, ON_TIME_NS + 1) <= ON_TIME_NS for at in decided)
        return on_time and all(b - a <= ON_TIME_NS for a, b in pairwise([*decided, to_ns - ON_TIME_NS]))

    def _block_from(self, stamp_ns: int) -> Array:
        """The action block (block·A,) in −1…1 that reached the arm from `stamp_ns` on."""
        period_ns = round(self._action.period_s * 1e9)
        block = [self._action_at(stamp_ns + i * period_ns) for i in range(self._action.block)]
        return np.concatenate(block) / np.float32(self._action.limit_m)

    def _action_at(self, stamp_ns: int) -> Array:
        """The action in force at `stamp_ns`, as far as the gate let it through; zeros before the first."""
        limit_ns = stamp_ns + 0.25e9 * self._action.period_s
        for decided_ns, action in reversed(self._decisions):
            if decided_ns <= limit_ns:
                share = next(
                    (share for since_ns, share in reversed(self._shares) if since_ns <= limit_ns), 1.0
                )
                return action * np.float32(share or 0.0)
        return np.zeros(self._action.dim, np.float32)

    def _is_reached(self, steps: float, stamp_ns: int) -> bool:
        if steps > REACHED_STEPS:
            self._near_since_ns = None
            return False
        if self._near_since_ns is None:
            self._near_since_ns = stamp_ns
        return stamp_ns - self._near_since_ns >= REACHED_HOLD_NS
