"""V-JEPA 2 as ONNX graphs: pictures to latents, and latents, actions and poses to the next latents.

A latent is the layer-normed features of one frame in a row: D = tokens · width numbers. Weights go into a
file of their own beside the graph, as protobuf ends at 2 GB and the larger models do not.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from perception.errors import ModelError
from perception.runtimes.onnx import OnnxSession, file_sha256
from perception.vjepa2.ac_predictor import ActionPredictor
from perception.vjepa2.config import ACTION_DIM, STATE_DIM
from perception.vjepa2.encoder import VideoEncoder
from perception.vjepa2.layers import normalised

OPSET = 20
PARITY_TOLERANCE = 1e-4


class FrameEncoder(nn.Module):
    """Pictures uint8 (N, S, S, 3) to latents (N, D)."""

    def __init__(self, encoder: VideoEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> Tensor:
        return normalised(self.encoder.encode_frames(image)).flatten(1)


class NextLatents(nn.Module):
    """Latents (N, T, D), actions and states (N, T, 7) to the latents (N, T, D) that follow each.

    What follows a time step does not depend on later ones, so these may still be empty.
    """

    def __init__(self, predictor: ActionPredictor) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, latents: Tensor, actions: Tensor, states: Tensor) -> Tensor:
        features = latents.unflatten(2, (self.predictor.patches, -1))
        return normalised(self.predictor(features, actions, states)).flatten(2)


@dataclass(frozen=True)
class Exported:
    """A graph, the file of its weights, and the largest difference between torch and ONNX Runtime.

    The graph names the sha256 of its weights, so that its own sha256 tells the model.
    """

    graph: Path
    weights: Path
    gap: float


def export_encoder(encoder: VideoEncoder, path: Path) -> Exported:
    """Write `path`: input `image`, output `latent`, batch dynamic. Raises ModelError if it differs."""
    size = encoder.config.image_size
    random = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (2, size, size, 3), generator=random, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1)
    module = FrameEncoder(encoder).eval()
    _export(module, {"image": image}, ({0: batch},), "latent", path)
    return _checked(module, path, [{"image": torch.cat([image, image.flip(1)[:1]])}])


def export_predictor(predictor: ActionPredictor, steps: int, path: Path) -> Exported:
    """Write `path` for rollouts of `steps` time steps: inputs `latents`, `actions`, `states`, output
    `next_latents`, batch dynamic. Raises ModelError if it differs."""
    module = NextLatents(predictor).eval()
    batch = torch.export.Dim("batch", min=1)
    _export(module, _history(predictor, 2, steps), ({0: batch},) * 3, "next_latents", path)
    return _checked(module, path, [_history(predictor, 3, steps), _history(predictor, 1, steps)])


def _history(predictor: ActionPredictor, batch: int, steps: int) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(batch)
    size = predictor.patches * predictor.predictor_embed.in_features

    def normal(width: int) -> Tensor:
        return torch.randn(batch, steps, width, generator=random)

    return {"latents": normal(size), "actions": 0.1 * normal(ACTION_DIM), "states": normal(STATE_DIM)}


def _export(
    module: nn.Module,
    inputs: dict[str, Tensor],
    dynamic: tuple[dict[int, Any], ...],
    output: str,
    path: Path,
) -> None:
    # The exporter warns about packages and operators that have no part in these graphs.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=dynamic,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(path, external_data=True)
    graph = onnx.load(path, load_external_data=False)
    entry = graph.metadata_props.add()
    entry.key, entry.value = "weights_sha256", file_sha256(weights_file(path))
    onnx.save(graph, path)


@torch.no_grad()
def _checked(module: nn.Module, path: Path, examples: list[dict[str, Tensor]]) -> Exported:
    session, gap = OnnxSession(path), 0.0
    for inputs in examples:
        expected = module(*inputs.values()).numpy()
        (found,) = session.run({name: value.numpy() for name, value in inputs.items()})
        gap = max(gap, float(np.abs(found - expected).max()))
    if not gap <= PARITY_TOLERANCE:
        raise ModelError(
            f"{path.name} differs from torch by {gap:.2g}, more than {PARITY_TOLERANCE:g}: not exported"
        )
    return Exported(path, weights_file(path), gap)


def weights_file(graph: Path) -> Path:
    """Where the exporter puts the weights of a graph."""
    return graph.with_name(graph.name + ".data")
