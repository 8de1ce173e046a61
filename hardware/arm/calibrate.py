"""`jepa-arm calibrate arm`: where each joint's zero is, and how far it goes, measured by hand.

The servos are limp while it runs. What is measured is written to the arm file, and the limits into the servos
themselves, so that they hold even without us.
"""

from __future__ import annotations

import argparse
import select
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hardware.arm.config import ArmConfig, ServoConfig
    from hardware.arm.servo_bus import ServoBus

EXAMPLE = "jepa-arm calibrate arm --robot so101 --bus feetech --port /dev/ttyACM0"
POLL_S = 0.02
# The limits stay this far inside of where the hand could turn the joint.
MARGIN_RAD = 0.02
LEAST_RANGE_RAD = 0.2
MOST_OF_A_TURN = 0.97 * 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--robot", default="so101", help="whose joints: there is an arm file ROBOT-BUS")
    parser.add_argument(
        "--bus", default="feetech", choices=("feetech", "dynamixel"), help="the servos' protocol"
    )
    parser.add_argument("--config", type=Path, help="arm file to start from, instead of --robot's")
    parser.add_argument("--out", type=Path, help="arm file to write (default: the one it starts from)")
    parser.add_argument("--port", help="serial port (default: the arm file's)")
    parser.add_argument("--yes", action="store_true", help="ask nothing: the arm is at its zero now")
    parser.add_argument(
        "--range-s",
        type=float,
        metavar="S",
        help="with --yes: watch the joints for so long while they are moved",
    )


def run(args: argparse.Namespace) -> int:
    from hardware.arm.config import arm_file, load_arm_config, write_arm_config
    from hardware.arm.servo_bus import make_bus
    from hardware.errors import ArmError

    if args.yes and args.range_s is None:
        raise ArmError("--yes needs --range-s: for how long the joints are moved while it watches")
    source = args.config or arm_file(args.robot, args.bus)
    config = load_arm_config(source)
    port = args.port or config.port
    bus = make_bus(config.bus, {servo.id: servo.model for servo in config.servos})
    bus.open(port, config.baud)
    try:
        let_go(bus, config, args.yes)
        zeros = measure_zeros(bus, config, args.yes)
        ranges = measure_ranges(bus, config, args.range_s if args.yes else None)
        measured = calibrated(config, port, zeros, ranges)
        for servo in measured.servos:
            ticks = sorted((servo.ticks(servo.lower), servo.ticks(servo.upper)))
            bus.write_range(servo.id, *ticks)
    finally:
        bus.close()
    out = args.out or source
    write_arm_config(measured, out, f"Written by `jepa-arm calibrate arm` on {time.strftime('%Y-%m-%d')}.")
    for servo in measured.servos:
        print(
            f"{servo.label:28} zero {servo.zero_ticks:5}  from {servo.lower:+.3f} to {servo.upper:+.3f} rad"
        )
    print(f"wrote {out}; the limits are in the servos too")
    return 0


def let_go(bus: ServoBus, config: ArmConfig, yes: bool) -> None:
    """Torque off, once the user holds the arm."""
    if not yes:
        input("The arm will go limp. Hold it, then press Enter. ")
    for servo in config.servos:
        bus.model_of(servo.id)
    bus.torque_off(config.ids)


def measure_zeros(bus: ServoBus, config: ArmConfig, yes: bool) -> dict[int, int]:
    """Servo id → what it reads where its joint is at 0."""
    if not yes:
        input(
            "Put every joint at its zero (docs/arms.md shows it: the middle of its range), then press Enter. "
        )
    for servo_id in config.ids:
        bus.centre_here(servo_id)
    return {servo_id: reading.ticks for servo_id, reading in bus.read(config.ids).items()}


def measure_ranges(bus: ServoBus, config: ArmConfig, seconds: float | None) -> dict[int, tuple[int, int]]:
    """Servo id → lowest and highest ticks while the joints are moved by hand."""
    from hardware.arm.servo_bus import BusError

    print("Move every joint slowly from one end of its range to the other.")
    if seconds is None:
        print("Then press Enter.")
    end_s = time.monotonic() + (seconds or 0.0)
    lowest = dict.fromkeys(config.ids, sys.maxsize)
    highest = dict.fromkeys(config.ids, -sys.maxsize)
    while not (pressed_enter() if seconds is None else time.monotonic() >= end_s):
        time.sleep(POLL_S)
        try:
            readings = bus.read(config.ids)
        except BusError:
            continue  # one bad answer among thousands
        for servo_id, reading in readings.items():
            lowest[servo_id] = min(lowest[servo_id], reading.ticks)
            highest[servo_id] = max(highest[servo_id], reading.ticks)
    return {servo_id: (lowest[servo_id], highest[servo_id]) for servo_id in config.ids}


def pressed_enter() -> bool:
    return bool(select.select([sys.stdin], [], [], 0.0)[0] and sys.stdin.readline())


def calibrated(
    config: ArmConfig, port: str, zeros: dict[int, int], ranges: dict[int, tuple[int, int]]
) -> ArmConfig:
    """The arm file with what was measured. Raises `ArmError` naming a joint not moved, or too far."""
    from hardware.arm.config import checked_arm_config

    limits = robot_limits(config.robot)
    servos = [
        with_measured(servo, zeros[servo.id], *ranges[servo.id], limits.get(servo.joint)).model_dump()
        for servo in config.servos
    ]
    return checked_arm_config(config.model_dump() | {"port": port, "servos": servos}, "what was measured")


def robot_limits(name: str) -> dict[str, tuple[float, float]]:
    """Joint → its limits (rad) in the robot file, which measured ones stay within; none without a file."""
    from hardware.robot import load_robot, robot_names

    if name not in robot_names():
        return {}
    return {joint.name: (joint.lower, joint.upper) for joint in load_robot(name).joints}


def with_measured(
    servo: ServoConfig, zero: int, low: int, high: int, limits: tuple[float, float] | None
) -> ServoConfig:
    from hardware.errors import ArmError

    if high - low > MOST_OF_A_TURN:
        raise ArmError(
            f"{servo.label}: its ticks run over the end of the turn ({low} to {high}): start with the joint "
            "in the middle of its range, and for Dynamixel turn its horn so that the middle reads about 2048"
        )
    moved = servo.model_copy(update={"zero_ticks": zero})
    lower, upper = sorted(moved.position(ticks) for ticks in (low, high))
    if upper - lower < LEAST_RANGE_RAD:
        raise ArmError(
            f"{servo.label}: moved by {upper - lower:.2f} rad only; move every joint from end to end"
        )
    lower, upper = lower + MARGIN_RAD, upper - MARGIN_RAD
    if limits is not None:
        lower, upper = max(lower, limits[0]), min(upper, limits[1])
    return moved.model_copy(update={"lower": round(lower, 4), "upper": round(upper, 4)})
