"""Which episodes of `eval --suite full` are shown as films, and how these are made: by running them again.

An episode is decided by its seed, so what is filmed is what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hardware.robot import load_robot
from planner.bundle import Bundle
from sim.control import DECISION_S
from sim.episode_record import EpisodeRecord
from sim.failures import Failure, sort_failure
from sim.pilots import make_pilot
from sim.protocol import episode_conditions, run_episode
from sim.report_card import episode_card
from sim.results import EpisodeResult
from sim.suite_cells import NOMINAL, PERTURBED_PLANNER, Cell
from sim.tasks import make_loop, make_task, new_episode

# Of one task.
MOST_FAILURES = 10
MOST_SUCCESSES = 2
# Their failures tell nothing about a planner.
BASELINES = ("hold", "random", "scripted")


@dataclass(frozen=True)
class Scene:
    """An episode worth a film; `kind` is None for a success."""

    cell: Cell
    seed: int
    kind: Failure | None


def choose_scenes(cells: Mapping[Cell, Sequence[EpisodeResult]]) -> list[Scene]:
    """Of one task's cells: failures of every kind in turn, Mode-2's before others', and some successes."""
    shown = sorted((cell for cell in cells if cell.planner not in BASELINES), key=_precedence)
    scenes = [
        Scene(cell, result.seed, sort_failure(result, grasps=make_task(cell.task).grasps))
        for cell in shown
        for result in cells[cell]
    ]
    by_kind = {kind: [scene for scene in scenes if scene.kind is kind] for kind in Failure}
    most = max(map(len, by_kind.values()))
    in_turn = [same[i] for i in range(most) for same in by_kind.values() if i < len(same)]
    failures = sorted(
        in_turn[:MOST_FAILURES], key=lambda scene: list(Failure).index(scene.kind or Failure.STOPPED)
    )
    return failures + [scene for scene in scenes if scene.kind is None][:MOST_SUCCESSES]


def film_card(folder: Path, scene: Scene, bundle: Bundle) -> str:
    """The scene's card for a page: from its cell's folder, or filmed now and kept there."""
    path = folder / f"film-{scene.seed}.html"
    if not path.exists():
        card = episode_card(film(scene.cell, bundle, scene.seed), compact=True)
        unfinished = path.with_suffix(".part")
        unfinished.write_text(card, encoding="utf-8")
        unfinished.replace(path)
    return path.read_text(encoding="utf-8")


def film(cell: Cell, bundle: Bundle, seed: int) -> EpisodeRecord:
    """Run the episode of `seed` again and keep what the camera saw."""
    task = make_task(cell.task)
    loop = make_loop(task, load_robot(bundle.robot))
    try:
        episode = new_episode(task, loop, seed, episode_conditions(seed, cell.perturbation))
        frames: list[NDArray[np.uint8]] = []
        camera = loop.look

        def look() -> NDArray[np.uint8]:
            frames.append(camera())
            return frames[-1]

        loop.look = look
        result = run_episode(task, loop, episode, make_pilot(cell.planner, bundle, task, seed))
    finally:
        loop.world.close()
    # The arm rests for one model step before the first decision, while the camera runs.
    begin_s = DECISION_S * (len(frames) - len(result.distances_m))
    times_s = np.array([begin_s + DECISION_S * step for step in range(len(result.distances_m))])
    return EpisodeRecord(
        seed=seed,
        goal_image=episode.goal_image,
        frames=np.array(frames),
        fps=round(1 / DECISION_S),
        distance_times_s=times_s + DECISION_S,
        distances_m=np.array(result.distances_m),
        energy_times_s=times_s,
        energies=np.array(result.energies),
        success=result.success,
        held=result.held,
        latencies_ms=np.array(result.plan_ms),
        label=f"{cell.task}, {cell.row}, seed {seed}",
    )


def _precedence(cell: Cell) -> tuple[bool, bool, str, str]:
    return cell.planner != PERTURBED_PLANNER, cell.perturbation != NOMINAL, cell.planner, cell.perturbation
