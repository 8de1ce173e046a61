"""`jepa-arm replay`: send a recorded episode's actions through the gate again, at their times."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jepa_arm_bringup.devices import add_device_arguments
from jepa_arm_bringup.errors import GraphError
from perception.errors import DatasetError

if TYPE_CHECKING:
    from jepa_arm_ros.arm_client import ArmClient

    from hardware.arm.contract import JointState
    from hardware.robot import Robot
    from perception.lerobot.reader import LeRobotDataset

EXAMPLE = "jepa-arm replay data/cube --episode 3 --robot so101 --arm feetech --port /dev/ttyACM0"
LOG_DIR = Path("out/replay/logs")
COMMAND_PERIOD_S = 1 / 30
# A command reaches this far ahead; the next comes well before.
COMMAND_S = 0.1
# Of the joints' velocity limits, on the way to where the episode begins.
APPROACH_SHARE = 0.1
LEAST_APPROACH_S = 1.0
SETTLE_S = 0.5
# Recorded numbers are float32, whose rounding is up to 3e-7 rad here: this far beyond a limit is still at it.
ROUNDING_RAD = 1e-5
# Just within the limits, which the differences of such numbers may be a little beyond.
VELOCITY_SHARE = 0.99

Array = NDArray[np.float64]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="folder made by `jepa-arm record`")
    parser.add_argument("--episode", type=int, default=0, help="which (default: 0)")
    add_device_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from jepa_arm_bringup.environment import enter_ros_environment

    enter_ros_environment()
    from jepa_arm_ros.arm_client import ArmClient

    from jepa_arm_bringup.devices import device_graph, device_robot
    from jepa_arm_bringup.evaluate import fresh
    from jepa_arm_bringup.up import READY_TIMEOUT_S, stop_signals, tell
    from perception.lerobot.reader import LeRobotDataset

    robot = device_robot(args)
    way = Way.recorded(LeRobotDataset(args.dataset), args.episode, robot)
    graph = device_graph(args, camera=False, log_dir=fresh(LOG_DIR), tell=lambda line: None)
    with stop_signals(), graph:
        graph.start()
        tell("starting arm and gate")
        graph.wait_ready(READY_TIMEOUT_S)
        with ArmClient(graph.domain_id, robot) as client:
            state = client.wait_ready()
            approach = Way.slowly(state.positions, way.at(0.0), robot)
            tell(f"moving to where the episode begins, slowly: {approach.seconds:.1f} s")
            drive(client, approach, robot, "on the way to the episode's start")
            tell(f"replaying {way.seconds:.1f} s of episode {args.episode}")
            measured = drive(client, way, robot, "the replay")
    for line in tracking(way, measured, robot):
        tell(line)
    return 0


@dataclass(frozen=True)
class Way:
    """Where the joints are to be: `positions` (N, J) rad at `times_s` (N,)."""

    times_s: Array
    positions: Array

    @classmethod
    def recorded(cls, dataset: LeRobotDataset, episode: int, robot: Robot) -> Way:
        """Raises DatasetError if the episode is not there, or not of this robot's joints and limits.

        Nothing is cut to the limits but what rounding explains: it would be another motion.
        """
        from perception.lerobot.layout import ACTION
        from sim.own_data import joints_of

        positions = joints_of(dataset, episode, ACTION, robot, "rad")
        times_s = np.arange(len(positions)) / dataset.info.fps
        inside = np.clip(positions, robot.position_lower, robot.position_upper)
        beyond = np.argwhere(np.abs(positions - inside) > ROUNDING_RAD)
        if len(beyond):
            row, joint = beyond[0]
            limits = robot.joints[joint]
            raise DatasetError(
                f"{dataset.folder}: after {times_s[row]:.2f} s of episode {episode} {limits.name} was sent "
                f"to {positions[row, joint]:.5f} rad; robot {robot.name} limits it to {limits.lower:.5f} to "
                f"{limits.upper:.5f} rad: replay it with the robot file that it was recorded with, or choose "
                "another episode"
            )
        return cls(times_s, inside)

    @classmethod
    def slowly(cls, start: Array, end: Array, robot: Robot) -> Way:
        """Straight in the joints, beginning and ending at rest."""
        # A cosine's fastest moment is π/2 of its mean.
        needed_s = np.pi / 2 * np.abs(end - start) / (APPROACH_SHARE * robot.velocity_limits)
        seconds = max(LEAST_APPROACH_S, float(needed_s.max()))
        times_s = np.linspace(0.0, seconds, max(2, round(seconds / COMMAND_PERIOD_S)))
        share = 0.5 - 0.5 * np.cos(np.pi * times_s / seconds)
        return cls(times_s, start + share[:, None] * (end - start))

    @property
    def seconds(self) -> float:
        return float(self.times_s[-1])

    def at(self, time_s: float) -> Array:
        """(J,) rad; before the beginning and after the end the first and the last."""
        columns = range(self.positions.shape[1])
        return np.array([np.interp(time_s, self.times_s, self.positions[:, j]) for j in columns])


@dataclass
class Measured:
    """Joints as they were measured: times since the beginning, and positions (J,) rad."""

    times_s: list[float] = field(default_factory=list)
    positions: list[Array] = field(default_factory=list)


def drive(client: ArmClient, way: Way, robot: Robot, what: str) -> Measured:
    """Send `way` to the gate at its times, and rest at its end. Raises GraphError if the gate stops it."""
    from hardware.arm.contract import JointCommand

    measured = Measured()
    limits = VELOCITY_SHARE * robot.velocity_limits
    began_s = time.monotonic()
    began_ns = client.node.get_clock().now().nanoseconds

    def on_state(state: JointState) -> None:
        measured.times_s.append((state.stamp_ns - began_ns) * 1e-9)
        measured.positions.append(state.positions)

    client.on_state = on_state
    try:
        elapsed_s = 0.0
        while elapsed_s < way.seconds + SETTLE_S:
            if client.stopped:
                assert client.safety is not None
                raise GraphError(f"the gate stopped {what} after {elapsed_s:.1f} s: {client.safety.text}")
            assert client.state is not None
            ahead_s = elapsed_s + COMMAND_S
            target = way.at(ahead_s)
            velocities = (target - way.at(ahead_s - COMMAND_PERIOD_S)) / COMMAND_PERIOD_S
            if ahead_s >= way.seconds:
                velocities = np.zeros_like(target)
            velocities = np.clip(velocities, -limits, limits)
            stamp_ns = client.state.stamp_ns
            client.send(JointCommand(robot.joint_names, target, velocities, COMMAND_S, stamp_ns))
            client.spin(COMMAND_PERIOD_S)
            elapsed_s = time.monotonic() - began_s
    finally:
        client.on_state = lambda state: None
    return measured


def tracking(way: Way, measured: Measured, robot: Robot) -> list[str]:
    """How far the joints were from the recorded actions of the same time, in lines."""
    times_s = np.array(measured.times_s)
    within = (times_s >= 0.0) & (times_s <= way.seconds)
    wanted = np.array([way.at(time_s) for time_s in times_s[within]])
    gaps = np.abs(np.array(measured.positions)[within] - wanted)
    if not len(gaps):
        return ["no joint state came during the replay"]
    rms, largest = np.sqrt(np.square(gaps).mean(0)), gaps.max(0)
    lines = [
        f"  {name:16} {rms[i]:.4f} rms, {largest[i]:.4f} at most" for i, name in enumerate(robot.joint_names)
    ]
    worst = robot.joint_names[int(largest.argmax())]
    return [
        "joints against the recorded actions (rad):",
        *lines,
        f"tracking error {np.sqrt(np.square(gaps).mean()):.4f} rms, {largest.max():.4f} at most ({worst})",
    ]
