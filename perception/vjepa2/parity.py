"""How far V-JEPA 2 is from others who compute the same, on random weights.

    python -m perception.vjepa2.parity                    # tiny models, seconds
    python -m perception.vjepa2.parity --width real       # ViT-L and the predictor of 2-AC

The encoder is held to `transformers`' VJEPA2Model, the encoder of 2.1 and the predictor to the plain
equations in `perception.vjepa2.reference`, and the ONNX graphs to torch. Exit code 1 if one differs by more
than 1e-4.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from perception.vjepa2 import reference
from perception.vjepa2.ac_predictor import ActionPredictor
from perception.vjepa2.checkpoint import load_model
from perception.vjepa2.config import MODELS, EncoderConfig
from perception.vjepa2.encoder import VideoEncoder
from perception.vjepa2.export import PARITY_TOLERANCE, export_encoder, export_predictor

WIDTHS = {"tiny": ("tiny", "tiny-2.1", "tiny-ac"), "real": ("vitl", "vitl-2.1", "vitg-ac")}


@dataclass(frozen=True)
class Agreement:
    """`gap` is the largest absolute difference of two outputs, whose mean absolute value is `size`."""

    what: str
    gap: float
    size: float
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="perception.vjepa2.parity", description=__doc__.splitlines()[0])
    parser.add_argument("--width", choices=WIDTHS, default="tiny", help="sizes of the models (default: tiny)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random weights and inputs")
    args = parser.parse_args()
    if find_spec("transformers") is None:
        parser.error("transformers is not installed: run `pip install 'jepa-arm[train,dev]'`")
    worst = 0.0
    for row in agreements(args.width, args.seed):
        print(f"{row.what:54} {row.gap:.1e} of {row.size:.2f}  ({row.seconds:.0f} s)", flush=True)
        worst = max(worst, row.gap)
    print(f"largest difference {worst:.1e}, allowed {PARITY_TOLERANCE:.0e}")
    return 0 if worst <= PARITY_TOLERANCE else 1


@torch.no_grad()
def agreements(width: str, seed: int) -> Iterator[Agreement]:
    """One comparison after the other, each with its model in memory only while it is compared."""
    plain, later, acting = WIDTHS[width]
    torch.manual_seed(seed)
    yield from _encoder_and_transformers(plain)
    yield from _encoder_and_equations(later)
    yield from _predictor_and_equations(acting)


def _encoder_and_transformers(name: str) -> Iterator[Agreement]:
    config = MODELS[name].encoder
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        other = random_transformers(config)
        other.save_pretrained(folder)
        encoder = load_model(Path(folder), name).encoder
        for frames in (1, 4):
            clips = _clips(config, frames)
            theirs = other(clips.transpose(1, 2), skip_predictor=True).last_hidden_state
            what = f"encoder {name}, {frames} frames, and transformers"
            yield _agreement(what, encoder(clips), theirs, began)
            began = time.perf_counter()
        del other
        exported = export_encoder(encoder, Path(folder) / "encoder.onnx")
        yield Agreement(f"encoder {name}, ONNX and torch", exported.gap, 1.0, time.perf_counter() - began)


def _encoder_and_equations(name: str) -> Iterator[Agreement]:
    config = MODELS[name].encoder
    encoder = randomised(VideoEncoder(config))
    began = time.perf_counter()
    clips = _clips(config, 1)
    clip = clips[0].permute(1, 2, 3, 0).double().numpy()
    layers = config.layers
    theirs = reference.encode(weights_of(encoder), clip, layers.depth, layers.heads, config.release)
    what = f"encoder {name}, 1 frame, and the equations"
    yield _agreement(what, encoder(clips)[0], torch.from_numpy(theirs), began)


def _predictor_and_equations(name: str) -> Iterator[Agreement]:
    model, steps = MODELS[name], 2
    assert model.predictor is not None
    predictor = randomised(ActionPredictor(model.predictor, model.encoder))
    began = time.perf_counter()
    features = torch.randn(1, steps, model.encoder.tokens_per_frame, model.encoder.layers.width)
    actions, states = 0.1 * torch.randn(1, steps, 7), torch.randn(1, steps, 7)
    known, done, was = (value[0].double().numpy() for value in (features, actions, states))
    layers = model.predictor
    theirs = reference.predict(weights_of(predictor), known, done, was, layers.depth, layers.heads)
    what = f"predictor {name}, {steps} steps, and the equations"
    yield _agreement(what, predictor(features, actions, states)[0], torch.from_numpy(theirs), began)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        exported = export_predictor(predictor, steps, Path(folder) / "predictor.onnx")
        yield Agreement(f"predictor {name}, ONNX and torch", exported.gap, 1.0, time.perf_counter() - began)


@torch.no_grad()
def randomised(module: Any) -> Any:
    """The module with random weights that keep its activations near 1 and all its biases in play."""
    for parameter in module.parameters():
        if parameter.ndim > 1 and parameter.shape[:2] != (1, 1):
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        else:
            nn.init.normal_(parameter, std=0.2)
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            part.weight.add_(1.0)
    return module.eval()


def random_transformers(config: EncoderConfig) -> Any:
    """A random VJEPA2Model of `transformers`, of release 2.0, with a small mask predictor."""
    from transformers import VJEPA2Config, VJEPA2Model
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    layers = config.layers
    model = VJEPA2Model(
        VJEPA2Config(
            crop_size=config.image_size,
            hidden_size=layers.width,
            num_attention_heads=layers.heads,
            num_hidden_layers=layers.depth,
            mlp_ratio=layers.hidden / layers.width,
            pred_hidden_size=48,
            pred_num_attention_heads=2,
            pred_num_hidden_layers=1,
        )
    )
    return randomised(model)


def weights_of(module: nn.Module) -> dict[str, Any]:
    """The weights in float64 NumPy, by their names."""
    return {name: value.double().numpy() for name, value in module.state_dict().items()}


def _clips(config: EncoderConfig, frames: int) -> Tensor:
    return torch.randn(1, 3, frames, config.image_size, config.image_size)


def _agreement(what: str, ours: Tensor, theirs: Tensor, began: float) -> Agreement:
    gap = float((ours.double() - theirs.double()).abs().max())
    size = float(theirs.abs().mean())
    return Agreement(what, gap if np.isfinite(gap) else float("inf"), size, time.perf_counter() - began)


if __name__ == "__main__":
    raise SystemExit(main())
