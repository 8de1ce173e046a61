"""What a servo is sent: joint positions and speeds as goals in ticks."""

from __future__ import annotations

import math

from hardware.arm.config import ServoConfig
from hardware.arm.servo_bus import Goal, Reading


def goal_at(servo: ServoConfig, ticks: int, speed: float) -> Goal:
    """To `ticks`, at `speed` rad/s or the joint's velocity limit, within its acceleration."""
    ticks_per_rad = abs(servo.ticks_per_rad)
    return Goal(ticks, min(speed, servo.velocity) * ticks_per_rad, servo.acceleration * ticks_per_rad)


def resting_goal(servo: ServoConfig, reading: Reading, age_s: float) -> Goal:
    """Where the joint comes to rest if it brakes now, by a reading that is so old.

    Within its limits; a joint that is found outside of them stays where it is.
    """
    position, velocity = servo.position(reading.ticks), reading.ticks_s / servo.ticks_per_rad
    velocity = math.copysign(min(abs(velocity), servo.velocity), velocity)
    braking = velocity * abs(velocity) / (2 * servo.acceleration)
    lower, upper = min(servo.lower, position), max(servo.upper, position)
    rest = min(max(position + velocity * age_s + braking, lower), upper)
    return goal_at(servo, servo.ticks(rest), servo.velocity)
