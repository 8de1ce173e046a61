"""`jepa-arm calibrate WHAT`: one table of what can be calibrated, each row a module as in cli.py."""

from __future__ import annotations

import argparse
import importlib
from dataclasses import dataclass

EXAMPLE = "jepa-arm calibrate camera --robot panda --views out/calibration/panda"


@dataclass(frozen=True)
class Target:
    name: str
    summary: str
    module: str


TARGETS = (
    Target("camera", "its lens, and where it stands, with a ChArUco board", "hardware.calibration.camera"),
    Target("arm", "each joint's zero and range, moved by hand", "hardware.arm.calibrate"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subparsers = parser.add_subparsers(dest="_target", metavar="WHAT", required=True)
    for target in TARGETS:
        module = importlib.import_module(target.module)
        subparser = subparsers.add_parser(
            target.name,
            help=target.summary,
            description=target.summary[0].upper() + target.summary[1:] + ".",
            epilog=f"example:\n  {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        subparser.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
        module.add_arguments(subparser)
        subparser.set_defaults(_run=module.run)


def run(args: argparse.Namespace) -> int:
    return args._run(args)
