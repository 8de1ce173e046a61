"""`jepa-arm eval`: fresh goals on given seeds, one planner, rates with intervals. In process, in lockstep.

The episodes themselves are run by `sim.protocol`. With --ros the same episodes run through the node graph in
real time (`jepa_arm_bringup.evaluate`).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.runtime_options import MEASURING, add_runtime_arguments
from sim.workers import add_worker_arguments, open_workers

if TYPE_CHECKING:
    from planner.bundle import Bundle
    from planner.held_out import HeldOut
    from sim.results import EpisodeResult
    from sim.tasks import Task

EXAMPLE = "jepa-arm eval --task push --episodes 100 --seed 7 --planner mode2 --json out/push.json"

TASK_NAMES = ("reach", "push", "push-far", "push-pose", "pick-place")
PERTURBATION_NAMES = ("none", "camera", "light", "colours", "friction-mass", "size", "latency", "all")
ANOMALY_NAMES = (
    "object-teleports",
    "object-glued",
    "camera-knocked",
    "lights-off",
    "frames-frozen",
    "frames-swapped",
    "hand-enters",
)
SUITES = ("full", "surprise")
PLANNER_NAMES = ("hold", "random", "scripted", "mode1", "cem", "mode2", "icem", "mppi", "gradient")
# Seeds of one --seed never meet those of another.
SEED_STRIDE = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", choices=TASK_NAMES, help="which one; --suite full takes --tasks")
    parser.add_argument("--episodes", type=int, default=100, help="how many (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="which episodes: the same seed, the same ones")
    parser.add_argument("--planner", choices=PLANNER_NAMES, default="mode2")
    parser.add_argument(
        "--budget-ms", type=float, help="time for a plan; what is dropped to keep it is reported"
    )
    parser.add_argument(
        "--perturb",
        type=some_of(PERTURBATION_NAMES),
        metavar="NAME",
        help=f"what differs from the nominal scene: {', '.join(PERTURBATION_NAMES)} (default: none); "
        "with --suite full several, with commas between (default: each in turn)",
    )
    parser.add_argument(
        "--anomaly", choices=ANOMALY_NAMES, help="what goes wrong in each episode's first half"
    )
    parser.add_argument(
        "--suite",
        choices=SUITES,
        help="full: tasks, planners, perturbations, as a page in --out; "
        "surprise: all anomalies against nominal episodes, AUROC and false stops",
    )
    parser.add_argument(
        "--tasks", type=some_of(TASK_NAMES), metavar="NAMES", help="of --suite full (default: all)"
    )
    parser.add_argument(
        "--planners",
        type=some_of(PLANNER_NAMES),
        metavar="NAMES",
        help="of --suite full (default: hold,random,scripted,mode1,cem,mode2)",
    )
    parser.add_argument("--out", type=Path, help="folder of --suite full; one that was begun is gone on with")
    parser.add_argument(
        "--bundle",
        type=Path,
        help="bundle folder (default: the shipped one for the task); with --suite full also several, "
        "with commas between",
    )
    add_runtime_arguments(parser, MEASURING)
    add_worker_arguments(
        parser, 1, "processes (default: 1; with more than there are cores, plans take longer than they need)"
    )
    parser.add_argument("--ros", action="store_true", help="run the episodes through the ROS graph")
    parser.add_argument("--json", type=Path, help="write the figures to this file")


def some_of(names: Sequence[str]) -> Callable[[str], str]:
    """An argparse type: one or several of `names`, with commas between."""

    def check(text: str) -> str:
        for name in text.split(","):
            if name not in names:
                raise argparse.ArgumentTypeError(f"no {name!r}; there are {', '.join(names)}")
        return text

    return check


def run(args: argparse.Namespace) -> int:
    from sim.shared_evaluation import evaluate_on

    if args.suite == "full":
        refuse_options(args, ("runtime",), "is for a single evaluation")
        from sim.suite import run_full_suite

        return run_full_suite(args)
    refuse_options(args, ("tasks", "planners", "out"), "goes with --suite full only")
    bundle = check_request(args)
    if args.suite == "surprise":
        from sim.surprise import run_suite

        return run_suite(args, bundle, episode_seeds(args))
    seeds = episode_seeds(args)
    what = (args.task, args.planner, bundle, seeds, args.perturb, args.anomaly, args.budget_ms)
    with open_workers(args.workers, args.ray) as workers:
        results = show_progress(evaluate_on(workers, *what), args.episodes)
    results.sort(key=lambda result: result.seed)
    report(args, results, {} if args.budget_ms is None else budget_figures(args.budget_ms, results))
    return 0


def check_request(args: argparse.Namespace) -> Bundle:
    """The bundle that the command line asks for, checked against task and robot."""
    from sim.errors import SimulationError
    from sim.tasks import make_task

    check_counts(args)
    if args.ros and (args.anomaly or args.suite):
        raise SimulationError("anomalies and suites run in lockstep only: leave out --ros")
    if args.task is None:
        raise SimulationError(f"name a --task: {', '.join(TASK_NAMES)}; only --suite full needs none")
    if args.budget_ms is not None and not 0 < args.budget_ms < float("inf"):
        raise SimulationError(f"--budget-ms {args.budget_ms:g}: give a plan more than no time")
    args.perturb = args.perturb or "none"
    if "," in args.perturb:
        raise SimulationError(f"--perturb {args.perturb}: name one; only --suite full takes several")
    task = make_task(args.task)
    args.bundle = args.bundle or shipped_bundle(task.trained_as)
    return on_requested_runtime(args, fitting_bundle(args.bundle, task))


def on_requested_runtime(args: argparse.Namespace, bundle: Bundle) -> Bundle:
    """`bundle` on what --runtime asks for; frames to check it by are rendered where the bundle has none.

    A robot has no simulator: there the bundle has to bring them.
    """
    from planner.runtimes import on_runtime

    render: Callable[[Bundle], HeldOut | None] | None = None
    if importlib.util.find_spec("pybullet") is not None:
        render = rendered_held_out
    bundle = on_runtime(bundle, args.runtime or args.usual_runtime, args.force_runtime, render)
    args.runtime = bundle.variant.name
    return bundle


def rendered_held_out(bundle: Bundle) -> HeldOut | None:
    """Play to check a runtime by; None for a bundle of an arm whose cell the simulator does not have."""
    from sim.errors import SimulationError
    from sim.held_out import render_held_out

    try:
        return render_held_out(bundle)
    except SimulationError:
        return None


def refuse_options(args: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """Raise SimulationError if one of these was given."""
    from sim.errors import SimulationError

    for name in names:
        if getattr(args, name) is not None:
            raise SimulationError(f"--{name.replace('_', '-')} {why}: leave it out")


def check_counts(args: argparse.Namespace) -> None:
    """Raise SimulationError for --episodes and --seed that name no episodes."""
    from sim.errors import SimulationError

    if args.episodes < 1:
        raise SimulationError(f"--episodes {args.episodes}: ask for at least one")
    if args.seed < 0:
        raise SimulationError(f"--seed {args.seed}: seeds are not negative")


def fitting_bundle(path: Path, task: Task) -> Bundle:
    """The bundle in `path`. Raises SimulationError or BundleError if it is none for `task` and its robot."""
    from hardware.robot import load_robot
    from planner.bundle import load_bundle
    from sim.control import DECISION_S
    from sim.errors import SimulationError

    bundle = load_bundle(path)
    if bundle.info.task != task.trained_as:
        raise SimulationError(
            f"bundle {bundle.name} was trained for {bundle.info.task}, not {task.trained_as}: "
            "name another --bundle"
        )
    action = bundle.action
    offered = (task.axes, task.fixed, task.action_limit_m, DECISION_S)
    if (action.axes, action.fixed, action.limit_m, action.period_s) != offered:
        raise SimulationError(
            f"bundle {bundle.name} acts on {action.axes} by ±{action.limit_m} m in {action.period_s} s with "
            f"{action.fixed} held; {task.name} offers {offered[0]}, ±{offered[2]} m in {offered[3]} s with "
            f"{offered[1]}: name another --bundle"
        )
    camera = load_robot(bundle.robot).camera
    bundle.check_fits(bundle.robot, (camera.width, camera.height))
    return bundle


def shipped_bundle(trained_as: str) -> Path:
    """The bundle that comes with the repository for tasks that are `trained_as` this one."""
    return Path(__file__).parent.parent / "models" / f"panda-{trained_as}"


def episode_seeds(args: argparse.Namespace) -> range:
    return range(args.seed * SEED_STRIDE, args.seed * SEED_STRIDE + args.episodes)


def budget_figures(budget_ms: float, results: list[EpisodeResult]) -> dict[str, Any]:
    """How many of the plans had to drop something to keep the time, and what most of those dropped."""
    dropped = [text for result in results for text in result.dropped]
    cut = Counter(text for text in dropped if text)
    return {
        "budget_ms": budget_ms,
        "plans_cut": cut.total() / max(len(dropped), 1),
        "dropped_most_often": cut.most_common(1)[0][0] if cut else "nothing",
    }


def show_progress(results: Iterable[EpisodeResult], total: int) -> list[EpisodeResult]:
    """Collect the results under a bar with the running rates."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    done: list[EpisodeResult] = []
    columns = (TextColumn("episodes"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[rates]}")) as progress:
        bar = progress.add_task("episodes", total=total, rates="")
        for result in results:
            done.append(result)
            reached, held = (sum(getattr(r, name) for r in done) / len(done) for name in ("success", "held"))
            progress.update(bar, advance=1, rates=f"success {reached:.0%}  held {held:.0%}")
    return done


def report(args: argparse.Namespace, results: list[EpisodeResult], more: dict[str, Any]) -> dict[str, Any]:
    """Print the figures and write them to --json, each episode's own behind them."""
    from rich.console import Console
    from rich.table import Table

    from sim.results import summarise

    figures = {**request(args), **summarise(results), **more}
    table = Table("figure", "value", title=f"{args.task}, {args.planner}, {len(results)} episodes")
    for name, value in figures.items():
        table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
    Console().print(table)
    if args.json is not None:
        episodes = [
            {
                "seed": result.seed,
                "success": result.success,
                "held": result.held,
                "start_cm": round(result.start_distance_m * 100, 2),
                "final_cm": round(result.final_distance_m * 100, 2),
                "steps": len(result.distances_m),
                "budget_steps": result.budget_steps,
            }
            for result in results
        ]
        write_json(args.json, {**figures, "results": episodes})
    return figures


def request(args: argparse.Namespace) -> dict[str, Any]:
    """What was asked for, for the head of a report."""
    return {
        "task": args.task,
        "planner": args.planner,
        "perturbation": args.perturb,
        "anomaly": args.anomaly or "none",
        "bundle": os.path.relpath(args.bundle),
        "runtime": args.runtime,
        "seed": args.seed,
        "workers": args.workers if args.ray is None else f"ray {args.ray}",
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Raises SimulationError if `path` cannot be written."""
    from sim.errors import SimulationError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise SimulationError(f"cannot write {path}: {error.strerror}; name another --json") from error
