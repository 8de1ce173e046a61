"""Predictor, reflex and energy of a bundle as torch modules on a device, in the form that plans call them."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from perception.runtimes.modules import open_module
from planner.bundle import Bundle


def networks_on(bundle: Bundle, device: str) -> Networks:
    """The bundle's, on `device`; on CUDA compiled, if Triton is there. Raises ModelError.

    All planners of a process share them: compiling takes a minute or so, and `jepa-arm eval` makes a planner
    for every episode.
    """
    graphs = bundle.info.graphs
    parts = (graphs.predictor, graphs.proposal, graphs.energy)
    return _networks(tuple((bundle.path / part.file, part.sha256) for part in parts), device)


@lru_cache(maxsize=2)
def _networks(graphs: tuple[tuple[Path, str], ...], device: str) -> Networks:
    networks = Networks(*(open_module(path, sha256) for path, sha256 in graphs)).to(device)
    if torch.device(device).type == "cuda" and importlib.util.find_spec("triton") is not None:
        networks.fuse()
    return networks


class Networks(nn.Module):
    """What a step of the world model is made of. Goals are one row (D,) for all."""

    def __init__(self, predictor: nn.Module, proposal: nn.Module, energy: nn.Module) -> None:
        super().__init__()
        self._predictor, self._proposal, self._energy = predictor, proposal, energy
        self.predict, self.propose, self.steps_to_go = self._predict, self._propose, self._steps_to_go

    def fuse(self) -> None:
        """Compile what is between the products of matrices into few kernels."""
        self.predict = torch.compile(self._predict, dynamic=False)
        self.propose = torch.compile(self._propose, dynamic=False)
        self.steps_to_go = torch.compile(self._steps_to_go, dynamic=False)

    def _predict(
        self, latents: Tensor, previous: Tensor, tools: Tensor, blocks: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Next latents (N, D) and normalised tool states (N, P), after blocks (N, block·A)."""
        following, moved = self._predictor(latents, previous, tools, blocks)
        return following, moved

    def _propose(self, latents: Tensor, tools: Tensor, goal: Tensor, steps_left: Tensor) -> Tensor:
        """The reflex's likeliest block (N, block·A) for steps left (N,); in older bundles it has but one."""
        answers = self._proposal(latents, goal.expand_as(latents), steps_left[:, None], tools)
        if isinstance(answers, Tensor):
            return answers
        actions, logits = answers
        likeliest = logits.argmax(1)[:, None, None].expand(-1, 1, actions.shape[2])
        return actions.gather(1, likeliest).squeeze(1)

    def _steps_to_go(self, latents: Tensor, tools: Tensor, goal: Tensor) -> Tensor:
        """Learned time-to-go (N,) in model steps."""
        steps: Tensor = self._energy(latents, goal.expand_as(latents), tools)
        return steps
