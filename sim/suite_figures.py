"""What `eval --suite full` says of the episodes it ran: one dictionary, as it is written to results.json."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.failures import Failure, sort_failure
from sim.open_loop import OpenLoopErrors
from sim.results import EpisodeResult, summarise
from sim.suite_cells import PERTURBED_PLANNER, Cell
from sim.tasks import make_task


def cell_figures(cell: Cell, results: Sequence[EpisodeResult]) -> dict[str, Any]:
    """Rates with intervals, distances, plan times, and how many failed in which way."""
    grasps = make_task(cell.task).grasps
    kinds = Counter(sort_failure(result, grasps=grasps) for result in results)
    return {
        "task": cell.task,
        "planner": cell.planner,
        "perturbation": cell.perturbation,
        **summarise(results),
        "failures": {kind.value: kinds[kind] for kind in Failure if kinds[kind]},
    }


def energy_and_distance(
    cells: Mapping[Cell, Sequence[EpisodeResult]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mode-2's energies, and the true distances in metres when it planned: all steps of all its episodes."""
    energies, distances = [np.zeros(0)], [np.zeros(0)]
    for cell, results in cells.items():
        if cell.planner == PERTURBED_PLANNER:
            for result in results:
                energies.append(np.array(result.energies))
                distances.append(np.array([result.start_distance_m, *result.distances_m[:-1]]))
    energy, distance = np.concatenate(energies), np.concatenate(distances)
    known = np.isfinite(energy)
    return energy[known], distance[known]


def spearman(a: ArrayLike, b: ArrayLike) -> float | None:
    """The rank correlation of two samples, ties sharing their mean rank; None where one is constant."""
    first, second = (_ranks(np.asarray(values, float)) for values in (a, b))
    if not first.size or min(np.ptp(first), np.ptp(second)) == 0.0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def open_loop_figures(errors: OpenLoopErrors, step_s: float) -> dict[str, Any]:
    return {
        "rollouts": errors.rollouts,
        "horizon_s": [round(step_s * (i + 1), 3) for i in range(len(errors.relative))],
        "predicted": errors.predicted.tolist(),
        "standing_still": errors.standing_still.tolist(),
        "relative": errors.relative.tolist(),
    }


def surprise_found(folder: Path) -> dict[str, dict[str, Any]]:
    """By task: what `eval --suite surprise --json FOLDER/….json` wrote into `folder`."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and {"surprise", "task", "planner"} <= content.keys():
            found[content["task"]] = content["surprise"]
    return found


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place])
