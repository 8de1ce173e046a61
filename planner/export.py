"""`jepa-arm export`: from a training run to a bundle of checked ONNX graphs, weights and a model card."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planner.bundle import Bundle

EXAMPLE = "jepa-arm export --run runs/panda-push --data data/panda-push --out models/panda-push"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, required=True, help="run folder of `jepa-arm train`")
    parser.add_argument(
        "--data",
        type=Path,
        help="dataset that the run was trained on: a sample of what it held out goes into the bundle, "
        "which other runtimes than ONNX Runtime are checked by",
    )
    parser.add_argument("--out", type=Path, help="bundle folder to write (default: models/<robot>-<task>)")
    parser.add_argument("--force", action="store_true", help="replace a bundle that is already there")


def run(args: argparse.Namespace) -> int:
    from perception.jepa.trainer import CHECKPOINT, read_checkpoint
    from planner.bundle import load_bundle
    from planner.bundle_writer import export_bundle, held_out_of

    state = read_checkpoint(args.run / CHECKPOINT)
    out = args.out or Path("models") / f"{state['info']['robot']}-{state['info']['task']}"
    held_out = None if args.data is None else held_out_of(state, args.data)
    gaps = export_bundle(state, out, args.force, held_out)
    bundle = load_bundle(out)
    for name, gap in gaps.items():
        print(f"{name}: ONNX agrees with torch to {gap:.1e}")
    size = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    print(f"bundle {bundle.name} ({size:.1f} MB) in {out}; try it: {next_command(bundle, out)}")
    return 0


def next_command(bundle: Bundle, path: Path) -> str:
    """The simulator can set only its own scenes; what was recorded on an arm is tried on that arm."""
    if bundle.info.recorded:
        return f"jepa-arm up --bundle {path} --arm … --camera …, then jepa-arm pursue PICTURE"
    return f"jepa-arm eval --task {bundle.info.task} --bundle {path}"
