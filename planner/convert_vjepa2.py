"""`jepa-arm convert-vjepa2`: from an official V-JEPA 2-AC file to a bundle that the planner node runs."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "jepa-arm convert-vjepa2 vjepa2-ac-vitg.pt --out models/vjepa2-ac"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="official checkpoint, such as vjepa2-ac-vitg.pt"
    )
    parser.add_argument("--out", type=Path, required=True, help="bundle folder to write")
    parser.add_argument("--model", default="vitg-ac", help="which model it is (default: vitg-ac)")
    parser.add_argument("--robot", default="panda_hand", help="robot file to plan for (default: panda_hand)")
    parser.add_argument(
        "--horizon", type=int, default=1, help="steps of 0.25 s that it plans ahead (default: 1)"
    )


def run(args: argparse.Namespace) -> int:
    from perception.vjepa2.checkpoint import load_model
    from planner.bundle import load_bundle
    from planner.vjepa2_writer import write_bundle

    model = load_model(args.file, args.model)
    gaps = write_bundle(model, args.file, args.out, args.robot, args.horizon)
    bundle = load_bundle(args.out)
    for name, gap in gaps.items():
        print(f"{name}: ONNX agrees with torch to {gap:.1e}")
    size = sum(file.stat().st_size for file in args.out.iterdir()) / 1e6
    print(f"bundle {bundle.name} ({size:.1f} MB) in {args.out}; its planner is called cem")
    return 0
