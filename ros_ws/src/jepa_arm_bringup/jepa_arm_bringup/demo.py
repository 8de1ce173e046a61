"""`jepa-arm demo`: goal pictures pursued through the real graph, watched live, and a report at the end."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.runtime_options import MOVING, add_runtime_arguments

if TYPE_CHECKING:
    from jepa_arm_ros.episode_client import RosEpisode

    from sim.report import EpisodeRecord, Row

EXAMPLE = "jepa-arm demo --task push --episodes 10"
TASKS = ("push", "push-far", "push-pose", "reach", "pick-place")
PLANNERS = ("hold", "random", "mode1", "cem", "mode2", "icem", "mppi", "gradient")
VIDEO_FPS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", choices=TASKS, default="push")
    parser.add_argument("--episodes", type=int, default=10, help="how many (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="which episodes: the same seed, the same goals")
    parser.add_argument("--planner", choices=PLANNERS, default="mode2")
    parser.add_argument("--bundle", type=Path, help="bundle folder (default: the shipped one for the task)")
    add_runtime_arguments(parser, MOVING)
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder of report and results")
    parser.add_argument(
        "--domain-id", type=int, help="ROS domain (default: ROS_DOMAIN_ID, else one that is free)"
    )
    # Of eval's options, whose check and settings the demo shares.
    parser.set_defaults(ros=True, anomaly=None, suite=None, perturb="none", budget_ms=None)


def run(args: argparse.Namespace) -> int:
    from benchmarks.machine import cpu_model
    from jepa_arm_bringup.environment import enter_ros_environment
    from jepa_arm_bringup.evaluate import episode_result, graph_settings, ros_figures
    from sim.evaluate import check_request
    from sim.results import summarise

    bundle = check_request(args)
    args.out.mkdir(parents=True, exist_ok=True)
    enter_ros_environment()
    started = time.monotonic()
    episodes = run_episodes(args, graph_settings(args, bundle))
    figures = {
        "task": args.task,
        "planner": args.planner,
        "bundle": bundle.name,
        "runtime": bundle.variant.name,
        "seed": args.seed,
        **summarise([episode_result(episode) for episode in episodes]),
        **ros_figures(episodes),
        "machine": f"{os.cpu_count()} cores, {cpu_model()}",
        "total_s": time.monotonic() - started,
    }
    write_results(args.out / "results.json", figures, episodes)
    show(args.out, figures, episodes)
    return 0


def run_episodes(args: argparse.Namespace, settings: Mapping[str, Any]) -> list[RosEpisode]:
    """Start the graph, run every episode through it, stop it. Nothing of it is left behind."""
    from jepa_arm_bringup.evaluate import fresh, open_client
    from jepa_arm_bringup.graph import Graph
    from jepa_arm_bringup.up import READY_TIMEOUT_S, stop_signals
    from jepa_arm_bringup.view import View
    from sim.evaluate import episode_seeds

    episodes: list[RosEpisode] = []
    log_dir = fresh(args.out / "logs")
    graph = Graph(
        settings,
        domain_id=args.domain_id,
        log_dir=log_dir,
        tell=lambda line: view.tell(line),
    )
    view = View(graph.names, graph.phase, args.episodes)
    with stop_signals(), view, graph:
        graph.start()
        import_report()
        graph.wait_ready(READY_TIMEOUT_S)
        with open_client(graph, log_dir) as client:
            for seed in episode_seeds(args):
                episode = client.run_episode(seed, lambda growing: view.show(growing, client.safety))
                view.finished(episode)
                episodes.append(episode)
    return episodes


def import_report() -> None:
    """Load what draws the report while the processes start: whatever it lacks is told before the run."""
    import sim.report  # noqa: F401


def write_results(path: Path, figures: Mapping[str, Any], episodes: Sequence[RosEpisode]) -> None:
    """All figures, and each episode's own behind them."""
    from jepa_arm_bringup.view import outcome

    results = [
        {
            "seed": episode.seed,
            "outcome": outcome(episode),
            "start_cm": round(episode.start_distance_m * 100, 2),
            "final_cm": round(episode.final_distance_m * 100, 2),
            "seconds": round(episode.elapsed_s, 2),
            "budget_s": round(episode.budget_s, 2),
            "commands": episode.commands,
            "frames_sent": episode.frames_sent,
            "frames_dropped": episode.frames_dropped,
            "safety_stops": episode.stops,
            "planner_said": episode.outcome,
        }
        for episode in episodes
    ]
    path.write_text(json.dumps({**figures, "results": results}, indent=2) + "\n")


def show(folder: Path, figures: Mapping[str, Any], episodes: Sequence[RosEpisode]) -> None:
    """The report in `folder`, and its headline figures in the terminal."""
    from rich.console import Console
    from rich.table import Table

    from sim.report import write_report

    title = f"jepa-arm demo: {figures['task']}, {figures['planner']}, bundle {figures['bundle']}"
    rows = headline(figures)
    report = folder / "report.html"
    console = Console()
    with console.status("writing the report"):
        write_report(report, title, rows, [record(episode) for episode in episodes])
    table = Table("figure", "value", "", title=title)
    for row in rows:
        table.add_row(row.name, row.value, row.note)
    console.print(table)
    console.print(f"report: {report}", markup=False, highlight=False, soft_wrap=True)


def headline(figures: Mapping[str, Any]) -> list[Row]:
    from sim.report import Row

    def rate(name: str, interval: str) -> tuple[str, str]:
        value, count = figures[name], figures["episodes"]
        low, high = (figures[f"{interval}_{end}"] for end in ("low", "high"))
        return f"{round(value * count)} of {count} ({value:.0%})", f"95% interval {low:.0%} to {high:.0%}"

    def quantiles(name: str) -> str:
        median, p99 = figures[f"{name}_p50"], figures[f"{name}_p99"]
        return "no command" if median is None else f"{median:.1f} ms p50, {p99:.1f} ms p99"

    return [
        Row("success", *rate("success_rate", "wilson")),
        Row("held success", *rate("held_success_rate", "held_wilson")),
        Row("final distance", f"{figures['distance_cm_median']:.1f} cm median"),
        Row("frame → command", quantiles("frame_to_command_ms"), "from the picture to the motor's setpoint"),
        Row("plan time", quantiles("plan_ms")),
        Row("camera", f"{figures['camera_hz']:.1f} Hz"),
        Row("commands", f"{figures['command_hz']:.1f} Hz"),
        Row("frames dropped", f"{figures['frames_dropped']} of {figures['frames_sent']}"),
        Row(
            "safety stops",
            f"in {figures['episodes_stopped']} of {figures['episodes']} episodes",
            ", ".join(figures["stop_reasons"]),
        ),
        Row("whole run", f"{figures['total_s']:.0f} s", figures["machine"]),
    ]


def record(episode: RosEpisode) -> EpisodeRecord:
    """The episode as the report shows it; its pictures came at uneven times, the film's are even."""
    from sim.report import EpisodeRecord

    distances = np.array(episode.distances).reshape(-1, 2)
    energies = np.array(episode.energies).reshape(-1, 2)
    return EpisodeRecord(
        seed=episode.seed,
        goal_image=episode.goal_image,
        frames=even_frames(episode.video, episode.elapsed_s),
        fps=VIDEO_FPS,
        distance_times_s=distances[:, 0],
        distances_m=distances[:, 1],
        energy_times_s=energies[:, 0],
        energies=energies[:, 1],
        success=episode.success,
        held=episode.held,
        latencies_ms=np.array(episode.frame_to_command_ms),
        note=safety_note(episode),
    )


def even_frames(video: Sequence[tuple[float, NDArray[np.uint8]]], until_s: float) -> NDArray[np.uint8]:
    """The latest picture at every tenth of a second from the start to `until_s`: uint8 (N, H, W, 3)."""
    if not video:
        return np.zeros((0, 1, 1, 3), np.uint8)
    taken_s = [time_s for time_s, _ in video]
    wanted_s = np.arange(0, max(until_s, 1 / VIDEO_FPS), 1 / VIDEO_FPS)
    latest = np.maximum(np.searchsorted(taken_s, wanted_s, side="right") - 1, 0)
    return np.stack([video[i][1] for i in latest])


def safety_note(episode: RosEpisode) -> str:
    reasons = sorted(set(episode.stops))
    return f"The safety gate stopped the arm: {', '.join(reasons)}." if reasons else ""
