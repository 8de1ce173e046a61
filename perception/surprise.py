"""How far the world is from what its model expects, as one number that is calibrated on held-out episodes.

Four scores look at the last model steps, each blind where another sees:

latent     one-step prediction error of the latent, whitened by what is usual: anything that changes at once
tool       open-loop prediction error of the tool over OPEN_LOOP steps, metres: an arm that is blocked
outlier    Mahalanobis distance of the latent from those of training (Lee et al. 2018): an unknown scene
stillness  1 / mean squared change of the latent: a frozen stream; a resting arm's has the camera's noise

Each is divided by what it reaches in one held-out episode of ten; their maximum is the surprise. Its levels
are split-conformal (Vovk et al. 2005; Angelopoulos & Bates 2021): quantiles of the largest surprise of whole
held-out episodes, so that an episode like those reaches a level at most at the level's rate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
# (latents (N, D), previous (N, D), tool (N, P), actions (N, block·A)) → next latents, next tool; normalised.
Predict = Callable[[Array, Array, Array, Array], tuple[Array, Array]]

SCORES = ("latent", "tool", "outlier", "stillness")
OPEN_LOOP = 3
SHORTEST, LONGEST = 3, OPEN_LOOP + 2
# Shares of nominal episodes that may reach each level.
FALSE_ALARM_RATES = {"slow": 0.1, "hold": 0.03, "stop": 0.01}
SCALE_RATE = 0.1
# Keeps the stillness of two identical pictures finite; the noise of a camera changes latents far more.
SMALLEST_CHANGE = 1e-9
# Share of the mean variance that whitening adds to each.
RIDGE = 0.05


@dataclass(frozen=True)
class Experience:
    """The last L model steps of N streams, now at −1; L from SHORTEST to LONGEST.

    `latents` (N, L, D); `tool` (N, L, P) normalised; `actions` (N, L−1, block·A) in −1…1, as they reached the
    arm.
    """

    latents: Array
    tool: Array
    actions: Array


@dataclass(frozen=True)
class Yardstick:
    """What is usual.

    Whitening (D, D) of prediction errors and of latents; `latent_mean` (D,); `tool_std` (P,) metres.
    """

    error_whitening: Array
    latent_whitening: Array
    latent_mean: Array
    tool_std: Array

    @classmethod
    def fit(cls, usual: Experience, tool_std: Array, predict: Predict) -> Yardstick:
        """From `usual` experience; `tool_std` (P,) metres is what the tool was normalised by."""
        errors, _ = _prediction_errors(usual, predict)
        latents = usual.latents[:, -1]
        mean = latents.mean(0)
        return cls(_whitening(errors), _whitening(latents - mean), mean, np.asarray(tool_std, np.float32))

    def scores(self, experience: Experience, predict: Predict) -> Array:
        """(N, 4) in the order of SCORES, each the larger the less usual."""
        latents = experience.latents
        errors, strayed = _prediction_errors(experience, predict)
        outlying = latents[:, -1] - self.latent_mean
        changes = latents[:, -SHORTEST + 1 :] - latents[:, -SHORTEST:-1]
        return np.stack(
            [
                ((errors @ self.error_whitening) ** 2).mean(1),
                np.linalg.norm(strayed * self.tool_std, axis=1),
                ((outlying @ self.latent_whitening) ** 2).mean(1),
                1.0 / ((changes**2).mean((1, 2)) + SMALLEST_CHANGE),
            ],
            axis=1,
        )


def calibrate(scores: Array) -> tuple[Array, dict[str, float]]:
    """Scales (4,) of the scores and the surprise at each level, from `scores` (E, M, 4) of held-out episodes.

    Where there are too few episodes for a level's rate, the level is the largest surprise of them all.
    """
    scales = np.array([conformal_quantile(largest, SCALE_RATE) for largest in scores.max(1).T], np.float32)
    largest = surprise(scores, scales).max(1)
    return scales, {level: conformal_quantile(largest, rate) for level, rate in FALSE_ALARM_RATES.items()}


def surprise(scores: Array, scales: Array) -> Array:
    """(...) from `scores` (..., 4) and `scales` (4,)."""
    return (scores / scales).max(-1)


def conformal_quantile(values: Array, rate: float) -> float:
    """What one more value like `values` (N,) exceeds with a probability of at most `rate`.

    Their largest, where N is too small for that rate.
    """
    rank = int(np.ceil((len(values) + 1) * (1.0 - rate) - 1e-9))
    return float(np.sort(values)[min(rank, len(values)) - 1])


def experience_of(latents: Array, tool: Array, actions: Array, block: int) -> tuple[Experience, int]:
    """Every moment of E recorded episodes as E·M streams, and M.

    `latents` (E, T+1, D), `tool` (E, T+1, P) normalised, `actions` (E, T, A) in −1…1, one an action period.
    """
    moments = latents.shape[1] - block * (LONGEST - 1)
    at = np.arange(moments)[:, None] + block * np.arange(LONGEST)
    every = np.arange(moments)[:, None] + np.arange(block * (LONGEST - 1))
    count = len(latents) * moments
    experience = Experience(
        latents[:, at].reshape(count, LONGEST, -1),
        tool[:, at].reshape(count, LONGEST, -1),
        actions[:, every].reshape(count, LONGEST - 1, -1),
    )
    return experience, moments


def _prediction_errors(experience: Experience, predict: Predict) -> tuple[Array, Array]:
    """Of the latent (N, D) after one step, of the normalised tool (N, P) after all, OPEN_LOOP at the most."""
    latents, tool, actions = experience.latents, experience.tool, experience.actions
    last = latents.shape[1] - 1
    start = max(1, last - OPEN_LOOP)
    count = len(latents)
    # The last step and the first of the open loop in one call.
    following, places = predict(
        np.concatenate([latents[:, last - 1], latents[:, start]]),
        np.concatenate([latents[:, last - 2], latents[:, start - 1]]),
        np.concatenate([tool[:, last - 1], tool[:, start]]),
        np.concatenate([actions[:, last - 1], actions[:, start]]),
    )
    errors = latents[:, last] - following[:count]
    previous, latent, place = latents[:, start], following[count:], places[count:]
    for step in range(start + 1, last):
        following, place = predict(latent, previous, place, np.ascontiguousarray(actions[:, step]))
        previous, latent = latent, following
    return errors, tool[:, last] - place


def _whitening(samples: Array) -> Array:
    """W (D, D) that gives `samples` (N, D) about unit covariance; small variances are not blown up."""
    covariance = samples.T.astype(np.float64) @ samples / len(samples)
    values, vectors = np.linalg.eigh(covariance)
    ridge = RIDGE * float(values.mean()) + 1e-12
    return (vectors / np.sqrt(np.maximum(values, 0.0) + ridge)).astype(np.float32)
