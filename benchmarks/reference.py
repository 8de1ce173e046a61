"""The plan that ours is held against: LeWM's published predictor shape under its published search.

Shape and search are those of LeWorldModel (Maes et al. 2026, arXiv 2603.19312): a causal transformer of 6
layers, 16 heads of 64, MLP 2048, width 192, conditioned on actions by AdaLN, over a history of 3, 10.8 M
parameters; 300 candidates × 10 iterations × 5 steps. The weights are random: speed does not depend on them.
Written from the paper, in torch eager on one thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from planner.contract import Array
from planner.optimisers.cem import Cem
from planner.optimisers.contract import Effort, Problem

WIDTH, LAYERS, HEADS, HEAD_WIDTH, MLP_WIDTH, HISTORY = 192, 6, 16, 64, 2048, 3
ACTION_DIM, HORIZON = 10, 5
SEARCH = Cem(samples=300, iterations=10, elites=30, std=1.0)
ITERATIONS_MEASURED = 3


class Layer(nn.Module):
    """Causal attention and MLP, both scaled, shifted and gated by the action (AdaLN)."""

    def __init__(self) -> None:
        super().__init__()
        inner = HEADS * HEAD_WIDTH
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 6 * WIDTH))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, elementwise_affine=False) for _ in range(2))
        self.attend = nn.Linear(WIDTH, 3 * inner, bias=False)
        self.merge = nn.Linear(inner, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, MLP_WIDTH), nn.GELU(), nn.Linear(MLP_WIDTH, WIDTH))

    def forward(self, tokens: Tensor, actions: Tensor) -> Tensor:
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulation(actions).chunk(6, dim=-1)
        batch, length, _ = tokens.shape
        normed = self.norms[0](tokens) * (1 + scale) + shift
        query, key, value = (
            part.reshape(batch, length, HEADS, HEAD_WIDTH).transpose(1, 2)
            for part in self.attend(normed).chunk(3, dim=-1)
        )
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        tokens = tokens + gate * self.merge(attended.transpose(1, 2).reshape(batch, length, -1))
        normed = self.norms[1](tokens) * (1 + mlp_scale) + mlp_shift
        return tokens + mlp_gate * self.mlp(normed)


class ReferencePredictor(nn.Module):
    """Latents (N, 3, 192) and actions (N, 3, A) of the last steps → the next latent (N, 192)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_action = nn.Linear(ACTION_DIM, WIDTH)
        self.position = nn.Parameter(torch.randn(HISTORY, WIDTH) * 0.02)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, latents: Tensor, actions: Tensor) -> Tensor:
        tokens, condition = latents + self.position, self.embed_action(actions)
        for layer in self.layers:
            tokens = layer(tokens, condition)
        return self.norm(tokens)[:, -1]


class ReferencePlan:
    """One plan from a random history to a random goal; `one_iteration` and `whole` give seconds."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.predictor = ReferencePredictor().eval().requires_grad_(False)
        self.latents, self.goal = torch.randn(1, HISTORY, WIDTH), torch.randn(WIDTH)
        self.actions = torch.zeros(1, HISTORY - 1, ACTION_DIM)

    @torch.inference_mode()
    def cost(self, sequences: Array) -> Array:
        """Mean squared distance (N,) of the last latent from the goal's, of sequences (N, 5, A)."""
        count = len(sequences)
        latents = self.latents.expand(count, -1, -1)
        actions = torch.cat([self.actions.expand(count, -1, -1), torch.from_numpy(sequences)], dim=1)
        for step in range(HORIZON):
            following = self.predictor(latents, actions[:, step : step + HISTORY])
            latents = torch.cat([latents[:, 1:], following[:, None]], dim=1)
        return np.asarray(((latents[:, -1] - self.goal) ** 2).mean(1).numpy())

    def one_iteration(self) -> float:
        return self._search(Effort(SEARCH.samples, 1))

    def whole(self) -> float:
        return self._search(SEARCH.full)

    def _search(self, effort: Effort) -> float:
        problem = Problem(
            self.cost, lambda sequences: np.clip(sequences, -1, 1), np.zeros(ACTION_DIM, dtype=bool)
        )
        start = np.zeros((HORIZON, ACTION_DIM), np.float32)
        began = time.perf_counter()
        SEARCH.optimise(problem, start, effort, np.random.default_rng(0))
        return time.perf_counter() - began

    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.predictor.parameters())

    def flops(self) -> int:
        """Of the multiplications with weights in a whole plan."""
        weights = sum(weight.numel() for weight in self.predictor.parameters() if weight.ndim == 2)
        return 2 * weights * HISTORY * HORIZON * SEARCH.samples * SEARCH.iterations


def measure_reference() -> Iterator[tuple[str, float]]:
    """Seconds of a few single iterations, then of one whole plan, as they come."""
    plan = ReferencePlan()
    for _ in range(ITERATIONS_MEASURED):
        yield "iteration", plan.one_iteration()
    yield "plan", plan.whole()
