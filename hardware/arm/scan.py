"""`jepa-arm scan`: which servos answer on a bus, at which baud, and how they are."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hardware.arm.servo_bus import ServoBus

EXAMPLE = "jepa-arm scan --bus feetech --port /dev/ttyACM0"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bus", required=True, choices=("feetech", "dynamixel"), help="the servos' protocol")
    parser.add_argument(
        "--port", required=True, help="serial port, as /dev/ttyACM0 or a name under /dev/serial/by-id"
    )
    parser.add_argument("--baud", type=int, help="try this baud only (default: 1000000, then every other)")


def run(args: argparse.Namespace) -> int:
    from hardware.arm.servo_bus import make_bus
    from hardware.errors import ArmError

    bus = make_bus(args.bus, {})
    every = sorted(bus.controller_class().baudrates(), key=lambda baud: (baud != 1_000_000, -baud))
    bauds = [args.baud] if args.baud else every
    bus.open(args.port, bauds[0])
    try:
        for baud in bauds:
            bus.set_baud(baud)
            found = bus.scan()
            if found:
                print(f"{len(found)} {args.bus} servos at {baud} baud")
                show(bus, found)
                return 0
    finally:
        bus.close()
    tried = ", ".join(str(baud) for baud in bauds)
    raise ArmError(
        f"no {args.bus} servo answers on {args.port} at {tried} baud: check --bus, the power supply and the "
        "cable from the adapter to the first servo"
    )


def show(bus: ServoBus, found: dict[int, int]) -> None:
    names = {number: name for name, number in bus.model_numbers().items()}
    print("  id  model            ticks   volt   °C  torque  alarms")
    bus.models.update({i: names[number] for i, number in found.items() if number in names})
    for servo_id, number in sorted(found.items()):
        if number not in names:
            print(f"{servo_id:4}  model {number} (not one that jepa-arm drives)")
            continue
        reading = bus.read([servo_id])[servo_id]
        torque, alarms = "on" if reading.torque else "off", ", ".join(reading.alarms) or "-"
        print(
            f"{servo_id:4}  {names[number]:14} {reading.ticks:7} {reading.voltage_v:6.1f} "
            f"{reading.temperature_c:4.0f}  {torque:6}  {alarms}"
        )
