"""`jepa-arm bench`: how long each step from picture to motor takes on this machine, with this bundle."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.runtime_options import MEASURING, add_runtime_arguments

if TYPE_CHECKING:
    from benchmarks.timing import Timing
    from planner.bundle import Bundle

EXAMPLE = "jepa-arm bench --json out/bench.json"
DEVICES = ("cpu", "cuda")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--bundle", type=Path, help="bundle folder (default: the shipped one for push)")
    add_runtime_arguments(parser, MEASURING)
    parser.add_argument(
        "--reference",
        action="store_true",
        help="also a plan with LeWM's published predictor shape, and how many times ours is faster",
    )
    parser.add_argument(
        "--runtimes", action="store_true", help="also encoder and plan on every runtime of this machine"
    )
    parser.add_argument(
        "--models",
        metavar="NAMES",
        help="instead: whole models beside torch eager, with their work and their share of what the device "
        "can do: bundle, vit-tiny, vitl, vith, vitg (V-JEPA 2), with commas between; vitl:8 for clips of 8 "
        "frames (default: 2, 8 and 16); a call that takes longer than --seconds is not repeated",
    )
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where --models run (default: cpu)")
    parser.add_argument(
        "--batch", type=int, default=8, help="the batch of --models beside 1 (default: 8)", metavar="N"
    )
    parser.add_argument(
        "--busy",
        action="store_true",
        help="each step also beside busy neighbours, in alternating slices: this process on one core, on "
        "each other one a process that moves memory and multiplies matrices; takes twice as long",
    )
    parser.add_argument("--markdown", type=Path, help="write the table of --models to this file")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each step is run (default: 2)")


def run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from benchmarks.cases import all_cases
    from benchmarks.errors import BenchmarkError
    from benchmarks.machine import describe_machine
    from benchmarks.neighbours import busy_neighbours, cores_to_share
    from benchmarks.runtimes import TORCH, runtime_cases, times_as_fast
    from benchmarks.timing import with_progress
    from planner.runtimes import load_bundle_on
    from sim.evaluate import shipped_bundle

    if args.models is not None and args.runtime is not None:
        raise BenchmarkError("--runtime: --models times every runtime that is here; leave one of them out")
    if not 0 < args.seconds < float("inf"):
        raise BenchmarkError(f"--seconds {args.seconds:g}: ask for more than none")
    if args.busy:
        cores_to_share()  # before the steps are prepared, which takes a while
    path, runtime = args.bundle or shipped_bundle("push"), args.runtime or args.usual_runtime
    bundle = load_bundle_on(path, runtime, args.force_runtime, print)
    for file in (args.json, args.markdown):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
    if args.models is not None:
        return run_models(args, bundle)
    if args.markdown is not None or args.device != "cpu":
        raise BenchmarkError(
            "--device and --markdown are for --models: say which, as in --models bundle,vitl"
        )
    machine = describe_machine()
    with Console().status("preparing the steps"):
        cases = all_cases(bundle) + (runtime_cases(bundle) if args.runtimes else [])
    with busy_neighbours() if args.busy else nullcontext() as neighbours:
        timings = with_progress(cases, args.seconds, neighbours)
    show(timings, f"{bundle.name}, {bundle.variant.name}, on {machine['cores']} cores, {machine['cpu']}")
    ratios, as_torch = times_as_fast(timings), times_as_fast(timings, TORCH)
    for name, ratio in ratios.items():
        torch_too = f", {as_torch[name]:.2f} times as fast as on torch" if name in as_torch else ""
        print(f"{name}: {ratio:.2f} times as fast as on ONNX Runtime{torch_too}")
    reference = compare_with_reference(timings) if args.reference else None
    if args.json is not None:
        figures = {timing.name: timing.figures() for timing in timings}
        report = {
            "bundle": bundle.name,
            "runtime": bundle.variant.name,
            "seconds": args.seconds,
            "machine": machine,
            "timings": figures,
        }
        if ratios:
            report |= {"times_as_fast_as_onnxruntime": ratios, "times_as_fast_as_torch": as_torch}
        if neighbours is not None:
            report["busy"] = neighbours.described()
        if reference is not None:
            report["reference"] = reference
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def run_models(args: argparse.Namespace, bundle: Bundle) -> int:
    from benchmarks.errors import BenchmarkError

    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # torch's runtime takes a GPU where it sees one
    try:
        from benchmarks.compare import compare_models
    except ModuleNotFoundError as error:
        raise BenchmarkError(
            f"--models needs {error.name}, which is not installed: pip install 'jepa-arm[train]'"
        ) from error
    from benchmarks.report import markdown

    report = compare_models(bundle, args.models, args.device, args.batch, args.seconds, args.busy)
    page = markdown(report)
    print(page, end="")
    if args.markdown is not None:
        args.markdown.write_text(page)
    if args.json is not None:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def show(timings: Sequence[Timing], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    busy = any(timing.beside for timing in timings)
    table = Table("step", "", title=title)
    for column in ("median, ms", "p99, ms", "calls", "GFLOP", *(("busy median, ×", "busy p99, ×") * busy)):
        table.add_column(column, justify="right")
    for timing in timings:
        figures = timing.figures()
        shown = [f"{figures['median_ms']:.3f}", f"{figures['p99_ms']:.3f}", str(figures["calls"])]
        shown.append(f"{figures['gflop']:.3f}" if timing.flops else "")
        if timing.beside:
            shown += [f"{figures['busy'][which]:.2f}" for which in ("times_median", "times_p99")]
        table.add_row(timing.name, timing.what, *shown)
    Console().print(table)
    for timing in timings:
        if timing.candidate_steps:
            rate = timing.figures()["candidate_steps_per_s"]
            Console().print(f"{rate:,} candidate steps imagined and judged a second on one core")


def compare_with_reference(timings: Sequence[Timing]) -> dict[str, Any]:
    """Measure the reference plan and say how many times as long as ours it takes. Raises BenchmarkError."""
    from rich.console import Console
    from rich.progress import track

    from benchmarks.errors import BenchmarkError

    try:
        from benchmarks.reference import ITERATIONS_MEASURED, ReferencePlan, measure_reference
    except ModuleNotFoundError as error:
        raise BenchmarkError(
            f"--reference needs {error.name}, which is not installed: pip install 'jepa-arm[train]'"
        ) from error

    measured = list(track(measure_reference(), "measuring the reference plan", total=ITERATIONS_MEASURED + 1))
    plan_s = dict(measured)["plan"]
    ours = {timing.name: timing.figures()["median_ms"] for timing in timings if "mode2" in timing.name}
    ratios = {name: round(plan_s * 1e3 / ms) for name, ms in ours.items()}
    described = ReferencePlan()
    figures = {
        "parameters": described.parameters(),
        "gflop": round(described.flops() * 1e-9, 1),
        "iteration_s": round(min(seconds for name, seconds in measured if name == "iteration"), 3),
        "plan_s": round(plan_s, 3),
        "times_ours": ratios,
    }
    Console().print(
        f"LeWM's predictor shape, 300 candidates x 10 iterations x 5 steps: {plan_s:.2f} s, "
        f"{figures['gflop']:g} GFLOP; " + ", ".join(f"{name}: {n} times faster" for name, n in ratios.items())
    )
    return figures
