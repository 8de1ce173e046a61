"""`jepa-arm eval --suite full`: tasks × planners × perturbations, as one page and one JSON.

    OUT/report.html, OUT/results.json
    OUT/cells/TASK.PLANNER.PERTURBATION/     the cell's episodes as they come, and films of some

A run that was cut goes on with the episodes that are missing. Runs with different --tasks may fill one OUT
side by side; one with all of them then writes the page.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from perception.runtimes.onnx import file_sha256
from planner.bundle import DESCRIPTION, Bundle, load_bundle
from sim.conditions import PERTURBATIONS
from sim.errors import SimulationError
from sim.evaluate import (
    check_counts,
    episode_seeds,
    fitting_bundle,
    refuse_options,
    shipped_bundle,
    write_json,
)
from sim.open_loop import open_loop_errors
from sim.results import EpisodeResult
from sim.shared_evaluation import evaluate_on
from sim.suite_cells import PERTURBED_PLANNER, Cell, CellLog, cells_of
from sim.suite_figures import (
    cell_figures,
    energy_and_distance,
    open_loop_figures,
    spearman,
    surprise_found,
)
from sim.suite_films import Scene, choose_scenes, film_card
from sim.suite_page import write_suite_page
from sim.tasks import TASKS, Task, make_task
from sim.workers import Workers, open_workers

PLANNERS = ("hold", "random", "scripted", "mode1", "cem", "mode2")
RECIPES = Path("perception/jepa/recipes")


@dataclass(frozen=True)
class Suite:
    """What is to be run: bundles by task, the cells and their logs, the tasks that have no bundle."""

    out: Path
    seed: int
    seeds: range
    bundles: Mapping[str, Bundle]
    logs: Mapping[Cell, CellLog]
    missing: Sequence[Task]

    def results(self, task: str) -> dict[Cell, list[EpisodeResult]]:
        """The episodes that were asked for, of every cell of `task`."""
        return {
            cell: [log.results[seed] for seed in self.seeds]
            for cell, log in self.logs.items()
            if cell.task == task
        }


def run_full_suite(args: argparse.Namespace) -> int:
    suite = plan_suite(args)
    with open_workers(args.workers, args.ray) as workers:
        measure(suite, workers)
    figures = suite_figures(suite)
    write_json(suite.out / "results.json", figures)
    scatter = {task: energy_and_distance(suite.results(task)) for task in suite.bundles}
    write_suite_page(suite.out / "report.html", figures, scatter, film(suite))
    print(f"report in {suite.out / 'report.html'}, figures in {suite.out / 'results.json'}")
    return 0


def plan_suite(args: argparse.Namespace) -> Suite:
    """What the command line asks for. Raises SimulationError before anything is run if it cannot be."""
    check_counts(args)
    refuse_options(args, ("task", "anomaly", "json", "budget_ms"), "does not go with --suite full")
    if args.planner != PERTURBED_PLANNER:
        raise SimulationError(f"--suite full takes several planners: --planners {args.planner}")
    if args.out is None:
        raise SimulationError("--suite full keeps what it measures: name a folder with --out")
    planners = args.planners.split(",") if args.planners else PLANNERS
    if args.perturb and PERTURBED_PLANNER not in planners:
        raise SimulationError(f"--perturb is measured with {PERTURBED_PLANNER}: add it to --planners")
    perturbations = args.perturb.split(",") if args.perturb else PERTURBATIONS
    tasks = [make_task(name) for name in (args.tasks.split(",") if args.tasks else TASKS)]
    bundles = find_bundles(tasks, str(args.bundle).split(",") if args.bundle else [])
    logs = {
        cell: CellLog(args.out / "cells" / cell.name, bundles[task.name])
        for task in tasks
        if task.name in bundles
        for cell in cells_of(task, planners, perturbations)
    }
    missing = [task for task in tasks if task.name not in bundles]
    return Suite(args.out, args.seed, episode_seeds(args), bundles, logs, missing)


def find_bundles(tasks: Sequence[Task], given: Sequence[str]) -> dict[str, Bundle]:
    """By task: the given bundle that was trained for it, else the shipped one if it is there."""
    paths: dict[str, Path] = {}
    for folder in map(Path, given):
        trained_as = load_bundle(folder).info.task
        if trained_as not in {task.trained_as for task in tasks} - paths.keys():
            raise SimulationError(
                f"--bundle {folder}, trained for {trained_as}, serves none of --tasks that has no other: "
                "leave it out"
            )
        paths[trained_as] = folder
    return {
        task.name: fitting_bundle(path, task)
        for task in tasks
        if ((path := paths.get(task.trained_as, shipped_bundle(task.trained_as))) / DESCRIPTION).is_file()
    }


def measure(suite: Suite, workers: Workers) -> None:
    """Run the episodes that are missing, a line for each cell that is finished."""
    todo = {cell: [s for s in suite.seeds if s not in log.results] for cell, log in suite.logs.items()}
    total = sum(map(len, todo.values()))
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"),
    )
    started = time.monotonic()
    with Progress(*columns) as progress:
        bar = progress.add_task("episodes", total=total, left="")
        done = 0
        for cell, seeds in todo.items():
            progress.update(bar, description=cell.name)
            bundle = suite.bundles[cell.task]
            for result in evaluate_on(workers, cell.task, cell.planner, bundle, seeds, cell.perturbation):
                suite.logs[cell].append(result)
                done += 1
                left = _left((time.monotonic() - started) / done * (total - done))
                progress.update(bar, advance=1, left=left)
            if seeds:
                held = sum(suite.logs[cell].results[seed].held for seed in suite.seeds)
                progress.console.print(f"{cell.name}: held {held} of {len(suite.seeds)}; {left}")


def suite_figures(suite: Suite) -> dict[str, Any]:
    """The content of results.json."""
    by_task = {task: suite.results(task) for task in suite.bundles}
    steps = {task: energy_and_distance(cells) for task, cells in by_task.items()}
    return {
        "episodes": len(suite.seeds),
        "seed": suite.seed,
        "bundles": {b.name: file_sha256(b.path / DESCRIPTION) for b in suite.bundles.values()},
        "cells": [cell_figures(cell, r) for cells in by_task.values() for cell, r in cells.items()],
        "energy_distance": {
            task: {"spearman": spearman(*pair), "steps": len(pair[0])} for task, pair in steps.items()
        },
        "open_loop": {
            task: open_loop_figures(open_loop_errors(make_task(task), bundle), bundle.action.step_ns * 1e-9)
            for task, bundle in suite.bundles.items()
        },
        "surprise": surprise_found(suite.out),
        "missing": {task.name: made_by(task) for task in suite.missing},
    }


def film(suite: Suite) -> dict[str, list[tuple[Scene, str]]]:
    """By task, the scenes worth a look and their cards."""
    scenes = {task: choose_scenes(suite.results(task)) for task in suite.bundles}
    films: dict[str, list[tuple[Scene, str]]] = {task: [] for task in scenes}
    with Progress(TextColumn("films"), BarColumn(), MofNCompleteColumn()) as progress:
        bar = progress.add_task("films", total=sum(map(len, scenes.values())))
        for task, chosen in scenes.items():
            for scene in chosen:
                card = film_card(suite.logs[scene.cell].folder, scene, suite.bundles[task])
                films[task].append((scene, card))
                progress.advance(bar)
    return films


def made_by(task: Task) -> list[str]:
    """The commands that make the shipped bundle of `task`."""
    name, recipe = shipped_bundle(task.trained_as).name, RECIPES / f"{task.trained_as}.yaml"
    config = f" --config {recipe}" if (Path(__file__).parent.parent / recipe).is_file() else ""
    return [
        f"jepa-arm collect --task {task.trained_as} --out data/{name}",
        f"jepa-arm train --data data/{name} --out runs/{name}{config}",
        f"jepa-arm export --run runs/{name} --out models/{name}",
    ]


def _left(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min left"
