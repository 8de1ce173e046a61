"""The models' table: each row beside torch eager's, with its share of the roofline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.models import EAGER, Row
from benchmarks.roofline import Roofline
from benchmarks.timing import Timing

COLUMNS = (
    "model",
    "step",
    "batch",
    "runtime",
    "p50, ms",
    "p99, ms",
    "calls",
    "× torch eager",
    "GFLOP",
    "MB",
    "bound by",
    "of roofline",
)
WORDS = ("model", "step", "runtime", "bound by")


def table(rows: Sequence[Row], timings: Mapping[str, Timing], roofline: Roofline) -> list[dict[str, Any]]:
    """A dictionary for each row, figures rounded; `left_out` says why a row has no times."""
    eager = {
        (row.model, row.step, row.batch): timings[row.name].figures()["median_ms"]
        for row in rows
        if row.runtime == EAGER and row.run is not None
    }
    figures = []
    for row in rows:
        found: dict[str, Any] = {
            "model": row.model,
            "step": row.step,
            "batch": row.batch,
            "runtime": row.runtime,
            "precision": row.precision,
            "gflop": round(row.flops * 1e-9, 4),
            "mb": round(row.moved * 1e-6, 3),
            "bound_by": roofline.bound_by(row.flops, row.moved, row.precision) if row.flops else "",
        }
        if row.run is None:
            found["left_out"] = row.left_out
        else:
            measured = timings[row.name].figures()
            median_ms = measured["median_ms"]
            found |= {"p50_ms": median_ms, "p99_ms": measured["p99_ms"], "calls": measured["calls"]}
            beside = eager.get((row.model, row.step, row.batch))
            if beside is not None:
                found["times_torch_eager"] = round(beside / median_ms, 2)
            least = roofline.least_s(row.flops, row.moved, row.precision)
            if least and row.flops:
                found["share_of_roofline"] = round(least * 1e3 / median_ms, 3)
        figures.append(found)
    return figures


def markdown(report: Mapping[str, Any]) -> str:
    """The report as a page's section: machine, roofline, table."""
    machine, ceiling = report["machine"], report["roofline"]
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    rates = ", ".join(f"{rate:g} GFLOP/s in {name}" for name, rate in ceiling["gflops"].items())
    lines = [
        f"{report['device']}: {machine['accelerator'] or machine['cpu']}; load at the start "
        f"{machine['load_average']}; Python {machine['python']}; {libraries}.",
        "",
        f"Ceiling, measured in the same run: {ceiling['gb_per_s']:g} GB/s copied, {rates}.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "|".join("---" if column in WORDS else "---:" for column in COLUMNS) + "|",
    ]
    return "\n".join([*lines, *(line_of(row) for row in report["rows"])]) + "\n"


def line_of(row: Mapping[str, Any]) -> str:
    runtime = f"{row['runtime']} {row['precision']}" if row["runtime"].startswith("torch") else row["runtime"]
    words = [row["model"], row["step"], str(row["batch"]), runtime]
    if "left_out" in row:
        times = [row["left_out"], "", "", ""]
    else:
        ratio = row.get("times_torch_eager")
        times = [
            f"{row['p50_ms']:.4g}",
            f"{row['p99_ms']:.4g}",
            str(row["calls"]),
            f"{ratio:.2f}" if ratio else "",
        ]
    share = row.get("share_of_roofline")
    work = [f"{row['gflop']:.4g}", f"{row['mb']:.4g}"] if row["gflop"] else ["", ""]
    words += [*times, *work, row["bound_by"], f"{share:.0%}" if share is not None else ""]
    return "| " + " | ".join(words) + " |"
