"""What makes collapse visible: a falling loss with falling rank is no progress.

std              spread of each latent dimension over held-out frames; 1 is healthy, 0 is collapse
effective rank   exp of the entropy of the latents' spectrum (Roy & Vetterli 2007), of D at the most
open loop        8-step prediction error as a share of that of standing still; below 1 is knowledge
probe            how well a linear map reads positions from a latent, RMSE in centimetres
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from perception.dataset import DatasetInfo, Episodes
from perception.jepa.augmentation import augment
from perception.jepa.model import Predictor
from perception.jepa.windows import Windows
from perception.surprise import SCORES, Experience, Yardstick, calibrate, experience_of

OPEN_LOOP_STEPS = 8
ENCODE_BATCH = 512


@dataclass(frozen=True)
class Health:
    """One reading of the monitors, on held-out episodes."""

    std: float
    effective_rank: float
    one_step_error: float
    open_loop_error: float
    open_loop_normalised: float
    tool_probe_cm: float
    object_probe_cm: float | None

    def as_dict(self) -> dict[str, float]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@torch.no_grad()
def encode_all(encoder: nn.Module, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Latents (E, T, D) of frames (E, T, S, S, 3), in evaluation mode."""
    encoder.eval()
    flat = frames.reshape(-1, *frames.shape[2:])
    parts = [
        encoder(torch.from_numpy(flat[i : i + ENCODE_BATCH])).float().numpy()
        for i in range(0, len(flat), ENCODE_BATCH)
    ]
    return np.concatenate(parts).reshape(*frames.shape[:2], -1)


def encode_views(
    encoder: nn.Module, frames: NDArray[np.uint8], info: DatasetInfo, views: int
) -> NDArray[np.float32]:
    """Latents (views·E, T, D) of frames (E, T, S, S, 3): as they are, then augmented session by session."""
    session = info.session
    latents = [encode_all(encoder, frames)]
    for view in range(1, views):
        changed = np.empty_like(frames)
        for first in range(0, len(frames), session):
            part = frames[first : first + session]
            seed = np.array([first * views + view])
            changed[first : first + session] = augment(part, len(part), seed, info.same)
        latents.append(encode_all(encoder, changed))
    return np.concatenate(latents)


def calibrate_surprise(
    encoder: nn.Module, predictor: Predictor, windows: Windows, held_out: Windows
) -> dict[str, Any]:
    """What the run-time monitor needs: a yardstick from as many training episodes as are held out, scales and
    levels from every moment of the held-out ones. Both models are left in evaluation mode.
    """
    predictor.eval()

    @torch.no_grad()
    def predict(*inputs: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        latent, tool = predictor(*(torch.from_numpy(value) for value in inputs))
        return latent.numpy(), tool.numpy()

    def recorded(part: Windows) -> tuple[Experience, int]:
        # Spread over all of them: neighbours may have been recorded under the same conditions.
        chosen = np.linspace(0, len(part.frames) - 1, len(held_out.frames)).round().astype(int)
        latents = encode_all(encoder, part.frames[chosen])
        return experience_of(latents, part.tool[chosen], part.actions[chosen], part.block)

    usual, _ = recorded(windows)
    yardstick = Yardstick.fit(usual, windows.tool_std, predict)
    experience, moments = recorded(held_out)
    scores = yardstick.scores(experience, predict).reshape(-1, moments, len(SCORES))
    scales, levels = calibrate(scores)
    return {
        "yardstick": asdict(yardstick),
        "scales": dict(zip(SCORES, scales.tolist(), strict=True)),
        "levels": levels,
        "episodes": len(scores),
    }


@torch.no_grad()
def read_health(encoder: nn.Module, predictor: Predictor, windows: Windows, episodes: Episodes) -> Health:
    """Read the monitors on `windows` of the held-out `episodes`; both models are left in evaluation mode."""
    predictor.eval()
    latents = encode_all(encoder, episodes.frames)
    flat = latents.reshape(-1, latents.shape[-1])
    count = min(256, 4 * len(episodes))
    rng = np.random.default_rng(0)
    window = windows.take(rng.integers(len(episodes), size=count), rng.integers(windows.starts, size=count))
    errors, still = _open_loop(encoder, predictor, *window)
    return Health(
        std=float(flat.std(0).mean()),
        effective_rank=effective_rank(flat),
        one_step_error=errors[0],
        open_loop_error=errors[-1],
        open_loop_normalised=errors[-1] / max(still, 1e-9),
        tool_probe_cm=_probe_cm(latents, episodes.tool[..., :3]),
        object_probe_cm=None
        if np.isnan(episodes.object).any()
        else _probe_cm(latents, episodes.object[..., :3]),
    )


def effective_rank(latents: NDArray[np.float32]) -> float:
    """exp(entropy) of the normalised singular values of centred latents (N, D)."""
    values = np.linalg.svd(latents - latents.mean(0), compute_uv=False)
    share = values / max(values.sum(), 1e-12)
    return float(np.exp(-(share * np.log(share + 1e-12)).sum()))


def _open_loop(
    encoder: nn.Module, predictor: Predictor, frames: torch.Tensor, tool: torch.Tensor, actions: torch.Tensor
) -> tuple[list[float], float]:
    """MSE after 1…OPEN_LOOP_STEPS predicted steps, and that of predicting no change over all of them."""
    latents = torch.from_numpy(encode_all(encoder, frames.numpy()))
    previous, current, position = latents[:, 0], latents[:, 1], tool[:, 1]
    errors = []
    for step in range(OPEN_LOOP_STEPS):
        following, position = predictor(current, previous, position, actions[:, step + 1])
        previous, current = current, following
        errors.append(float(((current - latents[:, step + 2]) ** 2).mean()))
    return errors, float(((latents[:, 1] - latents[:, -1]) ** 2).mean())


def _probe_cm(latents: NDArray[np.float32], positions: NDArray[np.float32]) -> float:
    """Ridge regression on half of the episodes, root mean square distance on the other half."""
    half = len(latents) // 2

    def inputs(part: NDArray[np.float32]) -> NDArray[np.float64]:
        flat = part.reshape(-1, part.shape[-1]).astype(np.float64)
        return np.hstack([flat, np.ones((len(flat), 1))])

    train, target = inputs(latents[:half]), positions[:half].reshape(-1, 3)
    weights = np.linalg.solve(train.T @ train + 1e-3 * len(train) * np.eye(train.shape[1]), train.T @ target)
    error = inputs(latents[half:]) @ weights - positions[half:].reshape(-1, 3)
    return float(np.sqrt((error**2).sum(1).mean()) * 100)
