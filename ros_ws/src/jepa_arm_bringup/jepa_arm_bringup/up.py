"""`jepa-arm up`: start the graph, in the simulator or on real devices, and keep it running until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from jepa_arm_bringup.errors import GraphError
from jepa_arm_bringup.processes import World
from planner.runtime_options import MOVING, add_runtime_arguments

EXAMPLE = "jepa-arm up --task push"
TASKS = ("push", "push-far", "push-pose", "reach", "pick-place")
READY_TIMEOUT_S = 60.0
# What is left out when there is only an arm to drive: everything that sees and plans.
NO_PLANNING = ("camera", "encoder", "planner")
WATCH_PERIOD_S = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", default="push", choices=TASKS, help="what the scene is for")
    parser.add_argument(
        "--bundle", type=Path, help="world-model bundle (default: the shipped one for the task)"
    )
    parser.add_argument("--planner", default="mode2", help="a planner by name, as for eval (default: mode2)")
    add_runtime_arguments(parser, MOVING)
    parser.add_argument("--robot", help="robot file: a name or a path (default: the bundle's)")
    parser.add_argument(
        "--arm",
        help="a real arm instead of the simulator's: feetech, dynamixel, an arm file (.yaml), ros2_control "
        "(whose controllers run elsewhere) or module:callable",
    )
    parser.add_argument("--port", help="serial port of the arm's servos (default: the arm file's)")
    parser.add_argument(
        "--arm-only",
        action="store_true",
        help="arm and gate, no camera and no planner: for a robot without a bundle",
    )
    parser.add_argument(
        "--core", type=int, help="processor core for the control loops of gate and arm (default: any)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first scene and of the planner")
    parser.add_argument(
        "--camera",
        help="a real camera instead of the simulator: realsense, uvc:DEVICE, file:PATH; "
        "`jepa-arm cameras` lists them",
    )
    parser.add_argument(
        "--domain-id", type=int, help="ROS domain (default: ROS_DOMAIN_ID, else one that is free)"
    )


def run(args: argparse.Namespace) -> int:
    from jepa_arm_bringup.environment import enter_ros_environment

    enter_ros_environment()
    from jepa_arm_bringup.graph import Graph

    settings = arm_settings(args) if args.arm_only else graph_settings(args)
    if args.core is not None:
        check_core(args.core)
        settings = {**settings, "core": args.core}
    graph = Graph(
        settings,
        domain_id=args.domain_id,
        world=world_of(args.arm),
        without=NO_PLANNING if args.arm_only else (),
        tell=tell,
    )
    with stop_signals(), graph:
        graph.start()
        graph.wait_ready(READY_TIMEOUT_S)
        tell(f"ready; look around with ROS_DOMAIN_ID={graph.domain_id}, Ctrl-C stops everything")
        while not (ended := graph.ended()):
            time.sleep(WATCH_PERIOD_S)
    raise GraphError(f"{ended} ended, so everything was stopped; its last message above says why")


def graph_settings(args: argparse.Namespace) -> Mapping[str, Any]:
    """The process table's settings from the command line. Raises BundleError before anything is started."""
    from hardware.camera.source import camera_source
    from hardware.robot import load_robot
    from planner.bundle import load_bundle
    from planner.errors import BundleError
    from planner.registry import make_planner
    from sim.evaluate import on_requested_runtime

    bundle = load_bundle(args.bundle or default_bundle(args.task))
    robot_file = args.robot or bundle.robot
    robot = load_robot(robot_file)
    if args.camera is not None:
        camera_source(args.camera, robot.camera.rate_hz, robot.camera.frame_id)
    try:
        bundle.check_fits(robot.name, (robot.camera.width, robot.camera.height))
    except BundleError as error:
        hint = "; until there is one, --arm-only starts the arm and its gate" if args.arm else ""
        raise BundleError(f"{error}{hint}") from error
    if (args.camera is None) != (args.arm is None):
        missing = "--camera" if args.camera is None else "--arm"
        raise GraphError(f"the simulator brings arm and camera, real ones come together: add {missing}")
    make_planner(args.planner, on_requested_runtime(args, bundle))
    return {
        "task": args.task,
        "bundle": str(bundle.path.resolve()),
        "robot": robot_file,
        "planner": args.planner,
        "runtime": args.runtime,
        "force_runtime": args.force_runtime,
        "seed": args.seed,
        "camera": args.camera or "",
        **(arm_settings(args, robot_file) if args.arm else {}),
    }


def check_core(core: int) -> None:
    """Raises GraphError before anything is started."""
    if core not in os.sched_getaffinity(0):
        raise GraphError(f"--core {core}: this machine lets us run on {sorted(os.sched_getaffinity(0))}")


def world_of(arm: str | None) -> World:
    if arm is None:
        return "simulated"
    return "ros2_control" if arm == "ros2_control" else "real"


def arm_settings(args: argparse.Namespace, robot_file: str = "") -> Mapping[str, Any]:
    """What the arm and its gate are told. Raises ArmError or RobotError before anything is started."""
    from hardware.arm.config import arm_config_for
    from hardware.robot import load_robot

    robot_file = args.robot or robot_file
    if not args.arm or not robot_file:
        raise GraphError("--arm-only needs --arm and --robot: which arm it is, and whose joints it moves")
    robot = load_robot(robot_file)
    if args.arm == "ros2_control":
        return {"robot": robot_file}
    if ":" not in args.arm:
        arm_config_for(args.arm, robot)
    return {"robot": robot_file, "arm": args.arm, "port": args.port or ""}


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
