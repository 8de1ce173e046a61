"""`jepa-arm up`: start the graph in the simulator and keep it running until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from jepa_arm_bringup.errors import GraphError
from planner.runtime_options import add_runtime_arguments

EXAMPLE = "jepa-arm up --task push"
TASKS = ("push", "push-far", "push-pose", "reach", "pick-place")
READY_TIMEOUT_S = 60.0
WATCH_PERIOD_S = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", default="push", choices=TASKS, help="what the scene is for")
    parser.add_argument(
        "--bundle", type=Path, help="world-model bundle (default: the shipped one for the task)"
    )
    parser.add_argument("--planner", default="mode2", help="a planner by name, as for eval (default: mode2)")
    add_runtime_arguments(parser)
    parser.add_argument("--robot", help="robot file: a name or a path (default: the bundle's)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first scene and of the planner")
    parser.add_argument(
        "--domain-id", type=int, help="ROS domain (default: ROS_DOMAIN_ID, else one that is free)"
    )


def run(args: argparse.Namespace) -> int:
    from jepa_arm_bringup.environment import enter_ros_environment

    enter_ros_environment()
    from jepa_arm_bringup.graph import Graph

    settings = graph_settings(args)
    with stop_signals(), Graph(settings, domain_id=args.domain_id, tell=tell) as graph:
        graph.start()
        graph.wait_ready(READY_TIMEOUT_S)
        tell(f"ready; look around with ROS_DOMAIN_ID={graph.domain_id}, Ctrl-C stops everything")
        while not (ended := graph.ended()):
            time.sleep(WATCH_PERIOD_S)
    raise GraphError(f"{ended} ended, so everything was stopped; its last message above says why")


def graph_settings(args: argparse.Namespace) -> Mapping[str, Any]:
    """The process table's settings from the command line. Raises BundleError before anything is started."""
    from hardware.robot import load_robot
    from planner.bundle import load_bundle
    from planner.planners import make_planner
    from sim.evaluate import on_requested_runtime

    bundle = load_bundle(args.bundle or default_bundle(args.task))
    robot_file = args.robot or bundle.robot
    robot = load_robot(robot_file)
    bundle.check_fits(robot.name, (robot.camera.width, robot.camera.height))
    make_planner(args.planner, on_requested_runtime(args, bundle))
    return {
        "task": args.task,
        "bundle": str(bundle.path.resolve()),
        "robot": robot_file,
        "planner": args.planner,
        "runtime": args.runtime,
        "force_runtime": args.force_runtime,
        "seed": args.seed,
    }


def default_bundle(task: str) -> Path:
    """The bundle that comes with the repository for `task`."""
    import planner

    assert planner.__file__ is not None
    trained_as = task.removesuffix("-far")
    return Path(planner.__file__).resolve().parents[1] / "models" / f"panda-{trained_as}"


@contextmanager
def stop_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the graph as Ctrl-C does, also where a shell has told us to ignore that."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tell(line: str) -> None:
    print(f"[jepa-arm] {line}", flush=True)
