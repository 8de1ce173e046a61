"""`jepa-arm train`: from recorded play to a world model with its reflex and its energy, top to bottom.

Two phases in one run: the world model (encoder, predictor, inverse dynamics) on windows of frames, then the
heads (Mode-1 proposal, time-to-go energy) on its frozen latents. Step n's batch and random directions depend
on (seed, n) alone, so a run that was cut and resumed ends where an uninterrupted one does. Under torchrun the
processes share each batch (`perception.jepa.distributed`).

The training itself is in `perception.jepa.trainer`; what is here is what knows robots, which a dataset that
was recorded elsewhere needs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perception.jepa.config import TrainConfig

EXAMPLE = "jepa-arm train --data data/panda-push --out runs/panda-push"
IMPORTED = "data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder made by `jepa-arm collect` or `record`, or a LeRobot one",
    )
    parser.add_argument("--out", type=Path, required=True, help="run folder; one that was begun is resumed")
    parser.add_argument("--config", type=Path, help="YAML that overrides training settings")
    parser.add_argument("--seed", type=int, help="overrides the settings' seed")
    parser.add_argument(
        "--from",
        dest="begin_from",
        metavar="BUNDLE",
        help="begin with what this bundle has learned, as models/panda-push: fewer steps and less play do",
    )
    parser.add_argument("--encoder", help="frozen encoder to train on top of, such as vjepa2-vitl")
    parser.add_argument("--encoder-weights", metavar="FILE", help="its official file, vitl.pt")
    own = parser.add_argument_group("LeRobot datasets")
    own.add_argument("--robot", help="robot file of the arm in it: a name or a path (default: as it says)")
    own.add_argument("--camera-key", metavar="KEY", help="which of its videos, as observation.images.front")
    own.add_argument(
        "--joint-units",
        choices=("rad", "deg", "percent"),
        default="rad",
        help="of its joint positions; percent: of the joint's range, as of LeRobot's SO-101 (default: rad)",
    )


def run(args: argparse.Namespace) -> int:
    from perception.jepa.config import load_config
    from perception.jepa.distributed import process_group, rank
    from perception.jepa.trainer import Trainer

    options = {
        "seed": args.seed,
        "begin_from": args.begin_from,
        "encoder": args.encoder,
        "encoder_weights": args.encoder_weights,
    }
    overrides = {name: value for name, value in options.items() if value is not None}
    config = load_config(args.config, **overrides)
    with process_group():
        data = training_data(args, config)
        trainer = Trainer.begin(data, args.out, config)
        trainer.train_world_model()
        trainer.train_heads()
        if rank() == 0:
            minutes = trainer.seconds / 60
            held_out = f" --data {data}" if data != args.data else ""
            export = f"jepa-arm export --run {args.out}{held_out}"
            print(f"trained in {minutes:.1f} minutes; export it with: {export}")
    return 0


def training_data(args: argparse.Namespace, config: TrainConfig) -> Path:
    """The folder to train on: `--data`, or what is made of a LeRobot dataset in the run's folder."""
    from perception.jepa.distributed import rank, wait_for_all
    from perception.jepa.trainer import needed_steps
    from perception.lerobot.layout import is_lerobot
    from planner.held_out import STRETCH_STEPS
    from sim.own_data import Source, import_dataset

    if not is_lerobot(args.data):
        return args.data
    source = Source(args.data, args.robot, args.camera_key, args.joint_units)
    steps = max(needed_steps(config), config.block * STRETCH_STEPS)
    if rank() == 0:
        import_dataset(source, args.out / IMPORTED, steps, print)
    wait_for_all()
    return args.out / IMPORTED
