"""`jepa-arm eval --ros`: the episodes of `jepa-arm eval`, in real time through the node graph."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_arm_bringup.errors import GraphError
from jepa_arm_bringup.up import READY_TIMEOUT_S, stop_signals
from sim.results import EpisodeResult

if TYPE_CHECKING:
    from jepa_arm_ros.episode_client import EpisodeClient, RosEpisode

    from jepa_arm_bringup.graph import Graph
    from planner.bundle import Bundle

LOG_DIR = Path("out/eval/logs")
STEP_S = 0.1


def run(args: argparse.Namespace) -> int:
    from jepa_arm_bringup.environment import enter_ros_environment
    from sim.evaluate import check_request, episode_seeds, report, show_progress

    if args.planner == "scripted":
        raise GraphError(
            "--planner scripted sees the true state, which no node of the graph is told: "
            "evaluate it without --ros"
        )
    if args.ray is not None or args.workers != 1:
        raise GraphError("the graph runs one episode at a time, in real time: leave out --workers and --ray")
    settings = graph_settings(args, check_request(args))
    enter_ros_environment()
    from jepa_arm_bringup.graph import Graph

    episodes: list[RosEpisode] = []

    def results(client: EpisodeClient) -> Iterator[EpisodeResult]:
        for seed in episode_seeds(args):
            episode = client.run_episode(seed)
            episode.video.clear()
            episodes.append(episode)
            yield episode_result(episode)

    with stop_signals(), Graph(settings, log_dir=fresh(LOG_DIR)) as graph:
        graph.start()
        graph.wait_ready(READY_TIMEOUT_S)
        with open_client(graph, LOG_DIR) as client:
            done = show_progress(results(client), args.episodes)
    report(args, done, ros_figures(episodes))
    return 0


def graph_settings(args: argparse.Namespace, bundle: Bundle) -> Mapping[str, Any]:
    """The process table's settings for --task, --planner, --runtime, --budget-ms, --seed and `bundle`."""
    return {
        "task": args.task,
        "bundle": str(bundle.path.resolve()),
        "runtime": args.runtime,
        "force_runtime": args.force_runtime,
        "robot": bundle.robot,
        "planner": args.planner,
        "budget_ms": args.budget_ms or 0.0,
        "seed": args.seed,
    }


def fresh(log_dir: Path) -> Path:
    """`log_dir` without the logs of an earlier run."""
    for log in log_dir.glob("*.log"):
        log.unlink()
    return log_dir


@contextmanager
def open_client(graph: Graph, log_dir: Path) -> Iterator[EpisodeClient]:
    """Whoever runs episodes through `graph`; says which process ended if that is why one could not be run."""
    from jepa_arm_ros.episode_client import EpisodeClient
    from jepa_arm_ros.errors import EpisodeError

    with EpisodeClient(graph.domain_id) as client:
        try:
            yield client
        except EpisodeError as error:
            if ended := graph.ended():
                raise GraphError(f"{ended} ended during an episode: see {log_dir / ended}.log") from error
            raise


def episode_result(episode: RosEpisode) -> EpisodeResult:
    """The episode in the terms of the evaluation in process."""
    return EpisodeResult(
        seed=episode.seed,
        start_distance_m=episode.start_distance_m,
        budget_steps=round(episode.budget_s / STEP_S),
        success=episode.success,
        held=episode.held,
        distances_m=[distance for _, distance in episode.distances],
        energies=[energy for _, energy in episode.energies],
        plan_ms=list(episode.plan_ms),
    )


def ros_figures(episodes: Sequence[RosEpisode]) -> dict[str, Any]:
    """What only the real graph can tell: latency from picture to motor, rates, lost frames, safety stops."""
    seconds = sum(episode.elapsed_s for episode in episodes)
    median, p99 = _quantiles(ms for episode in episodes for ms in episode.frame_to_command_ms)
    return {
        "frame_to_command_ms_p50": median,
        "frame_to_command_ms_p99": p99,
        "camera_hz": sum(episode.frames_sent for episode in episodes) / seconds,
        "command_hz": sum(episode.commands for episode in episodes) / seconds,
        "frames_sent": sum(episode.frames_sent for episode in episodes),
        "frames_dropped": sum(episode.frames_dropped for episode in episodes),
        "episodes_stopped": sum(bool(episode.stops) for episode in episodes),
        "stop_reasons": sorted({reason for episode in episodes for reason in episode.stops}),
        "seconds": seconds,
    }


def _quantiles(milliseconds: Iterable[float]) -> tuple[float | None, float | None]:
    values = np.fromiter(milliseconds, float)
    if not values.size:
        return None, None
    median, p99 = np.percentile(values, (50, 99))
    return float(median), float(p99)
