"""`jepa-arm train`: from recorded play to a world model with its reflex and its energy, top to bottom.

Two phases in one run: the world model (encoder, predictor, inverse dynamics) on windows of frames, then the
heads (Mode-1 proposal, time-to-go energy) on its frozen latents. Step n's batch and random directions depend
on (seed, n) alone, so a run that was cut and resumed ends where an uninterrupted one does. Under torchrun the
processes share each batch (`perception.jepa.distributed`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "jepa-arm train --data data/panda-push --out runs/panda-push"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder made by `jepa-arm collect`")
    parser.add_argument("--out", type=Path, required=True, help="run folder; one that was begun is resumed")
    parser.add_argument("--config", type=Path, help="YAML that overrides training settings")
    parser.add_argument("--seed", type=int, help="overrides the settings' seed")
    parser.add_argument("--encoder", help="frozen encoder to train on top of, such as vjepa2-vitl")
    parser.add_argument("--encoder-weights", metavar="FILE", help="its official file, vitl.pt")


def run(args: argparse.Namespace) -> int:
    from perception.jepa.config import load_config
    from perception.jepa.distributed import process_group, rank
    from perception.jepa.trainer import Trainer

    options = {"seed": args.seed, "encoder": args.encoder, "encoder_weights": args.encoder_weights}
    overrides = {name: value for name, value in options.items() if value is not None}
    config = load_config(args.config, **overrides)
    with process_group():
        trainer = Trainer.begin(args.data, args.out, config)
        trainer.train_world_model()
        trainer.train_heads()
        if rank() == 0:
            minutes = trainer.seconds / 60
            print(f"trained in {minutes:.1f} minutes; export it with: jepa-arm export --run {args.out}")
    return 0
