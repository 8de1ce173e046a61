"""Is the arm still well? Readings in, a fault out. No bus and no thread in here.

    monitor = Monitor(config)
    verdict = monitor.judge(readings, goals, now_s)

What a fault is, and what the user is told to do about it, is one table (`FAULTS`); `docs/arms.md` has it in
words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hardware.arm.config import ArmConfig, ServoConfig
from hardware.arm.servo_bus import Goal, Reading

SUPPLY_TOLERANCE = 0.2  # a supply that sags by more than this share of what it was at connect is a fault
# A reading further from the last than the joint can have moved is a jump.
JUMP_SPEED_SHARE, JUMP_MARGIN_RAD = 2.0, 0.06
# So many readings in a row that agree with each other, but not with what was, are believed.
JUMP_READINGS = 3
BLOCKED_ERROR_RAD, BLOCKED_SPEED_SHARE = 0.1, 0.25


@dataclass(frozen=True)
class FaultKind:
    """`after_s` is how long the condition must last: a motor that starts draws a peak."""

    what: str
    mend: str
    after_s: float = 0.0


FAULTS: dict[str, FaultKind] = {
    "port_gone": FaultKind("the serial port is gone", "plug the USB cable in again, then recover"),
    "servo_lost": FaultKind("does not answer", "check its cable and the power supply, then recover"),
    "servo_reset": FaultKind(
        "has restarted and lost its torque", "the supply broke down: use a stronger one, then recover"
    ),
    "position_jump": FaultKind(
        "measures a position that the joint cannot have moved to",
        "look whether its horn or gear slipped, then run `jepa-arm calibrate arm`",
    ),
    "position_noise": FaultKind(
        "measures positions that contradict each other", "check its cable and its magnet, or replace it"
    ),
    "overload": FaultKind("says that it is overloaded", "free the joint, power it off and on, then recover"),
    "overcurrent": FaultKind("draws too much current", "free the joint, then recover", 0.2),
    "overheated": FaultKind("is too hot", "let it cool down, and lighten its load, then recover", 0.05),
    "voltage": FaultKind("has a wrong supply voltage", "check the power supply, then recover", 0.05),
    "encoder": FaultKind("says that its encoder fails", "replace it"),
    "electrical shock": FaultKind("says that its motor is short of power", "check the power supply"),
    "blocked": FaultKind("does not follow", "free the joint, then recover", 0.25),
    "driver": FaultKind("the arm's driver failed", "this is a bug: report it with the log, then recover"),
}


@dataclass(frozen=True)
class Fault:
    """Why the arm has been stopped. `servo_id` is 0 and `joint` empty for what concerns all."""

    kind: str
    servo_id: int
    joint: str
    detail: str = ""

    def __str__(self) -> str:
        who = f"servo {self.servo_id} ({self.joint}) " if self.servo_id else ""
        detail = f" ({self.detail})" if self.detail else ""
        return f"{who}{FAULTS[self.kind].what}{detail}: {FAULTS[self.kind].mend}"


@dataclass(frozen=True)
class Verdict:
    """`trusted` says whether the readings may be taken as the arm's state; `fault` whether it must stop."""

    trusted: bool
    fault: Fault | None = None


class Monitor:
    def __init__(self, config: ArmConfig) -> None:
        self._servos = {servo.id: servo for servo in config.servos}
        self._period_s = 1.0 / config.rate_hz
        self._last: dict[int, float] = {}  # joint positions, rad
        self._last_s = 0.0
        self._supply_v: dict[int, float] = {}
        self._since: dict[
            tuple[str, int], tuple[float, int]
        ] = {}  # since when it holds, in how many readings
        self._jumps: list[tuple[int, float]] = []  # servo and position (rad) of untrusted readings in a row

    def judge(
        self, readings: Mapping[int, Reading], goals: Mapping[int, Goal], began_s: float, now_s: float
    ) -> Verdict:
        """Judge one reading of every servo, taken between `began_s` and `now_s` on a steady clock."""
        for servo_id, reading in readings.items():
            servo = self._servos[servo_id]
            for kind, holds, detail in self._conditions(servo, reading, goals.get(servo_id)):
                if self._lasts(kind, servo_id, holds, now_s):
                    return Verdict(False, Fault(kind, servo_id, servo.joint, detail))
        return self._judge_motion(readings, began_s, now_s)

    def _conditions(
        self, servo: ServoConfig, reading: Reading, goal: Goal | None
    ) -> list[tuple[str, bool, str]]:
        """(kind, whether it holds now, detail), the most telling first."""
        supply_v = self._supply_v.setdefault(servo.id, reading.voltage_v)
        sags = abs(reading.voltage_v - supply_v) > SUPPLY_TOLERANCE * supply_v
        hot = reading.temperature_c > servo.max_temperature_c
        conditions = [
            ("overheated", hot or "overheated" in reading.alarms, f"{reading.temperature_c:.0f} °C"),
            ("voltage", sags or "voltage" in reading.alarms, f"{reading.voltage_v:.1f} V"),
            (
                "overcurrent",
                reading.current_ma > servo.max_current_ma or "overcurrent" in reading.alarms,
                f"{reading.current_ma:.0f} mA",
            ),
        ]
        conditions += [
            (kind, kind in reading.alarms, "") for kind in ("overload", "encoder", "electrical shock")
        ]
        # A servo that gave up its torque for an alarm is told as that alarm.
        conditions.append(("servo_reset", not reading.torque and not reading.alarms, ""))
        if goal is not None:
            behind = abs(goal.ticks - reading.ticks) / abs(servo.ticks_per_rad)
            stands = abs(reading.ticks_s) < BLOCKED_SPEED_SHARE * goal.ticks_s
            conditions.append(("blocked", behind > BLOCKED_ERROR_RAD and stands, f"{behind:.2f} rad behind"))
        return conditions

    def _lasts(self, kind: str, servo_id: int, holds: bool, now_s: float) -> bool:
        if not holds:
            self._since.pop((kind, servo_id), None)
            return False
        since_s, readings = self._since.get((kind, servo_id), (now_s, 0))
        self._since[kind, servo_id] = since_s, readings + 1
        # In readings too: after a pause of ours, two of them prove nothing.
        after_s = FAULTS[kind].after_s
        return now_s - since_s >= after_s and readings >= after_s / (2 * self._period_s)

    def _judge_motion(self, readings: Mapping[int, Reading], began_s: float, now_s: float) -> Verdict:
        """One impossible position is a bad reading, to be left out; several that agree are a fault."""
        jumped = next((i for i, reading in readings.items() if not self.can_be(i, reading, now_s)), None)
        if jumped is None:
            self._last = {i: self._servos[i].position(reading.ticks) for i, reading in readings.items()}
            self._last_s = began_s
            self._jumps.clear()
            return Verdict(True)
        servo = self._servos[jumped]
        position = servo.position(readings[jumped].ticks)
        if self._jumps and not self._agrees(position, *self._jumps[-1], servo):
            self._jumps.clear()
        self._jumps.append((jumped, position))
        if len(self._jumps) < JUMP_READINGS:
            return Verdict(False)
        detail = f"by {position - self._last[jumped]:+.2f} rad"
        return Verdict(False, Fault("position_jump", jumped, servo.joint, detail))

    def _agrees(self, position: float, servo_id: int, before: float, servo: ServoConfig) -> bool:
        return servo.id == servo_id and abs(position - before) <= JUMP_MARGIN_RAD + self._reach_a_cycle(servo)

    def _reach_a_cycle(self, servo: ServoConfig) -> float:
        return JUMP_SPEED_SHARE * servo.velocity * self._period_s

    def suspect(self) -> tuple[int, str]:
        """Servo and joint of the last reading that was not trusted; 0 and "" if there is none."""
        servo_id = self._jumps[-1][0] if self._jumps else 0
        return servo_id, self._servos[servo_id].joint if servo_id else ""

    def can_be(self, servo_id: int, reading: Reading, now_s: float) -> bool:
        """Whether the joint can have moved to this reading since the last that was trusted."""
        servo = self._servos[servo_id]
        possible = JUMP_MARGIN_RAD + JUMP_SPEED_SHARE * servo.velocity * (now_s - self._last_s)
        position = servo.position(reading.ticks)
        return abs(position - self._last.get(servo_id, position)) <= possible
