"""`bench --models`: the rows asked for and the device's ceiling, measured in turns, as one report."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.errors import BenchmarkError
from benchmarks.machine import describe_machine
from benchmarks.models import BUNDLE, Limits, Row, bundle_rows, check_device, chosen_models, encoder_rows
from benchmarks.neighbours import busy_neighbours
from benchmarks.report import table
from benchmarks.roofline import roofline_cases, roofline_of
from benchmarks.timing import WARM_UP_CALLS, time_call, with_progress
from benchmarks.whole_plan import whole_plan_rows
from perception.runtimes.cuda import find_device
from planner.bundle import Bundle


def compare_models(
    bundle: Bundle, models: str, device: str, batch: int, seconds: float, busy: bool
) -> dict[str, Any]:
    """Raises BenchmarkError for models or a device that there are not."""
    if batch < 1:
        raise BenchmarkError(f"--batch {batch}: ask for at least one")
    chosen = chosen_models(models)
    check_device(device)
    torch.set_num_threads(1)  # as the runtimes do
    torch.backends.cuda.matmul.allow_tf32 = False
    machine = {**describe_machine(), "accelerator": accelerator() if device == "cuda" else ""}
    ceiling = roofline_cases(device)
    for _ in range(WARM_UP_CALLS):
        first = {case.name: time_call(case.prepare, case.run) for case in ceiling}
    limits = Limits(seconds, roofline_of(device, first))

    def rows(folder: Path) -> Iterator[Row]:
        for name, clips in chosen:
            if name == BUNDLE:
                yield from bundle_rows(bundle, device, batch, limits)
                yield from whole_plan_rows(bundle, device, limits)
            for frames in clips:
                yield from encoder_rows(name, frames, device, batch, limits, folder)

    with tempfile.TemporaryDirectory() as folder:
        found = []
        with Console().status("trying each row once") as status:
            for row in rows(Path(folder)):
                found.append(row)
                status.update(f"trying each row once: {row.name} was the last")
        timed = [row.case() for row in found if row.run is not None]
        with busy_neighbours() if busy else nullcontext() as neighbours:
            measured = with_progress([*ceiling, *timed], seconds, neighbours)
    timings = {timing.name: timing for timing in measured}
    medians = {case.name: timings[case.name].figures()["median_ms"] for case in ceiling}
    roofline = roofline_of(device, medians)
    return {
        "bundle": bundle.name,
        "device": device,
        "batch": batch,
        "seconds": seconds,
        "machine": machine,
        "roofline": {
            "gb_per_s": round(roofline.bandwidth * 1e-9, 1),
            "gflops": {name: round(rate * 1e-9, 1) for name, rate in roofline.rates.items()},
        },
        **({} if neighbours is None else {"busy": neighbours.described()}),
        "rows": table(found, timings, roofline),
    }


def accelerator() -> str:
    """The GPU with its capability and its driver's CUDA."""
    found = find_device()
    return f"{found.name}, compute capability {found.capability}, driver of CUDA {found.driver}"
