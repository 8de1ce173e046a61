"""The evaluation protocol: fresh goals on given seeds, a fixed budget, success that is held.

Every goal is made by a scripted demonstration; the budget is twice its length, and a second to hold. Success
is the object, or the tool where there is none (reach), within 3 cm of the goal, and within 15° where turns
count (push-pose); a grasped object must be let go and at rest (pick-place). Held success is staying there for
1 s. An episode ends when it is held, the budget is used, or the safety gate has stopped the arm.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from hardware.robot import load_robot
from hardware.safety.status import Caution, SafetyState
from planner.bundle import Bundle
from sim.anomalies import Injection, new_episode_with
from sim.conditions import Conditions, perturbed
from sim.control import DECISION_S, ControlLoop
from sim.pilots import Pilot, make_pilot
from sim.results import EpisodeResult, HeldSuccess
from sim.tasks import Episode, Task, distance_m, make_loop, make_task, new_episode


def evaluate(
    task_name: str,
    planner: str,
    bundle: Bundle,
    seeds: Iterable[int],
    perturbation: str = "none",
    anomaly: str | None = None,
    budget_ms: float | None = None,
) -> Iterator[EpisodeResult]:
    """Run one episode a seed and yield its result. Planners see pictures and joints, nothing else."""
    task = make_task(task_name)
    loop = make_loop(task, load_robot(bundle.robot))
    try:
        for seed in seeds:
            conditions = episode_conditions(seed, perturbation)
            pilot = make_pilot(planner, bundle, task, seed, budget_ms)
            if anomaly is None:
                yield run_episode(task, loop, new_episode(task, loop, seed, conditions), pilot)
            else:
                episode, injection = new_episode_with(anomaly, task, loop, seed, conditions)
                yield run_episode(task, loop, episode, pilot, injection)
    finally:
        loop.world.close()


def episode_conditions(seed: int, perturbation: str) -> Conditions:
    """What differs in the episode of this seed: the same whoever pilots it."""
    return perturbed(perturbation, np.random.default_rng([seed, 0xC0]))


def run_episode(
    task: Task, loop: ControlLoop, episode: Episode, pilot: Pilot, injection: Injection | None = None
) -> EpisodeResult:
    """Pursue the episode's goal until it is held, the budget is used, or the gate has stopped the arm."""
    result = EpisodeResult(episode.seed, episode.start_distance_m, episode.budget_steps)
    result.anomaly_step = None if injection is None else injection.at_step
    success = HeldSuccess()
    pilot.begin(loop, episode)
    for step in range(episode.budget_steps):
        if injection is not None:
            injection.before(step)
        choice = pilot.act(loop)
        loop.execute(choice.action, choice.caution)
        distance = distance_m(task, loop, episode)
        success.update(distance, (step + 1) * DECISION_S)
        result.distances_m.append(distance)
        result.achieved.append(task.achieved(loop).tolist())
        result.energies.append(choice.energy)
        result.plan_ms.append(choice.plan_ms)
        result.dropped.append(choice.dropped)
        result.surprises.append(choice.surprise)
        gate = loop.gate.status
        stopped = gate.state in (SafetyState.STOPPING, SafetyState.STOPPED)
        result.cautions.append(Caution.STOP if stopped else gate.caution)
        if stopped:
            result.stopped_for = gate.reason.value
        if success.held or stopped:
            break
    result.success, result.held = success.reached, success.held
    return result
