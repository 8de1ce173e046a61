"""The models' table: each row beside torch eager's, with its share of the roofline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.models import EAGER, Row
from benchmarks.roofline import Roofline
from benchmarks.timing import Timing
from perception.runtimes.registry import REFERENCE

COLUMNS = (
    "model",
    "step",
    "batch",
    "runtime",
    "p50, ms",
    "p99, ms",
    "calls",
    "× torch eager",
    "× ONNX Runtime",
    "GFLOP",
    "MB",
    "bound by",
    "of roofline",
)
BUSY_COLUMNS = ("busy p50, ×", "busy p99, ×")
WORDS = ("model", "step", "runtime", "bound by")


def table(rows: Sequence[Row], timings: Mapping[str, Timing], roofline: Roofline) -> list[dict[str, Any]]:
    """A dictionary for each row, figures rounded; `left_out` says why a row has no times."""
    medians = {
        (row.model, row.step, row.batch, row.runtime): timings[row.name].figures()["median_ms"]
        for row in rows
        if row.run is not None
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
            for name, runtime in (("times_torch_eager", EAGER), ("times_onnxruntime", REFERENCE.name)):
                other_ms = medians.get((row.model, row.step, row.batch, runtime))
                if other_ms is not None:
                    found[name] = round(other_ms / median_ms, 2)
            if "busy" in measured:
                found["busy"] = measured["busy"]
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
    ]
    busy = report.get("busy")
    if busy is not None:
        lines += [busy_line(busy), ""]
    columns = COLUMNS if busy is None else (*COLUMNS, *BUSY_COLUMNS)
    lines.append("| " + " | ".join(columns) + " |")
    lines.append("|" + "|".join("---" if column in WORDS else "---:" for column in columns) + "|")
    lines += ["| " + " | ".join(cells_of(row, busy is not None)) + " |" for row in report["rows"]]
    return "\n".join(lines) + "\n"


def busy_line(busy: Mapping[str, Any]) -> str:
    cores = ", ".join(map(str, busy["busy_cores"]))
    shared = ", of which one is a thread of the same core" if busy["share_a_core"] else ""
    return f"Busy: measured on core {busy['core']}, beside a busy neighbour on each of {cores}{shared}."


def cells_of(row: Mapping[str, Any], busy: bool) -> list[str]:
    runtime = f"{row['runtime']} {row['precision']}" if row["runtime"].startswith("torch") else row["runtime"]
    words = [row["model"], row["step"], str(row["batch"]), runtime]
    if "left_out" in row:
        times = [row["left_out"], "", "", "", ""]
    else:
        times = [f"{row['p50_ms']:.4g}", f"{row['p99_ms']:.4g}", str(row["calls"])]
        times += [shown_ratio(row.get(name)) for name in ("times_torch_eager", "times_onnxruntime")]
    share = row.get("share_of_roofline")
    work = [f"{row['gflop']:.4g}", f"{row['mb']:.4g}"] if row["gflop"] else ["", ""]
    words += [*times, *work, row["bound_by"], f"{share:.0%}" if share is not None else ""]
    if busy:
        words += [shown_ratio(row.get("busy", {}).get(name)) for name in ("times_median", "times_p99")]
    return words


def shown_ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"
