"""Which camera and arm `record` and `replay` run on: the options, and the graph made of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from jepa_arm_bringup.errors import GraphError
from jepa_arm_bringup.up import arm_settings, world_of

if TYPE_CHECKING:
    from hardware.robot import Robot
    from jepa_arm_bringup.graph import Graph

SCENES = ("push", "push-far", "push-pose", "reach", "pick-place")


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("arm and camera; without any, the simulator's")
    group.add_argument("--robot", help="robot file: a name or a path (default: the simulated scene's)")
    group.add_argument("--arm", help="the arm, as for `jepa-arm up`: feetech, dynamixel, an arm file, …")
    group.add_argument("--port", help="serial port of the arm's servos (default: the arm file's)")
    group.add_argument(
        "--camera", help="the camera, as `jepa-arm cameras` names it: realsense, uvc:DEVICE, file:PATH"
    )
    group.add_argument("--scene", choices=SCENES, help="what the simulated scene is for (default: push)")
    parser.add_argument(
        "--domain-id", type=int, help="ROS domain (default: ROS_DOMAIN_ID, else one that is free)"
    )


def device_robot(args: argparse.Namespace) -> Robot:
    """The robot file of the chosen arm. Raises GraphError or RobotError."""
    from hardware.robot import load_robot

    if args.arm is None:
        from sim.errors import SimulationError
        from sim.tasks import check_robot, make_task

        task = make_task(args.scene or "push")
        robot = load_robot(args.robot or task.robot)
        try:
            check_robot(task, robot)
        except SimulationError as error:
            raise GraphError(f"{error}; without --arm the simulator stands in for the arm") from error
        return robot
    if args.robot is None:
        raise GraphError("--arm needs --robot: whose joints its servos move")
    return load_robot(args.robot)


def device_graph(
    args: argparse.Namespace, *, camera: bool, log_dir: Path, tell: Callable[[str], None]
) -> Graph:
    """The graph of arm, gate and, if asked for, camera; nothing in it plans. Not started yet."""
    from hardware.camera.source import camera_source
    from jepa_arm_bringup.graph import Graph

    settings: dict[str, object] = {"task": args.scene or "push"}
    without = ["encoder", "planner"]
    robot = device_robot(args)
    if args.robot is not None:
        settings["robot"] = args.robot
    if args.arm is None:
        if args.camera is not None:
            raise GraphError("the simulator brings its own camera: add --arm, or leave --camera out")
    else:
        if args.scene is not None:
            raise GraphError("--scene is the simulator's, and --arm a real arm: leave one of them out")
        settings |= arm_settings(args)
        if camera and args.camera is None:
            raise GraphError("--camera is missing: `jepa-arm cameras` lists what is plugged in")
        if camera:
            camera_source(args.camera, robot.camera.rate_hz, robot.camera.frame_id)
            settings["camera"] = args.camera
        else:
            without.append("camera")
    return Graph(
        settings,
        domain_id=args.domain_id,
        world=world_of(args.arm),
        without=tuple(without),
        log_dir=log_dir,
        tell=tell,
    )
