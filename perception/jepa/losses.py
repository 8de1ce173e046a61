"""The training objective of the world model, term by term."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from perception.jepa.distributed import mean_of_processes, world_size
from perception.jepa.model import InverseDynamics, Predictor

SIGREG_PROJECTIONS = 128
SIGREG_KNOTS = 17
SIGREG_RANGE = 3.0


class Terms(NamedTuple):
    """The terms of the loss, each a scalar."""

    prediction: Tensor
    tool: Tensor
    sigreg: Tensor
    straightening: Tensor
    inverse: Tensor


def sigreg(latents: Tensor, generator: torch.Generator) -> Tensor:
    """How far latents (N, D), of all processes, are from an isotropic Gaussian: sketched isotropic Gaussian
    regularisation.

    The Epps-Pulley statistic of the empirical characteristic function against that of N(0, 1), averaged over
    random directions (LeJEPA, Balestriero & LeCun 2025). Keeps the latents from collapsing.
    """
    directions = torch.randn(latents.shape[1], SIGREG_PROJECTIONS, generator=generator)
    projected = latents @ functional.normalize(directions, dim=0)
    knots = torch.linspace(0.0, SIGREG_RANGE, SIGREG_KNOTS)
    step = SIGREG_RANGE / (SIGREG_KNOTS - 1)
    trapezoid = torch.full((SIGREG_KNOTS,), 2 * step)
    trapezoid[[0, -1]] = step
    gaussian = torch.exp(-0.5 * knots**2)
    angles = projected[:, :, None] * knots
    real, imaginary = mean_of_processes(torch.stack([angles.cos().mean(0), angles.sin().mean(0)]))
    error = (real - gaussian) ** 2 + imaginary**2
    return (error @ (trapezoid * gaussian)).mean() * len(latents) * world_size()


def sigreg_within(latents: Tensor, together: int, generator: torch.Generator) -> Tensor:
    """`sigreg` of how latents (B, D) differ within their session: each run of `together` is from one.

    Over whole batches the statistic is content with what tells sessions apart, such as the light or where
    the camera stands. That is easily predicted, for it never changes, and says nothing about what moves.
    """
    of_session = latents.unflatten(0, (-1, together))
    centred = of_session - of_session.mean(1, keepdim=True)
    return sigreg(centred.flatten(0, 1) * math.sqrt(together / (together - 1)), generator)


def straightening(latents: Tensor) -> Tensor:
    """1 − cos between successive changes of latents (B, T, D): motion should be straight in latent space."""
    change = latents[:, 1:] - latents[:, :-1]
    return (1.0 - functional.cosine_similarity(change[:, 1:], change[:, :-1], dim=2, eps=1e-4)).mean()


def world_model_terms(
    encoder: nn.Module,
    predictor: Predictor,
    inverse: InverseDynamics,
    frames: Tensor,
    tool: Tensor,
    actions: Tensor,
    horizon: int,
    together: int,
    generator: torch.Generator,
) -> Terms:
    """The loss terms of windows: frames uint8 (B, T, S, S, 3), tool (B, T, P), actions (B, T−1, A).

    Each run of `together` windows is from one session.

    From every step that has a predecessor and `horizon` successors the predictor runs open loop; its
    predictions are compared with the encoder's latents of those later frames, both sides learning.
    """
    batch, length = frames.shape[:2]
    latents = encoder(frames.flatten(0, 1)).float().unflatten(0, (batch, length))
    starts = range(1, length - horizon)
    previous = torch.cat([latents[:, t - 1] for t in starts])
    current = torch.cat([latents[:, t] for t in starts])
    position = torch.cat([tool[:, t] for t in starts])
    prediction = tool_error = torch.zeros(())
    for k in range(horizon):
        action = torch.cat([actions[:, t + k] for t in starts])
        following, position = predictor(current, previous, position, action)
        following, position = following.float(), position.float()
        previous, current = current, following
        prediction = prediction + functional.mse_loss(
            current, torch.cat([latents[:, t + k + 1] for t in starts])
        )
        tool_error = tool_error + functional.mse_loss(
            position, torch.cat([tool[:, t + k + 1] for t in starts])
        )
    guessed = inverse(latents[:, :-1].flatten(0, 1), latents[:, 1:].flatten(0, 1)).float()
    return Terms(
        prediction=prediction / horizon,
        tool=tool_error / horizon,
        sigreg=torch.stack([sigreg_within(latents[:, t], together, generator) for t in range(length)]).mean(),
        straightening=straightening(latents),
        inverse=functional.mse_loss(guessed, actions.flatten(0, 1)),
    )


def steps_to_go_loss(logits: Tensor, steps: Tensor) -> Tensor:
    """Cross-entropy of time-to-go logits (N, max_steps + 2) against true steps int64 (N,)."""
    return functional.cross_entropy(logits, steps)
