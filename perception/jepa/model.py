"""The joint-embedding predictive architecture: encoder, predictor, and the heads that read its latents.

    image ──encoder──→ z                  (z, z − z_prev, tool, action block) ──predictor──→ next z, next tool
    (z, z_goal, steps left) ──proposal──→ action block       (z, z_goal) ──energy──→ steps to go

Where a task needs the hand's place to a centimetre, as a grasp does, proposal and energy are told the tool's
state now as well: the joints know it exactly, a picture along whose view it moves hardly does.

One step of the world model is one action block: `block` actions of 0.1 s each. Actions are in units of the
action limit (−1…1), tool positions are normalised by `Normaliser`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# Steps to go are classified 0…max_steps, or "elsewhere", not reached within what the model has seen: that
# counts as this many times `max_steps`.
ELSEWHERE_FACTOR = 1.3
# Of a picture's channel, 0…1: what is darker or flatter is not blown up.
SMALLEST_VARIANCE = 1e-3


class Encoder(nn.Module):
    """Images uint8 (N, S, S, 3) to latents float32 (N, D), each dimension of zero mean, unit variance."""

    def __init__(self, image_size: int, latent_dim: int) -> None:
        super().__init__()
        widths = (3, 16, 32, 64, 128)
        layers: list[nn.Module] = []
        for narrow, wide in zip(widths[:-1], widths[1:], strict=True):
            layers += [
                nn.Conv2d(narrow, wide, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(wide),
                nn.ReLU(),
            ]
        self.convolutions = nn.Sequential(*layers)
        self.projection = nn.Sequential(
            nn.Linear(widths[-1] * (image_size // 16) ** 2, 256, bias=False),
            nn.BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, latent_dim),
            # LayerNorm here would stop SIGReg from shaping the distribution; BatchNorm leaves it free to.
            nn.BatchNorm1d(latent_dim, affine=False),
        )

    def forward(self, image: Tensor) -> Tensor:
        # Brightness and tint of the light are the scale of a picture's channels: nothing that moves.
        pixels = image.float().permute(0, 3, 1, 2) / 255.0  # squares of 255 are beyond half precision
        variance, mean = torch.var_mean(pixels, (2, 3), correction=0, keepdim=True)
        scale = torch.rsqrt(variance + SMALLEST_VARIANCE)
        return self.projection(self.convolutions((pixels - mean) * scale).flatten(1))


class ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.layers(hidden)


class Predictor(nn.Module):
    """(z (N, D), z_prev (N, D), tool (N, P), actions (N, block·A)) → next z (N, D), next tool (N, P)."""

    def __init__(
        self, latent_dim: int, tool_dim: int, action_dim: int, width: int = 512, blocks: int = 2
    ) -> None:
        super().__init__()
        self.enter = nn.Linear(2 * latent_dim + tool_dim + action_dim, width)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, latent_dim + tool_dim))

    def forward(
        self, latent: Tensor, previous: Tensor, tool: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor]:
        hidden = self.enter(torch.cat([latent, latent - previous, tool, actions], dim=1))
        change = self.leave(self.blocks(hidden))
        size = latent.shape[1]
        return latent + change[:, :size], tool + change[:, size:]


class InverseDynamics(nn.Module):
    """(z, next z) → the actions between them (N, block·A). For training only: it keeps actions readable."""

    def __init__(self, latent_dim: int, action_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * latent_dim, 256), nn.GELU(), nn.Linear(256, action_dim))

    def forward(self, latent: Tensor, following: Tensor) -> Tensor:
        return self.layers(torch.cat([latent, following], dim=1))


class Displacement(nn.Module):
    """(z, other z of the same session) → the tool's way from one to the other (N, P), normalised.

    For training only: it keeps the tool's whole place readable. A way along the camera's view moves hardly a
    pixel, and prediction alone leaves it out.
    """

    def __init__(self, latent_dim: int, tool_dim: int) -> None:
        super().__init__()
        self.layers = _mlp(2 * latent_dim, tool_dim, 256, hidden=2)

    def forward(self, latent: Tensor, other: Tensor) -> Tensor:
        return self.layers(torch.cat([latent, other], dim=1))


def _mlp(inputs: int, outputs: int, width: int, hidden: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(inputs, width), nn.GELU()]
    for _ in range(hidden - 1):
        layers += [nn.LayerNorm(width), nn.Linear(width, width), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def _told(inputs: list[Tensor], tool: Tensor | None, tool_dim: int) -> Tensor:
    """A head's `inputs` (N, …) side by side, with the tool states (N, P) if it is one that is told them."""
    if tool_dim:
        assert tool is not None
        inputs = [*inputs, tool]
    return torch.cat(inputs, dim=1)


class Proposal(nn.Module):
    """Mode-1: goal-conditioned inverse dynamics, (z, z_goal, steps left float (N, 1)) → what may be done.

    Where several ways lead to the goal, left or right around the object, their mean leads nowhere. So there
    are `ANSWERS`, as in a mixture density network (Bishop 1994): actions (N, K, block·A) in −1…1, and the
    logits (N, K) of how likely each is. With a `tool_dim` it is told normalised tool states (N, P) too.
    """

    ANSWERS = 4
    layers: nn.Sequential
    steps: Tensor

    def __init__(
        self, latent_dim: int, action_dim: int, max_steps: int, tool_dim: int = 0, width: int = 512
    ) -> None:
        super().__init__()
        inputs = 2 * latent_dim + max_steps + 1 + tool_dim
        self.tool_dim = tool_dim
        self.layers = _mlp(inputs, self.ANSWERS * (action_dim + 1), width, hidden=3)
        self.register_buffer("steps", torch.arange(max_steps + 1, dtype=torch.float32), persistent=False)

    def forward(
        self, latent: Tensor, goal: Tensor, steps_left: Tensor, tool: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        # A soft one-hot: fractional steps lie between their neighbours.
        code = torch.relu(1.0 - (steps_left - self.steps).abs())
        known = _told([latent, goal, code], tool, self.tool_dim)
        answers = self.layers(known).unflatten(1, (self.ANSWERS, -1))
        return torch.tanh(answers[..., :-1]), answers[..., -1]


class Energy(nn.Module):
    """Learned time-to-go: (z, z_goal) → logits (N, max_steps + 2) over steps to go, the last: elsewhere.

    With a `tool_dim` it is told normalised tool states (N, P) too.
    """

    steps: Tensor

    def __init__(self, latent_dim: int, max_steps: int, tool_dim: int = 0, width: int = 512) -> None:
        super().__init__()
        self.max_steps, self.tool_dim = max_steps, tool_dim
        self.layers = _mlp(3 * latent_dim + tool_dim, max_steps + 2, width, hidden=3)
        elsewhere = torch.tensor([ELSEWHERE_FACTOR * max_steps])
        steps = torch.cat([torch.arange(max_steps + 1, dtype=torch.float32), elsewhere])
        self.register_buffer("steps", steps, persistent=False)

    def forward(self, latent: Tensor, goal: Tensor, tool: Tensor | None = None) -> Tensor:
        return self.layers(_told([latent, goal, goal - latent], tool, self.tool_dim))

    def steps_to_go(self, latent: Tensor, goal: Tensor, tool: Tensor | None = None) -> Tensor:
        """Optimistic steps to go (N,): the soft minimum over the classes' steps, weighed by probability.

        Play wanders, so the expected time of its hindsight goals is far above the shortest. The soft minimum,
        at a temperature of one step, stays near the quickest way that play has shown.
        """
        shares = functional.log_softmax(self(latent, goal, tool), dim=1)
        return -torch.logsumexp(shares - self.steps, dim=1)
