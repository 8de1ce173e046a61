"""Holds every setpoint of a gate to the robot's limits, knowing nothing of how the gate keeps them."""

from __future__ import annotations

import numpy as np

from hardware.arm.contract import JointCommand
from hardware.kinematics import Kinematics
from hardware.robot import Robot
from hardware.safety.collision import Bodies

ROUNDING = 1e-7
# Where the arm is and where it would come to rest are checked; the way between them is a little curved.
WAY_M = 1e-3
# What ticks of less than a microsecond, in which nothing moves, leave to the next.
LEFT_S = 1e-6 + 1e-9


class OutsideLimits(AssertionError):
    """A setpoint that must never have been sent."""


class Watch:
    """Follows setpoints from where the arm is at rest; `check` raises `OutsideLimits`.

    Velocities, accelerations and jerks are differences of positions, as the drives see them. Who starts
    outside a limit may come back, and go no further out.
    """

    def __init__(self, robot: Robot, kinematics: Kinematics, bodies: Bodies, tolerance_m: float) -> None:
        self.robot, self.kinematics, self.bodies = robot, kinematics, bodies
        self.tolerance_m = tolerance_m
        self.start(robot.home)

    def start(self, q: np.ndarray) -> None:
        """At rest at `q`: at the beginning, and after each reset."""
        self.q, self.v, self.slope = q, np.zeros_like(q), np.zeros_like(q)
        self.dt = self.dt_before = 0.0
        self.beyond, self.outside = self._beyond(q), self._outside(q)
        self.clearance = self.bodies.clearance(q)

    def check(self, setpoint: JointCommand, elapsed_s: float) -> None:
        robot, q, dt = self.robot, setpoint.positions, setpoint.duration_s
        self._hold(setpoint.names == robot.joint_names, "names", setpoint.names)
        self._hold(np.isfinite(q).all() and np.isfinite(setpoint.velocities).all(), "not finite", q)
        self._hold(0.0 <= dt <= 0.05 and not dt > max(elapsed_s, 0.0) + LEFT_S, "duration", dt)
        if dt == 0.0:
            return self._hold(np.array_equal(q, self.q), "moved in no time", q - self.q)
        v = (q - self.q) / dt
        self._hold(np.allclose(v, setpoint.velocities, atol=1e-6), "reported velocities", v)
        self._hold((np.abs(v) <= robot.velocity_limits * (1 + 1e-6) + ROUNDING).all(), "velocity", v)
        slope = (v - self.v) / max(dt, self.dt)
        # What rounding of positions makes of their differences: most in the shorter of the two ticks.
        shorter, longer = sorted((dt, self.dt or dt))
        noise = 1e-15 * np.abs(q).max() / shorter / longer + 1e-6
        most = robot.acceleration_limits * (1 + 1e-6) + noise
        self._hold((np.abs(slope) <= most).all(), "acceleration", slope)
        if dt == self.dt == self.dt_before and dt > 1e-5:
            jerk = (slope - self.slope) / dt
            most = robot.jerk_limits * (1 + 1e-6) + 4.0 * noise / dt
            self._hold((np.abs(jerk) <= most).all(), "jerk", jerk / robot.jerk_limits)
        beyond, outside, clearance = self._beyond(q), self._outside(q), self.bodies.clearance(q)
        self._hold((beyond <= self.beyond + ROUNDING).all(), "position", beyond)
        if self.outside <= self.tolerance_m:
            self._hold(outside <= self.tolerance_m + WAY_M, "workspace", outside)
        else:  # far outside, where wide motions are curved more
            self._hold(outside <= self.outside + 10.0 * WAY_M, "further outside", (outside, self.outside))
        if self.clearance >= robot.collision.margin:  # how deep hulls overlap says little about the way out
            self._hold(clearance >= robot.collision.margin - WAY_M, "clearance", clearance)
        self.beyond = beyond
        self.outside, self.clearance = min(outside, self.outside), max(clearance, self.clearance)
        self.q, self.v, self.slope, self.dt_before, self.dt = q, v, slope, self.dt, dt

    def _hold(self, kept: bool, limit: str, value: object) -> None:
        if not kept:
            raise OutsideLimits(f"{self.robot.name}: {limit}: {value}")

    def _beyond(self, q: np.ndarray) -> np.ndarray:
        return np.maximum(np.maximum(self.robot.position_lower - q, q - self.robot.position_upper), 0.0)

    def _outside(self, q: np.ndarray) -> float:
        tool = self.kinematics.tool_position(q)
        low, high = self.robot.workspace_min, self.robot.workspace_max
        return max(0.0, float(np.maximum(low - tool, tool - high).max()))
