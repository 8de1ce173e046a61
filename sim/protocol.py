"""The evaluation protocol: fresh goals on given seeds, a fixed budget, success that is held.

Every goal is made by a scripted demonstration; the budget is twice its length, and a second to hold. Success
is the object (push) or the tool (reach) within 3 cm of the goal; held success is staying there for 1 s. An
episode ends when it is held or the budget is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hardware.robot import load_robot
from planner.bundle import Bundle
from sim.control import DECISION_S, ControlLoop
from sim.pilots import Pilot, make_pilot
from sim.results import EpisodeResult, HeldSuccess
from sim.tasks import Episode, Task, distance_m, make_loop, make_task, new_episode


def evaluate(task_name: str, planner: str, bundle: Bundle, seeds: Iterable[int]) -> Iterator[EpisodeResult]:
    """Run one episode a seed and yield its result. Planners see pictures and joints, nothing else."""
    task = make_task(task_name)
    loop = make_loop(task, load_robot(bundle.robot))
    try:
        for seed in seeds:
            episode = new_episode(task, loop, seed)
            yield run_episode(task, loop, episode, make_pilot(planner, bundle, task, seed))
    finally:
        loop.world.close()


def run_episode(task: Task, loop: ControlLoop, episode: Episode, pilot: Pilot) -> EpisodeResult:
    """Pursue the episode's goal until it is held or the budget is used."""
    result = EpisodeResult(episode.seed, episode.start_distance_m, episode.budget_steps)
    success = HeldSuccess()
    pilot.begin(loop, episode)
    for step in range(episode.budget_steps):
        choice = pilot.act(loop)
        loop.execute(choice.action)
        distance = distance_m(task, loop, episode)
        success.update(distance, (step + 1) * DECISION_S)
        result.distances_m.append(distance)
        result.energies.append(choice.energy)
        result.plan_ms.append(choice.plan_ms)
        if success.held:
            break
    result.success, result.held = success.reached, success.held
    return result
