"""The episodes of `sim.protocol.evaluate`, shared out among workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from perception.runtimes.contract import Variant
from planner.bundle import Bundle, load_bundle
from sim.protocol import evaluate
from sim.results import EpisodeResult
from sim.workers import Workers

# A world takes as long to start as an episode to run; so few that the last chunks end together.
EPISODES_PER_CHUNK = 4


@dataclass(frozen=True)
class Chunk:
    """Arguments of `sim.protocol.evaluate`, as they travel to a worker."""

    task: str
    planner: str
    bundle: Path
    seeds: Sequence[int]
    perturbation: str
    anomaly: str | None
    budget_ms: float | None
    variant: Variant


def evaluate_on(
    workers: Workers,
    task: str,
    planner: str,
    bundle: Bundle,
    seeds: Sequence[int],
    perturbation: str = "none",
    anomaly: str | None = None,
    budget_ms: float | None = None,
) -> Iterator[EpisodeResult]:
    """Yield each seed's result as it finishes: the same as of `evaluate`, except for the time of plans."""
    if workers.alone:
        yield from evaluate(task, planner, bundle, seeds, perturbation, anomaly, budget_ms)
        return
    path = bundle.path.absolute()
    whole = Chunk(task, planner, path, seeds, perturbation, anomaly, budget_ms, bundle.variant)
    size = EPISODES_PER_CHUNK
    chunks = [replace(whole, seeds=seeds[first : first + size]) for first in range(0, len(seeds), size)]
    for results in workers.map(evaluate_chunk, chunks):
        yield from results


def evaluate_chunk(chunk: Chunk) -> list[EpisodeResult]:
    bundle = load_bundle(chunk.bundle).on(chunk.variant)
    return list(
        evaluate(
            chunk.task,
            chunk.planner,
            bundle,
            chunk.seeds,
            chunk.perturbation,
            chunk.anomaly,
            chunk.budget_ms,
        )
    )
