"""`jepa-arm build-engine`: the TensorRT engines of a bundle, built and kept on the machine that runs them."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planner.bundle import Bundle
    from planner.held_out import HeldOut

EXAMPLE = "jepa-arm build-engine models/panda-push --precision fp16"
PRECISIONS = ("fp16", "fp32", "int8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, help="bundle folder")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp16", help="default: fp16")


def run(args: argparse.Namespace) -> int:
    """Exit code 1 if the engines are not exact enough to act by."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from perception.runtimes.tensorrt import TensorRt
    from planner.accuracy import measure_accuracy
    from planner.bundle import load_bundle

    bundle, runtime = load_bundle(args.bundle), TensorRt()
    variant = next(variant for variant in runtime.variants() if variant.precision == args.precision)
    held_out = frames_of(bundle)
    if args.precision == "int8":
        quantise_graphs(bundle, held_out)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as bar:
        for graph in bundle.info.graphs.all:
            task = bar.add_task(graph.file, total=None)

            def progress(phase: str, done: int, total: int, task: Any = task, file: str = graph.file) -> None:
                bar.update(task, description=f"{file}: {phase}", completed=done, total=total)

            runtime.prepare(
                bundle.path / graph.file, graph.sha256, args.precision, bar.console.print, progress
            )
            bar.update(task, description=f"{graph.file}: ready", completed=1, total=1)
    if held_out is None:
        print("how exact they are cannot be found out: the bundle carries no held-out frames")
        return 0
    accuracy = measure_accuracy(bundle.on(variant), held_out)
    print(
        f"latent cosine {accuracy.cosine:.5f}, rank correlation of candidates {accuracy.spearman:.4f}, "
        f"overlap of the best {accuracy.overlap:.3f}"
    )
    print(
        f"not exact enough: {accuracy.why_not}" if accuracy.why_not else f"try it: --runtime {variant.name}"
    )
    return 1 if accuracy.why_not else 0


def frames_of(bundle: Bundle) -> HeldOut | None:
    """The bundle's held-out frames, or fresh ones where there is a simulator."""
    held_out = bundle.held_out()
    if held_out is None and importlib.util.find_spec("pybullet") is not None:
        from sim.held_out import render_held_out

        held_out = render_held_out(bundle)
    return held_out


def quantise_graphs(bundle: Bundle, held_out: HeldOut | None) -> None:
    """Raises SimulationError where there are no frames to find ranges by."""
    from perception.runtimes.tensorrt import quantise
    from planner.calibration import calibration_rows
    from sim.errors import SimulationError

    if held_out is None:
        raise SimulationError(
            f"int8 needs frames to find its ranges by; bundle {bundle.name} carries none, and there is no "
            "simulator: export it again with --data, or choose fp16"
        )
    rows = calibration_rows(bundle, held_out)
    for graph in bundle.info.graphs.all:
        path = bundle.path / graph.file
        quantise(path, rows[path.stem])
