"""`jepa-arm eval --suite surprise`: does surprise tell anomalous episodes from nominal ones, and how fast?

Every seed is run once as it is and once with each anomaly, the monitor acting through the gate. An episode's
surprise is the largest in it: of a nominal one over all of it, of an anomalous one from the anomaly on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from hardware.safety.status import Caution, Reason
from planner.bundle import Bundle
from sim.anomalies import anomalies_of
from sim.control import DECISION_S
from sim.evaluate import request, write_json
from sim.results import EpisodeResult, wilson_interval
from sim.shared_evaluation import evaluate_on
from sim.tasks import make_task
from sim.workers import Workers, open_workers

NOMINAL = "nominal"
LEVELS = (Caution.SLOW, Caution.HOLD, Caution.STOP)


def run_suite(args: argparse.Namespace, bundle: Bundle, seeds: Sequence[int]) -> int:
    """Run, print and write to --json what the command line asks for."""
    runs = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress, open_workers(args.workers, args.ray) as workers:
        bar = progress.add_task(NOMINAL, total=len(seeds) * (1 + len(anomalies_of(make_task(args.task)))))
        for run in surprise_suite(workers, args.task, args.planner, bundle, seeds, args.perturb):
            runs.append(run)
            progress.update(bar, advance=1, description=run[0])
    figures = surprise_figures(runs)
    Console().print(_table(figures))
    if args.json is not None:
        write_json(args.json, {**request(args), "surprise": figures})
    return 0


def surprise_suite(
    workers: Workers,
    task_name: str,
    planner: str,
    bundle: Bundle,
    seeds: Sequence[int],
    perturbation: str = "none",
) -> Iterator[tuple[str, EpisodeResult]]:
    """Run it all; each result with the name of its anomaly, or `nominal`."""
    for name in (NOMINAL, *anomalies_of(make_task(task_name))):
        anomaly = None if name == NOMINAL else name
        for result in evaluate_on(workers, task_name, planner, bundle, seeds, perturbation, anomaly):
            yield name, result


def surprise_figures(runs: Iterable[tuple[str, EpisodeResult]]) -> dict[str, Any]:
    """By anomaly: AUROC against nominal, how many episodes reached each level, and how long that took.

    Episodes that ended before their anomaly began are left out.
    """
    groups: dict[str, list[EpisodeResult]] = {}
    for name, result in runs:
        if len(result.cautions) > (result.anomaly_step or 0):
            groups.setdefault(name, []).append(result)
    nominal = groups.pop(NOMINAL)
    usual = [largest_surprise(result) for result in nominal]
    return {
        NOMINAL: {
            **_levels(nominal),
            "success_rate": float(np.mean([result.success for result in nominal])),
            "surprise_p50": float(np.median(usual)),
            "surprise_max": float(np.max(usual)),
        },
        **{
            name: {
                "auroc": auroc([largest_surprise(result) for result in results], usual),
                **_levels(results),
                "delay_s_p50": _median([_delay_s(result, Caution.HOLD) for result in results]),
            }
            for name, results in groups.items()
        },
    }


def largest_surprise(result: EpisodeResult) -> float:
    """From the anomaly on, if there is one; 0 where surprise was never known."""
    surprises = np.array(result.surprises[result.anomaly_step or 0 :])
    return float(np.max(surprises, initial=0.0, where=~np.isnan(surprises)))


def auroc(anomalous: Sequence[float], nominal: Sequence[float]) -> float:
    """The probability that an anomalous score is larger than a nominal one, ties counted half."""
    above = np.asarray(anomalous)[:, None] - np.asarray(nominal)[None]
    return float(np.mean((above > 0) + 0.5 * (above == 0)))


def _levels(results: list[EpisodeResult]) -> dict[str, Any]:
    """How many episodes reached each level, with the rate's Wilson interval."""
    figures: dict[str, Any] = {"episodes": len(results)}
    for level in LEVELS:
        reached = sum(_delay_s(result, level) is not None for result in results)
        figures[f"{level.name.lower()}_rate"] = reached / len(results)
        figures[f"{level.name.lower()}_wilson"] = wilson_interval(reached, len(results))
    return figures


def _delay_s(result: EpisodeResult, level: Caution) -> float | None:
    """From the anomaly's beginning until caution was at `level` or above; None if it never was.

    What the gate stopped for other reasons than surprise does not count.
    """
    begin = result.anomaly_step or 0
    for step, caution in enumerate(result.cautions[begin:]):
        if caution == Caution.STOP and result.stopped_for != Reason.SURPRISE.value:
            return None
        if caution >= level:
            return step * DECISION_S
    return None


def _median(delays: list[float | None]) -> float | None:
    known = [delay for delay in delays if delay is not None]
    return float(np.median(known)) if known else None


def _table(figures: dict[str, Any]) -> Table:
    table = Table("", "episodes", "AUROC", "slowed", "held", "stopped", "delay of hold [s]")
    for name, row in figures.items():
        score, delay = row.get("auroc"), row.get("delay_s_p50")
        table.add_row(
            name,
            str(row["episodes"]),
            "" if score is None else f"{score:.3f}",
            *(f"{row[f'{level.name.lower()}_rate']:.0%}" for level in LEVELS),
            "" if delay is None else f"{delay:.1f}",
        )
    return table
