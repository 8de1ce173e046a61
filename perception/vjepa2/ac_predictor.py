"""The action-conditioned predictor of V-JEPA 2-AC: features, actions and poses so far to what comes next.

Source: Assran et al. 2025 (arXiv:2506.09985), section 3, and the public model definition of
facebookresearch/vjepa2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perception.vjepa2.config import ACTION_DIM, LONGEST, NORM_EPS, STATE_DIM, EncoderConfig, Layers
from perception.vjepa2.layers import CPU, Block, grid_positions, rotary_tables

CONDITIONS = 2
"""An action token and a state token go before the patch tokens of every time step."""


class ActionPredictor(nn.Module):
    """Predicts the features of the time step after each of those it is given.

    A time step is [action, state, patches…]; a token sees all tokens of its own and of earlier time steps.
    Patch tokens are turned by time, row and column, the two others by time alone.
    """

    cosine: Tensor
    sine: Tensor
    step: Tensor

    def __init__(self, layers: Layers, encoder: EncoderConfig) -> None:
        super().__init__()
        self.grid = encoder.grid
        self.patches = encoder.tokens_per_frame
        self.predictor_embed = nn.Linear(encoder.layers.width, layers.width)
        self.action_encoder = nn.Linear(ACTION_DIM, layers.width)
        self.state_encoder = nn.Linear(STATE_DIM, layers.width)
        self.predictor_blocks = nn.ModuleList(Block(layers) for _ in range(layers.depth))
        self.predictor_norm = nn.LayerNorm(layers.width, eps=NORM_EPS)
        self.predictor_proj = nn.Linear(layers.width, encoder.layers.width)
        positions = self._positions(LONGEST)
        cosine, sine = rotary_tables(positions, layers.head_width, "2.0")
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)
        self.register_buffer("step", positions[:, 0].long(), persistent=False)

    def forward(self, features: Tensor, actions: Tensor, states: Tensor) -> Tensor:
        """Features (B, T, P, W), layer-normed, actions and states (B, T, 7) to features (B, T, P, W).

        The action at time t is the difference of the poses at t + 1 and t. What comes out is not yet
        layer-normed. T is at most `LONGEST`.
        """
        patches = self.predictor_embed(features)
        conditions = (self.action_encoder(actions)[:, :, None], self.state_encoder(states)[:, :, None])
        tokens = torch.cat((*conditions, patches), dim=2).flatten(1, 2)
        length = tokens.shape[1]
        cosine, sine, step = self.cosine[:length], self.sine[:length], self.step[:length]
        allowed = step[:, None] >= step
        for block in self.predictor_blocks:
            tokens = block(tokens, cosine, sine, allowed)
        patches = tokens.unflatten(1, (-1, CONDITIONS + self.patches))[:, :, CONDITIONS:]
        return self.predictor_proj(self.predictor_norm(patches))

    def _positions(self, steps: int) -> Tensor:
        """(steps · (2 + P), 3) time, row and column of every token."""
        patches = grid_positions(steps, self.grid, self.grid).reshape(steps, self.patches, 3)
        conditions = torch.zeros(steps, CONDITIONS, 3, dtype=torch.float64, device=CPU)
        conditions[:, :, 0] = torch.arange(steps, device=CPU)[:, None]
        return torch.cat((conditions, patches), dim=1).flatten(0, 1)
