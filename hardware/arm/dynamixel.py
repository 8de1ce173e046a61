"""Dynamixel X servos over Protocol 2.0 (Koch, ViperX), over rustypot.

Control tables and units: ROBOTIS e-Manual, X series (emanual.robotis.com/docs/en/dxl/x). The Bus Watchdog
(98) of each servo stops it when the host falls silent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hardware.arm.servo_bus import Goal, Reading, ServoBus, word
from hardware.errors import ArmError

# Two blocks rather than one from 64 to 146: half the bytes on the wire.
STATE, STATE_SIZE = 64, 7  # torque enable … hardware error status
PRESENT, PRESENT_SIZE = 126, 21  # present current (or load), velocity, position … voltage, temperature
VELOCITY, POSITION, VOLTAGE, TEMPERATURE = 2, 6, 18, 20
MOTION = 108  # profile acceleration, profile velocity, goal position, 12 bytes
VELOCITY_UNIT = 0.229 * 4096 / 60  # ticks/s
ACCELERATION_UNIT = 214.577 * 4096 / 3600  # ticks/s²
MAX_PROFILE = 32_767
WATCHDOG_UNIT_S, MAX_WATCHDOG = 0.020, 127
POSITION_MODES = (3, 4, 5)  # position, extended position, current-based position
TIME_BASED_PROFILE = 0b100
ALARMS = {1: "voltage", 4: "overheated", 8: "encoder", 16: "electrical shock", 32: "overload"}
MODEL_NUMBERS = {
    "xl430-w250": 1060,
    "xl330-m077": 1190,
    "xl330-m288": 1200,
    "xm430-w350": 1020,
    "xm540-w270": 1120,
}
# The XL430 measures no current: that register holds an estimated load there.
CURRENT_UNITS_MA = {
    "xl430-w250": math.nan, "xl330-m077": 1.0, "xl330-m288": 1.0, "xm430-w350": 2.69, "xm540-w270": 2.69,
}  # fmt: skip


class DynamixelBus(ServoBus):
    @staticmethod
    def controller_class() -> Any:
        from rustypot import Xl330PyController

        return Xl330PyController

    def read(self, ids: Sequence[int]) -> dict[int, Reading]:
        states, presents = self._block(ids, STATE, STATE_SIZE), self._block(ids, PRESENT, PRESENT_SIZE)
        readings = {}
        for servo_id in ids:
            state, present = states[servo_id][0], presents[servo_id][0]
            current = int.from_bytes(present[:2], "little", signed=True)
            velocity = int.from_bytes(present[VELOCITY : VELOCITY + 4], "little", signed=True)
            readings[servo_id] = Reading(
                ticks=int.from_bytes(present[POSITION : POSITION + 4], "little", signed=True),
                ticks_s=velocity * VELOCITY_UNIT,
                current_ma=abs(current) * CURRENT_UNITS_MA[self.models[servo_id]],
                voltage_v=word(present, VOLTAGE) / 10,
                temperature_c=present[TEMPERATURE],
                torque=state[0] == 1,
                alarms=tuple(name for bit, name in ALARMS.items() if state[-1] & bit),
            )
        return readings

    def write_goals(self, goals: Mapping[int, Goal]) -> None:
        blocks = []
        for goal in goals.values():
            # Zero means "no limit" in both profile registers.
            acceleration = min(max(round(goal.ticks_s2 / ACCELERATION_UNIT), 1), MAX_PROFILE)
            velocity = min(max(round(goal.ticks_s / VELOCITY_UNIT), 1), MAX_PROFILE)
            ticks = goal.ticks % (1 << 32)
            blocks.append(
                [byte for value in (acceleration, velocity, ticks) for byte in value.to_bytes(4, "little")]
            )
        self._call("sync_write_raw_data", list(goals), MOTION, blocks)

    def set_watchdog(self, ids: Sequence[int], timeout_s: float) -> None:
        steps = min(max(math.ceil(timeout_s / WATCHDOG_UNIT_S), 1), MAX_WATCHDOG) if timeout_s else 0
        # Zero first: it clears a watchdog that has stopped its servo.
        for value in (0, steps) if steps else (0,):
            self._call("sync_write_register", list(ids), "bus_watchdog", [value] * len(ids))

    @staticmethod
    def model_numbers() -> dict[str, int]:
        return MODEL_NUMBERS

    def prepare(self, servo_id: int) -> None:
        if self._register(servo_id, "operating_mode") not in POSITION_MODES:
            raise ArmError(
                f"servo {servo_id} is not in a position mode: "
                "write 3 to its Operating Mode (11) with torque off"
            )
        if self._register(servo_id, "drive_mode") & TIME_BASED_PROFILE:
            raise ArmError(
                f"servo {servo_id} has a time-based profile: "
                "clear bit 2 of its Drive Mode (10) with torque off"
            )
        if not self._register(servo_id, "torque_enable") and self._register(servo_id, "return_delay_time"):
            self._call("write_register_with_error", servo_id, "return_delay_time", 0)

    def centre_here(self, servo_id: int) -> None:
        return  # a homing offset in position mode is at most a quarter turn: the horn has to sit right

    def write_range(self, servo_id: int, lower_ticks: int, upper_ticks: int) -> None:
        for name, ticks in (("min_position_limit", lower_ticks), ("max_position_limit", upper_ticks)):
            error = self._call("write_register_with_error", servo_id, name, ticks)
            if error & 0x7F:
                raise ArmError(
                    f"servo {servo_id} does not take {ticks} as {name} (status error {error & 0x7F})"
                )
