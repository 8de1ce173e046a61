"""Is a runtime exact enough to act by? Its latents and its ranking of candidates against the reference's.

    accuracy = measure_accuracy(bundle.on(variant), held_out)
    accuracy.passes, accuracy.why_not

An error of a latent is harmless or not by what the planner makes of it, so the candidates that it would
compare are ranked by both, each along its own way from picture to energy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perception.encoder import Encoder
from perception.runtimes.registry import REFERENCE
from planner.bundle import Bundle
from planner.contract import Array, Observation
from planner.energy import TimeToGo, path_energy
from planner.held_out import HeldOut
from planner.world_model import WorldModel

LEAST_COSINE, LEAST_SPEARMAN, LEAST_OVERLAP = 0.999, 0.99, 0.9
CANDIDATES, HORIZON, BEST = 200, 6, 30
# The width of Mode-2's refinement: the nearer candidates are to one another, the harder they are to rank.
NOISE = 0.2


@dataclass(frozen=True)
class Accuracy:
    """Of all held-out frames the least cosine with the reference's latent; over the held-out scenes the mean
    rank correlation (Spearman) of candidate costs and the mean share of the best 30 that both agree on."""

    cosine: float
    spearman: float
    overlap: float

    @property
    def why_not(self) -> str:
        """What falls short, in words; nothing if the runtime passes."""
        limits = (
            ("latent cosine", self.cosine, LEAST_COSINE),
            ("rank correlation", self.spearman, LEAST_SPEARMAN),
            (f"overlap of the best {BEST}", self.overlap, LEAST_OVERLAP),
        )
        return ", ".join(
            f"{what} {value:.4f} below {least:g}" for what, value, least in limits if not value >= least
        )

    @property
    def passes(self) -> bool:
        return not self.why_not


def measure_accuracy(bundle: Bundle, held_out: HeldOut) -> Accuracy:
    """How near `bundle` on its runtime is to itself on ONNX Runtime in float32."""
    ours, theirs = _Chain(bundle.on(REFERENCE)), _Chain(bundle)
    latents, found = ours.encode(held_out), theirs.encode(held_out)
    correlations, overlaps = [], []
    for scene in range(len(held_out.frames)):
        candidates = _candidates(held_out.blocks[scene], np.random.default_rng(scene))
        expected = ours.costs(latents[scene], held_out.tool[scene], candidates)
        costs = theirs.costs(found[scene], held_out.tool[scene], candidates)
        correlations.append(spearman(expected, costs))
        overlaps.append(overlap_of_best(expected, costs, BEST))
    return Accuracy(least_cosine(latents, found), float(np.mean(correlations)), float(np.mean(overlaps)))


class _Chain:
    """From pictures to the costs of candidates, all on one runtime."""

    def __init__(self, bundle: Bundle) -> None:
        self._encoder: Encoder = bundle.encoder()
        self._model: WorldModel = bundle.world_model()
        self._energy = TimeToGo(self._model)
        # What is compared has to be what runs on an arm: sessions prepared for their batches.
        self._model.prepare(predict=[CANDIDATES], steps_to_go=[CANDIDATES * HORIZON])

    def encode(self, held_out: HeldOut) -> Array:
        """Latents (K, L, D), of one picture at a time as a camera gives them."""
        frames = held_out.frames
        return np.array([[self._encoder.encode(frame[None])[0] for frame in scene] for scene in frames])

    def costs(self, latents: Array, tool: Array, candidates: Array) -> Array:
        """Costs (N,) of candidates (N, H, block·A) from the second step of a stretch towards its end."""
        observation = Observation(latents[1], latents[0], tool[1], 0)
        imagined = self._model.rollout(observation, candidates)
        return path_energy(self._energy, imagined, latents[-1])


def _candidates(blocks: Array, rng: np.random.Generator) -> Array:
    """Action sequences (N, H, block·A) around what was done from the second step of a stretch on."""
    done = blocks[1 : 1 + HORIZON]
    noise = rng.normal(0.0, NOISE, (CANDIDATES, *done.shape))
    return np.clip(done + noise, -1, 1).astype(np.float32)


def least_cosine(latents: Array, others: Array) -> float:
    """Of all pairs of latents (..., D)."""
    product = np.sum(latents * others, axis=-1, dtype=np.float64)
    norms = np.linalg.norm(latents, axis=-1) * np.linalg.norm(others, axis=-1)
    return float(np.min(product / norms))


def spearman(costs: Array, others: Array) -> float:
    """Rank correlation of costs (N,) (Spearman 1904): Pearson's of their ranks; ties keep their order."""
    ranks, other_ranks = (np.argsort(np.argsort(values, kind="stable")) for values in (costs, others))
    return float(np.corrcoef(ranks, other_ranks)[0, 1])


def overlap_of_best(costs: Array, others: Array, count: int) -> float:
    """The share of the `count` cheapest that are the same."""
    best, others_best = (set(np.argsort(values, kind="stable")[:count]) for values in (costs, others))
    return len(best & others_best) / count
