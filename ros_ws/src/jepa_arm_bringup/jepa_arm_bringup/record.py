"""`jepa-arm record`: episodes of your own arm and camera, as a LeRobotDataset.

Every motion goes through the safety gate, and what the gate sent is what is recorded. A recording that is cut
loses at most the second it is in: the next `record` or `train` finishes the rest of the episode.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from jepa_arm_bringup.devices import add_device_arguments
from jepa_arm_bringup.errors import GraphError

if TYPE_CHECKING:
    from hardware.robot import Robot
    from hardware.teleop.contract import Source

EXAMPLE = (
    "jepa-arm record --robot so101 --arm feetech --port /dev/ttyACM0 --camera uvc:/dev/video0 "
    '--by keyboard --task "push the cube" --out data/cube'
)
SOURCES = ("keyboard", "gamepad", "play", "leader")
LOG_DIR = Path("out/record/logs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="dataset folder; one that was begun grows")
    parser.add_argument("--by", choices=SOURCES, default="keyboard", help="what moves the arm")
    parser.add_argument("--task", default="push", help='what is done, in words (default: "push")')
    parser.add_argument("--episodes", type=int, help="end after so many (default: at q)")
    parser.add_argument("--seconds", type=float, help="end each episode after so long (default: at Enter)")
    parser.add_argument("--fps", type=int, help="rows a second (default: the camera's rate)")
    parser.add_argument("--speed", type=float, default=0.1, metavar="M_S", help="of the tool (default: 0.1)")
    parser.add_argument(
        "--height", type=float, metavar="M", help="keep the tool at this height above the arm's base"
    )
    parser.add_argument("--seed", type=int, default=0, help="of play (default: 0)")
    parser.add_argument(
        "--gamepad", metavar="NAME|INDEX", help="which gamepad (default: the first that is plugged in)"
    )
    parser.add_argument("--leader", help="arm file of the leader arm, or its bus: feetech, dynamixel")
    parser.add_argument("--leader-port", default="", help="its serial port (default: its arm file's)")
    parser.add_argument("--camera-name", default="front", help="observation.images.NAME (default: front)")
    add_device_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from jepa_arm_bringup.environment import enter_ros_environment

    check(args)
    enter_ros_environment()
    from jepa_arm_ros.arm_client import ArmClient

    from hardware.kinematics import Kinematics
    from hardware.teleop.contract import check_begins_inside
    from jepa_arm_bringup.devices import device_graph, device_robot
    from jepa_arm_bringup.evaluate import fresh
    from jepa_arm_bringup.recording import Recorder, Wanted
    from jepa_arm_bringup.terminal import Terminal
    from jepa_arm_bringup.up import READY_TIMEOUT_S, stop_signals, tell
    from perception.lerobot.layout import Recording
    from perception.lerobot.writer import DatasetWriter, recover

    robot = device_robot(args)
    mount = robot.camera
    fps = args.fps or round(mount.rate_hz)
    recording = Recording(robot.name, robot.joint_names, args.camera_name, mount.width, mount.height, fps)
    recording.check()
    graph = device_graph(args, camera=True, log_dir=fresh(LOG_DIR), tell=lambda line: None)
    source = make_source(args, robot, tell)
    try:
        for line in recover(args.out):
            tell(line)
        writer = DatasetWriter.open(args.out, recording)
        with stop_signals(), graph:
            graph.start()
            tell("starting arm, camera and gate")
            graph.wait_ready(READY_TIMEOUT_S)
            with ArmClient(graph.domain_id, robot) as client, Terminal() as terminal:
                check_begins_inside(robot, Kinematics(robot), client.wait_ready())
                wanted = Wanted(args.task, args.episodes, args.seconds, automatic=args.by == "play")
                Recorder(robot, client, source, writer, terminal, wanted, graph.ended, tell).run()
    finally:
        source.close()
    return 0


def check(args: argparse.Namespace) -> None:
    """Raises GraphError for options that do not fit together."""
    if args.by == "leader" and not args.leader:
        raise GraphError("--by leader needs --leader: the leader's arm file, or its bus")
    if args.by == "play" and args.seconds is None:
        raise GraphError("--by play needs --seconds: how long an episode is")
    for name in ("episodes", "seconds", "fps", "speed"):
        value = getattr(args, name)
        if value is not None and not 0 < value < math.inf:
            raise GraphError(f"--{name} {value:g} must be a number above zero")
    if args.gamepad is not None and args.by != "gamepad":
        raise GraphError("--gamepad says which one moves the arm: add --by gamepad")


def make_source(args: argparse.Namespace, robot: Robot, tell: Callable[[str], None]) -> Source:
    from hardware.arm.config import arm_config_for
    from hardware.kinematics import Kinematics
    from hardware.teleop.contract import ToolMotion
    from hardware.teleop.gamepad import Gamepad
    from hardware.teleop.keyboard import Keyboard
    from hardware.teleop.leader import Leader
    from hardware.teleop.play import Play

    kinematics = Kinematics(robot)
    if args.by == "leader":
        return Leader(arm_config_for(args.leader, robot), args.leader_port, robot, kinematics)
    try:
        motion = ToolMotion(robot, kinematics, args.height)
    except ValueError as error:
        raise GraphError(f"--height: {error}") from error
    if args.by == "play":
        return Play(robot, kinematics, motion, args.speed, args.seed, args.height)
    if args.by == "gamepad":
        return Gamepad(robot, motion, args.speed, tell, args.gamepad)
    return Keyboard(robot, motion, args.speed)
