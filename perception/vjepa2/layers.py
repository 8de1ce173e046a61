"""What encoder and predictor are made of: pre-norm transformer blocks with a rotary position in 3-D.

Names of modules follow the keys of the official checkpoint files.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from perception.vjepa2.config import NORM_EPS, Layers

ROPE_BASE = 10_000.0

# Positions are worked out on the CPU even where modules are made without memory (torch.device("meta")), to be
# given the weights of a file.
CPU = torch.device("cpu")


def rotary_tables(positions: Tensor, head_width: int, release: str) -> tuple[Tensor, Tensor]:
    """Cosine and sine (N, head_width) that turn the pairs (2i, 2i+1) of a query or key at `positions` (N, 3).

    A third of the pairs is for each of time, row and column; what is left over is not turned. Angles are
    position · base^(−i/pairs) (Su et al. 2021, arXiv:2104.09864). In release 2.0 the two halves of a pair
    have frequencies of their own: those of 2i and 2i+1, counted modulo the number of pairs.
    """
    width = head_width // 3 // 2 * 2
    pairs = width // 2
    frequencies = ROPE_BASE ** -(torch.arange(pairs, dtype=torch.float64, device=CPU) / pairs)
    frequencies = frequencies.repeat(2) if release == "2.0" else frequencies.repeat_interleave(2)
    angles = (positions.double()[:, :, None] * frequencies).flatten(1)
    angles = functional.pad(angles, (0, head_width - 3 * width))
    return angles.cos().float(), angles.sin().float()


def rotate(features: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn the pairs of features (..., N, W) by the tables (N, W)."""
    first, second = features.unflatten(-1, (-1, 2)).unbind(-1)
    quarter_turned = torch.stack((-second, first), dim=-1).flatten(-2)
    return features * cosine + quarter_turned * sine


class Attention(nn.Module):
    """Multi-head self-attention whose queries and keys are turned by their position."""

    def __init__(self, layers: Layers) -> None:
        super().__init__()
        self.heads = layers.heads
        self.qkv = nn.Linear(layers.width, 3 * layers.width)
        self.proj = nn.Linear(layers.width, layers.width)

    def forward(self, tokens: Tensor, cosine: Tensor, sine: Tensor, allowed: Tensor | None) -> Tensor:
        parts = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, layers: Layers) -> None:
        super().__init__()
        self.fc1 = nn.Linear(layers.width, layers.hidden)
        self.fc2 = nn.Linear(layers.hidden, layers.width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """Tokens (B, N, W) to tokens; `allowed` (N, N) says which token may look at which, None: all at all."""

    def __init__(self, layers: Layers) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(layers.width, eps=NORM_EPS)
        self.attn = Attention(layers)
        self.norm2 = nn.LayerNorm(layers.width, eps=NORM_EPS)
        self.mlp = Mlp(layers)

    def forward(self, tokens: Tensor, cosine: Tensor, sine: Tensor, allowed: Tensor | None = None) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens), cosine, sine, allowed)
        return tokens + self.mlp(self.norm2(tokens))


def grid_positions(frames: int, rows: int, columns: int) -> Tensor:
    """Time, row and column (frames·rows·columns, 3) of the tokens of a clip, columns running fastest."""
    axes = (torch.arange(count, device=CPU) for count in (frames, rows, columns))
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2).double()


def normalised(features: Tensor) -> Tensor:
    """Layer norm without weights over the features of each token: how the action-conditioned predictor
    takes them and how two of them are compared."""
    return functional.layer_norm(features, features.shape[-1:])
