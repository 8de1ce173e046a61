"""The training objective of the world model, term by term."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from perception.jepa.distributed import mean_of_processes, world_size
from perception.jepa.model import Displacement, Energy, InverseDynamics, Predictor, Proposal
from perception.jepa.windows import Sample

SIGREG_PROJECTIONS = 128
SIGREG_KNOTS = 17
SIGREG_RANGE = 3.0
# In smooth L1 of actions in −1…1: further from a component of the reflex than this is another way.
REFLEX_WIDTH = 0.05
# In temperatures: the weights of actions differ by e⁴ at most.
LARGEST_ADVANTAGE = 2.0


class Terms(NamedTuple):
    """The terms of the loss, each a scalar."""

    prediction: Tensor
    tool: Tensor
    sigreg: Tensor
    straightening: Tensor
    inverse: Tensor
    reflex: Tensor
    time_to_go: Tensor
    displacement: Tensor


class Models(NamedTuple):
    """What is trained together: the world model, and what reads its latents."""

    encoder: nn.Module
    predictor: Predictor
    inverse: InverseDynamics
    proposal: Proposal
    energy: Energy
    displacement: Displacement


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
    models: Models, sample: Sample, horizon: int, together: int, generator: torch.Generator
) -> Terms:
    """The loss terms of windows, each run of `together` of which is from one session.

    From every step that has a predecessor and `horizon` successors the predictor runs open loop; its
    predictions are compared with the encoder's latents of those later frames, both sides learning. From every
    step reflex and time-to-go are asked for the window's hindsight goals: what they need to know of a picture
    the encoder learns to tell.
    """
    batch, length = sample.frames.shape[:2]
    pictures = torch.cat([sample.frames, sample.goals], dim=1)
    encoded = models.encoder(pictures.flatten(0, 1)).float().unflatten(0, (batch, -1))
    latents, goals = encoded[:, :length], encoded[:, length:]
    prediction, tool_error = _open_loop(models.predictor, latents, sample.tool, sample.actions, horizon)
    guessed = models.inverse(latents[:, :-1].flatten(0, 1), latents[:, 1:].flatten(0, 1)).float()
    reflex, time_to_go = _goal_terms(models, latents, goals, sample, together)
    return Terms(
        prediction=prediction,
        tool=tool_error,
        sigreg=torch.stack([sigreg_within(latents[:, t], together, generator) for t in range(length)]).mean(),
        straightening=straightening(latents),
        inverse=functional.mse_loss(guessed, sample.actions.flatten(0, 1)),
        reflex=reflex,
        time_to_go=time_to_go,
        displacement=_displacement_error(models.displacement, latents, sample.tool, together),
    )


def _displacement_error(displacement: Displacement, latents: Tensor, tool: Tensor, together: int) -> Tensor:
    """Mean squared error of the tool's way from latents (B, L, D) to those of the next window in the run."""

    def of_next(windows: Tensor) -> Tensor:
        return windows.unflatten(0, (-1, together)).roll(1, dims=1).flatten(0, 1)

    way = of_next(tool) - tool
    guessed = displacement(latents.flatten(0, 1), of_next(latents).flatten(0, 1)).float()
    return functional.mse_loss(guessed, way.flatten(0, 1))


def _open_loop(
    predictor: Predictor, latents: Tensor, tool: Tensor, actions: Tensor, horizon: int
) -> tuple[Tensor, Tensor]:
    """Mean squared errors of latents (B, L, D) and tool (B, L, P), predicted up to `horizon` steps ahead."""
    starts = range(1, latents.shape[1] - horizon)
    previous = torch.cat([latents[:, t - 1] for t in starts])
    current = torch.cat([latents[:, t] for t in starts])
    position = torch.cat([tool[:, t] for t in starts])
    prediction = tool_error = torch.zeros(())
    for k in range(horizon):
        action = torch.cat([actions[:, t + k] for t in starts])
        following, position = predictor(current, previous, position, action)
        following, position = following.float(), position.float()
        previous, current = current, following
        later = [latents[:, t + k + 1] for t in starts]
        prediction = prediction + functional.mse_loss(current, torch.cat(later))
        tool_error = tool_error + functional.mse_loss(
            position, torch.cat([tool[:, t + k + 1] for t in starts])
        )
    return prediction / horizon, tool_error / horizon


def _goal_terms(
    models: Models, latents: Tensor, goals: Tensor, sample: Sample, together: int
) -> tuple[Tensor, Tensor]:
    """Errors of reflex and time-to-go from latents (B, L, D) to goals (B, G, D) of the same episodes.

    The first goal of the next window in the run is of another episode: from here, elsewhere.
    """
    count, max_steps = goals.shape[1], models.energy.max_steps
    now = latents[:, :-1, None].expand(-1, -1, count, -1)
    tool = sample.tool[:, :-1, None].expand(-1, -1, count, -1)
    goal = goals[:, None].expand_as(now)
    left = sample.steps_left[:, :-1]
    later = (left >= 0) & (left <= max_steps)
    others = goals[:, 0].unflatten(0, (-1, together)).roll(1, dims=1).flatten(0, 1)
    logits = models.energy(
        torch.cat([now[later], latents[:, 0]]),
        torch.cat([goal[later], others]),
        torch.cat([tool[later], sample.tool[:, 0]]),
    ).float()
    elsewhere = torch.full((len(others),), max_steps + 1)
    time_to_go = _mean_over_processes(
        functional.cross_entropy(logits, torch.cat([left[later], elsewhere]), reduction="none")
    )
    moving = later & (left > 0)
    answers, logits = models.proposal(now[moving], goal[moving], left[moving].float()[:, None], tool[moving])
    taken = sample.actions[:, :, None].expand(-1, -1, count, -1)[moving]
    return _mean_over_processes(reflex_misses(answers, logits, taken)), time_to_go


def _mean_over_processes(errors: Tensor) -> Tensor:
    """The mean of errors (N,), of which each process has another number."""
    count = torch.tensor(float(len(errors)), dtype=errors.dtype)
    return errors.sum() / mean_of_processes(count)


def reflex_misses(proposed: Tensor, logits: Tensor, taken: Tensor) -> Tensor:
    """How far the reflex's K answers (N, K, block·A), likely as logits (N, K), are from what was taken.

    `taken` (N, block·A) is in −1…1, the result (N,): the negative log-likelihood of a mixture whose
    components fall off with the smooth L1 distance, in units of `REFLEX_WIDTH`. Each learns what is nearest
    to it, and none the mean of ways that exclude each other.
    """
    nearness = functional.smooth_l1_loss(
        proposed.float(), taken[:, None].expand_as(proposed), beta=0.1, reduction="none"
    ).mean(2)
    shares = functional.log_softmax(logits.float(), dim=1)
    return -REFLEX_WIDTH * torch.logsumexp(shares - nearness / REFLEX_WIDTH, dim=1)


def steps_to_go_loss(logits: Tensor, steps: Tensor) -> Tensor:
    """Cross-entropy of time-to-go logits (N, max_steps + 2) against true steps int64 (N,)."""
    return functional.cross_entropy(logits, steps)


def advantage_weights(before: Tensor, after: Tensor, temperature: float) -> Tensor:
    """Weights (N,) of mean 1 for actions: the more, the nearer to the quickest way to the goal they are.

    `before` and `after` (N,) are steps to go. What wanders, waits or is noise counts exponentially less, as
    in advantage-weighted regression (Peng et al. 2019).
    """
    advantage = before - after - 1.0
    weights = torch.exp((advantage / temperature).clamp(-LARGEST_ADVANTAGE, LARGEST_ADVANTAGE))
    return weights / mean_of_processes(weights.mean())
