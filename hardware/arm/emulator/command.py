"""`jepa-arm fake-arm`: servos on a pty, at the robot's home, for trying everything out without an arm.

Faults come at their time (`--faults`), or while it runs, one to a line on standard input: `lost:3`, `clear`
(ends every fault and plugs a pulled cable in again), `turn 3 1500` (someone turns a limp shaft), `show`.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hardware.arm.config import ArmConfig
    from hardware.arm.emulator.port import FakePort

EXAMPLE = "jepa-arm fake-arm --bus feetech --link /tmp/so101 --faults lost:3@10 voltage:2=6@20"
WAIT_S = 0.1
READ_SIZE = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bus", required=True, choices=("feetech", "dynamixel"), help="the servos' protocol")
    parser.add_argument(
        "--robot", help="whose servos: there is an arm file ROBOT-BUS (default: the bus's arm)"
    )
    parser.add_argument("--config", type=Path, help="the arm file, instead of --robot's")
    parser.add_argument("--link", type=Path, help="also make this a link to the pty, as udev would")
    parser.add_argument(
        "--faults",
        nargs="*",
        default=[],
        metavar="FAULT",
        help="KIND[:ID][=VALUE][@START][+DURATION], as lost:3@1.5",
    )
    parser.add_argument("--list-faults", action="store_true", help="say which kinds there are, and end")


def run(args: argparse.Namespace) -> int:
    from hardware.arm.config import arm_file, load_arm_config
    from hardware.arm.emulator.faults import KINDS
    from hardware.arm.emulator.make import emulated_bus
    from hardware.arm.emulator.port import FakePort
    from hardware.errors import ArmError
    from hardware.robot import load_robot

    if args.list_faults:
        for name, kind in KINDS.items():
            print(f"{name + (':ID' if kind.of_servo else ''):16} {kind.summary}")
        return 0
    config = load_arm_config(args.config or arm_file(args.robot or "", args.bus))
    if config.bus != args.bus:
        raise ArmError(f"{args.config}: is for bus {config.bus}, not --bus {args.bus}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.getsignal(signal.SIGINT))
    home = {joint.name: joint.home for joint in load_robot(config.robot).joints}
    with FakePort(emulated_bus(config, home), args.link) as port:
        print(port.path, flush=True)
        for words in args.faults:
            port.inject(words)
        serve(port, config)
    return 0


def serve(port: FakePort, config: ArmConfig) -> None:
    """Obey standard input until it is interrupted."""
    unfinished, listening, was_plugged = b"", True, True
    while True:
        if was_plugged and not port.plugged:
            print("the cable is pulled; `clear` plugs it in again", flush=True)
        was_plugged = port.plugged
        if not listening:
            time.sleep(WAIT_S)
        elif select.select([sys.stdin], [], [], WAIT_S)[0]:
            # Past Python's own buffer: select does not see the lines that wait in there.
            read = os.read(sys.stdin.fileno(), READ_SIZE)
            listening = bool(read)
            *lines, unfinished = (unfinished + read).split(b"\n")
            for line in lines:
                obey(line.decode(errors="replace").strip(), port, config)


def obey(words: str, port: FakePort, config: ArmConfig) -> None:
    from hardware.errors import ArmError

    if words == "clear":
        port.clear()
        print(port.path, flush=True)
    elif words == "show":
        ticks, torques = port.positions(), port.torques()
        for servo in config.servos:
            at, torque = servo.position(ticks[servo.id]), "on" if torques[servo.id] else "off"
            print(f"{servo.label}: {at:+.3f} rad, torque {torque}")
        sys.stdout.flush()
    elif words:
        try:
            if words.startswith("turn "):
                servo_id, to = words.split()[1:]
                port.turn(int(servo_id), float(to))
            else:
                port.inject(words)
        except (ArmError, ValueError) as error:
            print(error, flush=True)
