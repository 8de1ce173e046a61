"""Who steers an episode: the scripted policy, which sees the truth, or a planner, which sees pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from perception.preprocessing import prepare
from planner.bundle import Bundle
from planner.mpc import RecedingHorizon, make_planner
from sim.control import ControlLoop
from sim.push_to_pose import PushSketch, PushToPose
from sim.scripts import MoveTo, PickPlace, Policy, PushTo, limited
from sim.tasks import Episode, Task


@dataclass(frozen=True)
class Choice:
    """An action (A,) metres, with its plan's energy, time and what was dropped, what surprise asks for."""

    action: NDArray[np.float64]
    energy: float = 0.0
    plan_ms: float = 0.0
    surprise: float = float("nan")
    caution: int = 0
    dropped: str = ""


class Pilot(Protocol):
    def begin(self, loop: ControlLoop, episode: Episode) -> None: ...

    def act(self, loop: ControlLoop) -> Choice: ...


class ScriptedPilot:
    """Baseline: a script that steers by the object's true pose."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._policy: Policy | None = None

    def begin(self, loop: ControlLoop, episode: Episode) -> None:
        self._policy = _script_to(self._task, loop, episode)

    def act(self, loop: ControlLoop) -> Choice:
        assert self._policy is not None
        action = self._policy(loop)
        return Choice(
            np.zeros(self._task.action_dim) if action is None else limited(action, self._task.action_limit_m)
        )


class PicturePilot:
    """A planner in lockstep: picture → latent → decision, as the ROS graph does in real time."""

    def __init__(self, bundle: Bundle, planner_name: str, seed: int, budget_ms: float | None = None) -> None:
        self._encoder = bundle.encoder()
        self._action = bundle.action
        self._horizon = RecedingHorizon(bundle, make_planner(planner_name, bundle, seed, budget_ms))

    def begin(self, loop: ControlLoop, episode: Episode) -> None:
        """Take up the goal; the arm rests for one model step, so that there is a latent before this one."""
        self._horizon.begin(self._encode(episode.goal_image))
        for _ in range(self._action.block):
            self._observe(loop)
            loop.execute(np.zeros(self._action.dim))

    def act(self, loop: ControlLoop) -> Choice:
        # What the gate made of the last decision.
        self._horizon.permit(loop.gate.status.speed_share, self._looked_ns)
        self._observe(loop)
        decision = self._horizon.decide()
        if decision is None:
            return Choice(np.zeros(self._action.dim))
        return Choice(
            decision.action.astype(np.float64),
            decision.energy,
            decision.plan_ms,
            decision.surprise,
            decision.caution,
            decision.dropped,
        )

    def _observe(self, loop: ControlLoop) -> None:
        latent = self._encode(loop.look())
        self._looked_ns = loop.world.time_ns
        self._horizon.observe(latent, loop.tool_state(), self._looked_ns)

    def _encode(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._encoder.encode(prepare(image, self._encoder.spec.image_size)[None])[0]


def make_pilot(name: str, bundle: Bundle, task: Task, seed: int, budget_ms: float | None = None) -> Pilot:
    """`scripted`, or any planner's name, with a time budget for its plans if there is one."""
    if name == "scripted":
        return ScriptedPilot(task)
    return PicturePilot(bundle, name, seed, budget_ms)


def _script_to(task: Task, loop: ControlLoop, episode: Episode) -> Policy:
    """The script to the episode's goal: what planners are held against."""
    if task.block is None:
        return MoveTo(episode.goal[:3], task.action_limit_m)
    if task.turns_count:
        sketch, rng = PushSketch(task.block, loop.world.conditions), np.random.default_rng(episode.seed)
        return PushToPose(task, episode.goal[[0, 1, 3]], task.action_limit_m, rng, sketch)
    policy = PickPlace if task.grasps else PushTo
    return policy(episode.goal[:2], task.action_limit_m)
