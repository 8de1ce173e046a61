"""The torch modules behind a bundle's graphs, with the weights that lie beside them. Needs torch.

The weights are those that training goes on from, in half precision, so outputs differ a little from those of
the ONNX graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from perception.errors import ModelError
from perception.jepa.model import Encoder, Energy, Predictor, Proposal
from perception.preprocessing import shrinking
from perception.runtimes.contract import WEIGHTS
from perception.runtimes.onnx import OnnxSession

Rows = Mapping[str, tuple[int, ...]]
Weights = dict[str, Tensor]


class StepsToGo(nn.Module):
    """What the energy graph computes: (z, z_goal), with the tool's state if it is told → steps to go (N,)."""

    def __init__(self, energy: Energy) -> None:
        super().__init__()
        self.energy = energy

    def forward(self, latent: Tensor, goal: Tensor, tool: Tensor | None = None) -> Tensor:
        return self.energy.steps_to_go(latent, goal, tool)


class OfFrames(nn.Module):
    """An encoder with `perception.preprocessing.prepare` before it: frames uint8 (N, height, width, 3) in."""

    weights: Tensor

    def __init__(self, encoder: nn.Module, height: int, width: int, size: int) -> None:
        super().__init__()
        self.encoder, self._how, self._size = encoder, shrinking(height, width, size), size
        self.register_buffer("weights", torch.from_numpy(self._how.weights), persistent=False)

    def prepare(self, frames: Tensor) -> Tensor:
        """Images uint8 (N, S, S, 3)."""
        how = self._how
        square = frames[:, how.top : how.top + how.side, how.left : how.left + how.side]
        if how.side == self._size:
            return square
        planes = square.permute(0, 3, 1, 2).float()
        levels = self.weights @ planes @ self.weights.T * how.scale
        levels = (levels + 0.5).floor() if how.ties_up else levels.round()
        return levels.permute(0, 2, 3, 1).to(torch.uint8)

    def forward(self, frames: Tensor) -> Tensor:
        latents: Tensor = self.encoder(self.prepare(frames))
        return latents


class OneAnswer(nn.Module):
    """The proposal graph of bundles that were exported before it had several answers."""

    steps: Tensor

    def __init__(self, proposal: Proposal, width: int, action_dim: int) -> None:
        super().__init__()
        self.register_buffer("steps", proposal.steps, persistent=False)
        *layers, _ = proposal.layers
        self.layers = nn.Sequential(*layers, nn.Linear(width, action_dim))

    def forward(self, latent: Tensor, goal: Tensor, steps_left: Tensor, tool: Tensor | None = None) -> Tensor:
        code = torch.relu(1.0 - (steps_left - self.steps).abs())
        return torch.tanh(self.layers(torch.cat([latent, goal, code], dim=1)))


def open_module(path: Path, sha256: str | None = None) -> nn.Module:
    """The module of the graph at `path`, which is checked against `sha256`. Raises ModelError."""
    session = OnnxSession(path, sha256)
    return load_module(path, {port.name: port.row for port in (*session.inputs, *session.outputs)})


def load_module(path: Path, rows: Rows) -> nn.Module:
    """The module of the graph at `path`, in float32, for inference; `rows` are its ports' shapes by name.

    Raises ModelError if the weights beside it are missing, damaged or not of this release.
    """
    file, name = path.parent / WEIGHTS, path.stem
    try:
        content = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{file} cannot be read ({error}): export the bundle again, or choose another runtime than torch"
        ) from error
    prefix = f"{name}."
    weights = {
        key.removeprefix(prefix): value.float() for key, value in content.items() if key.startswith(prefix)
    }
    try:
        module = MODULES[name](rows, weights)
    except (KeyError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{file} does not hold this release's {name}: export the bundle again, "
            "or choose another runtime than torch"
        ) from error
    return module.eval().requires_grad_(False)


def _encoder(rows: Rows, weights: Weights) -> nn.Module:
    return _loaded(Encoder(rows["image"][0], rows["latent"][0]), weights)


def _predictor(rows: Rows, weights: Weights) -> nn.Module:
    sizes = rows["latent"][0], rows["tool"][0], rows["actions"][0]
    return _loaded(Predictor(*sizes, width=len(weights["enter.bias"])), weights)


def _proposal(rows: Rows, weights: Weights) -> nn.Module:
    latent_dim, width = rows["latent"][0], len(weights["layers.0.bias"])
    tool_dim = _told_of(rows)
    max_steps = weights["layers.0.weight"].shape[1] - 2 * latent_dim - tool_dim - 1
    action_dim = rows["actions"][-1]
    proposal = Proposal(latent_dim, action_dim, max_steps, tool_dim, width)
    return _loaded(proposal if "logits" in rows else OneAnswer(proposal, width, action_dim), weights)


def _energy(rows: Rows, weights: Weights) -> nn.Module:
    last = max((key for key in weights if key.endswith(".bias")), key=lambda key: int(key.split(".")[1]))
    max_steps, width = len(weights[last]) - 2, len(weights["layers.0.bias"])
    energy = Energy(rows["latent"][0], max_steps, _told_of(rows), width)
    energy.load_state_dict(weights)
    return StepsToGo(energy)


def _told_of(rows: Rows) -> int:
    """How wide a tool state the head with these ports is told; 0 for none."""
    return rows["tool"][0] if "tool" in rows else 0


def _loaded(module: nn.Module, weights: Weights) -> nn.Module:
    module.load_state_dict(weights)
    return module


MODULES: dict[str, Callable[[Rows, Weights], nn.Module]] = {
    "encoder": _encoder,
    "predictor": _predictor,
    "proposal": _proposal,
    "energy": _energy,
}
