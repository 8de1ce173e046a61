"""The emulated bus of an arm file: its servos, with their ids and models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hardware.arm.config import ArmConfig
from hardware.arm.emulator.bus import EmulatedBus
from hardware.arm.emulator.dynamixel import DynamixelBus, DynamixelServo
from hardware.arm.emulator.feetech import FeetechBus, FeetechServo


def emulated_bus(config: ArmConfig, positions: Mapping[str, float] | None = None) -> EmulatedBus[Any]:
    """Joints stand at `positions` (rad), those that are not named at 0, or at the nearer limit."""
    ticks = {}
    for servo in config.servos:
        wanted = (positions or {}).get(servo.joint, min(max(0.0, servo.lower), servo.upper))
        ticks[servo.id] = servo.ticks(wanted)
    if config.bus == "feetech":
        return FeetechBus([FeetechServo(i, at) for i, at in ticks.items()], config.baud)
    return DynamixelBus(
        [DynamixelServo(servo.id, ticks[servo.id], servo.model) for servo in config.servos], config.baud
    )
