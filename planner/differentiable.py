"""The bundle's predictor and energy in torch, for optimisers that follow its gradient. Needs torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from perception.jepa.model import Energy, Predictor
from perception.runtimes.contract import WEIGHTS
from planner.bundle import Bundle
from planner.contract import Array, Observation
from planner.errors import PlannerError


class DifferentiableModel:
    """The path energy of action sequences and its gradient.

    The weights are those that training goes on from, in half precision, so energies differ a little from
    those of the ONNX graphs. Raises PlannerError if they are missing or not of this bundle's shape.
    """

    def __init__(self, bundle: Bundle) -> None:
        # Where another process wants the core, torch's threads wait for one another.
        torch.set_num_threads(1)
        info, file = bundle.info, bundle.path / WEIGHTS
        try:
            weights = load_file(file)
        except (OSError, SafetensorError) as error:
            raise PlannerError(
                f"{file} cannot be read ({error}): export the bundle again, or choose another planner"
            ) from error
        block_dim = bundle.action.block * bundle.action.dim
        try:
            width = len(weights["predictor.enter.bias"])
            told = weights["energy.layers.0.weight"].shape[1] - 3 * info.latent_dim
            predictor = Predictor(info.latent_dim, info.tool.dim, block_dim, width)
            energy = Energy(info.latent_dim, info.max_steps, told, len(weights["energy.layers.0.bias"]))
            self._predictor, self._energy = _load(predictor, weights), _load(energy, weights)
        except (KeyError, RuntimeError) as error:
            raise PlannerError(
                f"{file} does not hold this release's predictor and energy: export the bundle again"
            ) from error
        self._tool_mean = np.array(info.tool.mean, np.float32)
        self._tool_std = np.array(info.tool.std, np.float32)
        self._block_dim = block_dim

    def path_energy_and_gradient(
        self, observation: Observation, goal: Array, sequences: Array
    ) -> tuple[Array, Array]:
        """Path energies (N,) of sequences (N, T, A) in units of the action limit, and gradients (N, T, A)."""
        actions = torch.from_numpy(np.ascontiguousarray(sequences)).requires_grad_()
        energies = self._path_energy(observation, goal, actions)
        (gradient,) = torch.autograd.grad(energies.sum(), actions)
        return energies.detach().numpy(), gradient.numpy()

    def _path_energy(self, observation: Observation, goal: Array, actions: Tensor) -> Tensor:
        count = len(actions)
        blocks = actions.reshape(count, -1, self._block_dim)
        tool = _rows((observation.tool - self._tool_mean) / self._tool_std, count)
        latent, previous, target = (
            _rows(row, count) for row in (observation.latent, observation.previous, goal)
        )
        along = []
        for step in range(blocks.shape[1]):
            following, tool = self._predictor(latent, previous, tool, blocks[:, step])
            previous, latent = latent, following
            along.append(self._energy.steps_to_go(latent, target, tool))
        return torch.stack(along, 1).mean(1) + along[-1]


def _rows(row: Array, count: int) -> Tensor:
    return torch.from_numpy(np.tile(row.astype(np.float32), (count, 1)))


def _load(model: nn.Module, weights: dict[str, Tensor]) -> Any:
    """`model` with its own of the bundle's weights, in full precision, frozen."""
    prefix = f"{type(model).__name__.lower()}."
    own = {
        key.removeprefix(prefix): value.float() for key, value in weights.items() if key.startswith(prefix)
    }
    model.load_state_dict(own)
    return model.eval().requires_grad_(False)
