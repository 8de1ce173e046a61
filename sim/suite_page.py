"""The page of `eval --suite full`: what results.json says, as tables and charts, and films of what failed.

write_suite_page(out / "report.html", figures, scatter, films)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.report import write_page
from sim.results import HOLD_S, TOLERANCE_M
from sim.suite_cells import NOMINAL, Cell
from sim.suite_charts import energy_against_distance, open_loop_error, success_against_plan_time
from sim.suite_films import BASELINES, Scene

PAGE = Path(__file__).with_name("suite.html")
SUCCESSES = "held, for comparison"


def write_suite_page(
    path: Path,
    figures: Mapping[str, Any],
    scatter: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    films: Mapping[str, Sequence[tuple[Scene, str]]],
) -> None:
    """Write the page to `path`, whole or not at all.

    `figures` is the content of results.json; by task, `scatter` holds energies and true distances in metres,
    `films` the scenes with their cards.
    """
    tasks = list(dict.fromkeys(cell["task"] for cell in figures["cells"]))
    planned = [cell for cell in figures["cells"] if _is_nominal(cell) and cell["planner"] not in BASELINES]
    write_page(
        path,
        PAGE,
        title=f"jepa-arm: {len(tasks)} task{'s' * (len(tasks) != 1)}, {figures['episodes']} episodes a cell",
        overview="\n".join(f'<a class="badge" href="#task-{task}">{task}</a>' for task in tasks),
        about=_about(figures),
        matrix=_matrix(figures["cells"], tasks),
        missing="\n".join(_missing(task, made_by) for task, made_by in figures["missing"].items()),
        plan_time=success_against_plan_time(planned) if planned else "<p>No planner was run.</p>",
        open_loop=open_loop_error(figures["open_loop"]) if tasks else "<p>No bundle to measure.</p>",
        tasks="\n".join(_task(task, figures, scatter[task], films[task]) for task in tasks),
    )


def _about(figures: Mapping[str, Any]) -> str:
    bundles = ", ".join(
        f"{escape(name)} (sha256 {sha256[:12]}…)" for name, sha256 in figures["bundles"].items()
    )
    return (
        f"Held success: the goal within {TOLERANCE_M * 100:g} cm for {HOLD_S:g} s without a break, with its "
        f"95 % Wilson interval. The same goals for all, {figures['episodes']} of seed {figures['seed']}, "
        "each with twice the time of its scripted demonstration, and a second. "
        f"Bundles: {bundles or 'none'}."
    )


def _matrix(cells: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> str:
    """Rows: planners, then perturbations; columns: tasks."""
    found = {(_row(cell), cell["task"]): cell for cell in cells}
    names = list(dict.fromkeys(_row(cell) for cell in sorted(cells, key=lambda cell: not _is_nominal(cell))))
    rows = [
        [name, *(_held(found[name, task]) if (name, task) in found else "" for task in tasks)]
        for name in names
    ]
    return _table(["planner", *tasks], rows)


def _missing(task: str, made_by: Sequence[str]) -> str:
    commands = "\n".join(map(escape, made_by))
    told = f"<b>{task}</b> was not measured: its bundle is not there. These commands make it:"
    return f'<div class="panel"><p>{told}</p><pre>{commands}</pre></div>'


def _task(
    task: str,
    figures: Mapping[str, Any],
    scatter: tuple[NDArray[np.float64], NDArray[np.float64]],
    films: Sequence[tuple[Scene, str]],
) -> str:
    cells = [cell for cell in figures["cells"] if cell["task"] == task]
    head = ["planner", "held", "success", "≤ 2 cm", "≤ 5 cm", "median", "plan p50, p99", "how it failed"]
    parts = [
        f'<h2 id="task-{task}">{task}</h2>',
        f'<div class="panel">{_table(head, [_cell_row(cell) for cell in cells])}</div>',
    ]
    panels = []
    if len(scatter[0]):
        correlation = figures["energy_distance"][task]["spearman"]
        panels.append(energy_against_distance(task, *scatter, correlation))
    if task in figures["surprise"]:
        panels.append(_surprise(figures["surprise"][task]))
    parts += [
        '<section class="top">',
        *(f'<div class="panel">{panel}</div>' for panel in panels),
        "</section>",
        *_films(films),
    ]
    return "\n".join(parts)


def _cell_row(cell: Mapping[str, Any]) -> list[str]:
    failures = " · ".join(f"{count} {kind}" for kind, count in cell["failures"].items())
    times = f"{cell['plan_ms_p50']:.1f}, {cell['plan_ms_p99']:.1f} ms"
    return [
        _row(cell),
        _held(cell),
        _rate(cell["success_rate"], cell["wilson_low"], cell["wilson_high"]),
        _percent(cell["final_within_2cm"]),
        _percent(cell["final_within_5cm"]),
        f"{cell['distance_cm_median']:.1f} cm",
        "" if cell["planner"] in BASELINES else times,
        f'<span class="failures">{failures}</span>',
    ]


def _films(films: Sequence[tuple[Scene, str]]) -> list[str]:
    parts = []
    for kind, same in groupby(films, key=lambda pair: pair[0].kind):
        parts.append(f'<h3 class="kind">{SUCCESSES if kind is None else kind.value}</h3>')
        parts += [card for _, card in same]
    return parts


def _surprise(figures: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            f"{row['auroc']:.3f}" if "auroc" in row else "",
            *(_percent(row[f"{level}_rate"]) for level in ("slow", "hold", "stop")),
            f"{row['delay_s_p50']:.1f} s" if row.get("delay_s_p50") is not None else "",
            str(row["episodes"]),
        ]
        for name, row in figures.items()
    ]
    head = ["surprise", "AUROC", "slowed", "held", "stopped", "delay of hold", "episodes"]
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first of a row is its name; cells are HTML."""
    top = "".join(f'<th scope="col">{name}</th>' for name in head)
    body = "\n".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table>"


def _held(cell: Mapping[str, Any]) -> str:
    return _rate(cell["held_success_rate"], cell["held_wilson_low"], cell["held_wilson_high"])


def _rate(rate: float, low: float, high: float) -> str:
    return f'{_percent(rate)}<span class="note">{100 * low:.0f}–{100 * high:.0f}</span>'


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _row(cell: Mapping[str, Any]) -> str:
    return Cell(cell["task"], cell["planner"], cell["perturbation"]).row


def _is_nominal(cell: Mapping[str, Any]) -> bool:
    return bool(cell["perturbation"] == NOMINAL)
