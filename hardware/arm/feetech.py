"""Feetech STS/SMS servos (SO-100, SO-101) over rustypot.

Registers and units: Feetech's "STS series memory table" (doc.feetech.cn), as in rustypot's STS3215. These
servos have no watchdog of their own: after a cable is pulled they go on to their last goal, which the arm
never lets be further than `max_lead` from where they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hardware.arm.servo_bus import Goal, Reading, ServoBus, word
from hardware.errors import ArmError

# From torque enable to present current: one block says at once whether a servo still is as it was set up.
BLOCK, BLOCK_SIZE = 40, 31
TORQUE, POSITION, SPEED, VOLTAGE, TEMPERATURE, STATUS, CURRENT = (
    at - BLOCK for at in (40, 56, 58, 62, 63, 65, 69)
)
MOTION = 41  # acceleration, goal position, goal time and goal speed, 7 bytes
CURRENT_UNIT_MA = 6.5
ACCELERATION_UNIT = 100.0  # ticks/s²
MAX_ACCELERATION, MAX_SPEED = 254, 32_767
POSITION_MODE = 0
CENTRE_HERE = 128  # as torque enable: "the present position is 2048"
ALARMS = {1: "voltage", 2: "encoder", 4: "overheated", 8: "overcurrent", 32: "overload"}
MODEL_NUMBERS = {"sts3215": 777}


class FeetechBus(ServoBus):
    @staticmethod
    def controller_class() -> Any:
        from rustypot import Sts3215PyController

        return Sts3215PyController

    def read(self, ids: Sequence[int]) -> dict[int, Reading]:
        return {
            servo_id: Reading(
                ticks=_signed(word(data, POSITION)),
                ticks_s=_signed(word(data, SPEED)),
                current_ma=abs(_signed(word(data, CURRENT))) * CURRENT_UNIT_MA,
                voltage_v=data[VOLTAGE] / 10,
                temperature_c=data[TEMPERATURE],
                torque=data[TORQUE] == 1,
                alarms=tuple(name for bit, name in ALARMS.items() if (status | data[STATUS]) & bit),
            )
            for servo_id, (data, status) in self._block(ids, BLOCK, BLOCK_SIZE).items()
        }

    def write_goals(self, goals: Mapping[int, Goal]) -> None:
        blocks = []
        for goal in goals.values():
            # Zero means "as fast as it can" in both registers.
            speed = min(max(round(goal.ticks_s), 1), MAX_SPEED)
            acceleration = min(max(round(goal.ticks_s2 / ACCELERATION_UNIT), 1), MAX_ACCELERATION)
            ticks = goal.ticks if goal.ticks >= 0 else -goal.ticks | 1 << 15
            blocks.append([acceleration, *ticks.to_bytes(2, "little"), 0, 0, *speed.to_bytes(2, "little")])
        self._call("sync_write_raw_data", list(goals), MOTION, blocks)

    def set_watchdog(self, ids: Sequence[int], timeout_s: float) -> None:
        return  # they have none

    @staticmethod
    def model_numbers() -> dict[str, int]:
        return MODEL_NUMBERS

    def prepare(self, servo_id: int) -> None:
        if self._register(servo_id, "operating_mode") != POSITION_MODE:
            raise ArmError(f"servo {servo_id} is not in position mode: write 0 to its mode register (33)")

    def centre_here(self, servo_id: int) -> None:
        """The servo stores the offset itself; its ticks then run from 0 to 4095 around here."""
        self._call("write_register_with_error", servo_id, "torque_enable", CENTRE_HERE)

    def write_range(self, servo_id: int, lower_ticks: int, upper_ticks: int) -> None:
        self._call("write_register_with_error", servo_id, "lock", 0)
        for name, ticks in (("min_angle_limit", lower_ticks), ("max_angle_limit", upper_ticks)):
            self._call("write_register_with_error", servo_id, name, ticks)
        self._call("write_register_with_error", servo_id, "lock", 1)


def _signed(value: int) -> int:
    """Sign and magnitude with the sign in bit 15."""
    return -(value & 0x7FFF) if value & 0x8000 else value
