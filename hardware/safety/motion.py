"""Moving a reference point of the joints within every limit: the arithmetic under the safety gate.

    reference = Reference(kinematics, bodies, workspace_tolerance_m=0.002)
    reference.place(q)                                   # at rest there
    reference.follow(goal, time_left, dt)                # or
    reference.settle(goal, time_left, dt)                # or
    reference.brake(dt)

Its velocities are those between the last two setpoints. They change from tick to tick by no more than A·dt,
and the slope of that change by no more than J times the time from the middle of one tick to that of the next.

Beside the motion the reference always knows a stop: the quickest one from where it is, which breaks no limit.
A motion is taken only if the point it leads to has such a stop too; otherwise the known one is followed. So
whatever is wanted, and however long the ticks are, the limits hold: each tick only chooses between safe
stops.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hardware.kinematics import Kinematics
from hardware.safety.collision import Bodies
from hardware.safety.stop import Stop, braking_times

Array = NDArray[np.float64]

# The share of a robot's `max_braking_s` that may go into ending an acceleration before its stop brakes. The
# softer a robot's jerk limit, the gentler it accelerates for it.
EASING_SHARE = 0.2
# What a limit may be exceeded by in double precision: rad, or s of a stop.
ROUNDING = 1e-9
# A stop that ends this near (rad) to where the arm should rest needs no further steering.
ARRIVED = 1e-7


class Reference:
    """The point that the drives are told to be at. Joint arrays are (J,) rad, rad/s, rad/s²."""

    def __init__(self, kinematics: Kinematics, bodies: Bodies, workspace_tolerance_m: float) -> None:
        robot = self._robot = kinematics.robot
        self._kinematics = kinematics
        self._bodies = bodies
        self._tolerance = workspace_tolerance_m
        self._jerk = robot.jerk_limits
        easing_s = np.minimum(robot.acceleration_limits / self._jerk, EASING_SHARE * robot.max_braking_s)
        self._acceleration = self._jerk * easing_s
        self.max_velocity: Array = self._highest_velocity(robot.max_braking_s - float(easing_s.max()))
        # This near to its time a motion keeps its pace: what is left is for the next command to correct.
        self._horizon_s = 2.0 * float(easing_s.max())
        self._pace: Array
        self.place(robot.home)

    @property
    def at_rest(self) -> bool:
        return not self.velocities.any()

    def place(self, q: Array) -> None:
        """Be at rest at `q`."""
        self._goal: Array | None = None
        self.positions, self.velocities = q, np.zeros_like(q)
        self._stop, self._braked_s = self._stop_from(q, self.velocities, self.velocities), 0.0
        self._slope, self._dt = np.zeros_like(q), 0.0
        self.nearness_share = 1.0  # what nearness to another body left of the wanted speed
        # How far outside the workspace (m), and how near to a body, the arm may come to rest.
        self._furthest = max(self._outside(q), self._tolerance)
        self._nearest = min(self._bodies.clearance(q), self._robot.collision.margin)

    def follow(
        self, goal: Array, time_left: float, dt: float, share: float = 1.0, rest_within_s: float = math.inf
    ) -> None:
        """Move on by `dt` on the way through `goal` in `time_left`, at `share` of the speed that takes.

        After this step the arm can still come to rest within `rest_within_s`, if it could before.
        """
        if goal is not self._goal or time_left >= self._horizon_s:
            self._goal, self._pace = goal, self._pace_to(goal, max(time_left, self._horizon_s, dt))
        self._move(share * self._pace, dt, min(rest_within_s, self._robot.max_braking_s))

    def settle(self, goal: Array, time_left: float, dt: float, share: float = 1.0) -> None:
        """Move on by `dt` towards rest at `goal` in `time_left`, at `share` of the speed that takes."""
        if float(np.abs(self._stop.rest - goal).max()) <= ARRIVED:
            return self.brake(dt)
        way = np.abs(goal - self.positions)
        pace = self._slowed(self._pace_to(goal, max(time_left, dt)), self._stoppable_within(way, dt))
        self._move(share * pace, dt, self._robot.max_braking_s)

    def brake(self, dt: float) -> None:
        """Move on by `dt` along the stop."""
        self.nearness_share = 1.0
        self._go_on_to_rest(dt)

    def target_is_inside(self, target: Array) -> bool:
        """Whether `target` has the tool inside the workspace, or at least no further outside than where it
        would come to rest now."""
        return self._outside(target) <= self._furthest

    def target_is_clear(self, target: Array) -> bool:
        """Whether `target` keeps the margin to all bodies, or at least comes no nearer to them than where the
        arm would come to rest now."""
        return self._bodies.clearance(target) >= self._nearest

    # How

    def _go_on_to_rest(self, dt: float) -> None:
        self._braked_s += dt
        q = self._stop.position_at(self._braked_s)
        v = (q - self.positions) / dt
        # Between the middles of two ticks, one of which may be long: over a short one alone, the mean
        # velocity of the long one before would count as an acceleration that never was.
        self._slope, self._dt = (v - self.velocities) / (0.5 * (dt + self._dt)), dt
        self.positions, self.velocities = q, v

    def _move(self, pace: Array, dt: float, rest_within_s: float) -> None:
        """Change to the velocities `pace`: to all of them, or to less near other bodies, or brake."""
        q, v, stop = self._stepped(pace, dt)
        share = self.nearness_share = self._share_near_bodies(stop)
        if share < 1.0:
            q, v, stop = self._stepped(share * pace, dt)
        if not self._is_safe(stop, rest_within_s):
            return self._go_on_to_rest(dt)
        self._slope, self._dt = (v - self.velocities) / dt, dt
        self.positions, self.velocities = q, v
        self._stop, self._braked_s = stop, 0.0
        self._come_back(stop.rest)

    def _come_back(self, rest: Array) -> None:
        """Where the arm began outside, it may not go out again as far as it was.

        It is where it comes to rest that counts, not where it is: on curved ways that goes to and fro, and
        each time a little further out would be allowed.
        """
        if self._furthest > self._tolerance:
            self._furthest = min(self._furthest, max(self._outside(rest), self._tolerance))
        margin = self._robot.collision.margin
        if self._nearest < margin:
            self._nearest = max(self._nearest, min(self._bodies.clearance(rest), margin))

    def _is_safe(self, stop: Stop, rest_within_s: float) -> bool:
        """Whether the arm may be where `stop` begins: with it, it breaks no limit."""
        robot, here = self._robot, self.positions
        lowest, highest = stop.reach()
        return bool(
            stop.duration_s <= rest_within_s + ROUNDING
            and (lowest >= np.minimum(robot.position_lower, here) - ROUNDING).all()
            and (highest <= np.maximum(robot.position_upper, here) + ROUNDING).all()
            and (stop.fastest <= robot.velocity_limits + ROUNDING).all()
            and self.target_is_inside(stop.rest)
            and self.target_is_clear(stop.rest)
        )

    def _pace_to(self, goal: Array, time_left: float) -> Array:
        """The velocity that reaches `goal` in `time_left`."""
        return self._slowed((goal - self.positions) / time_left, self.max_velocity)

    def _slowed(self, velocity: Array, most: Array) -> Array:
        """`velocity`, the arm's joints slowed alike until none is above its `most`; a gripper by itself."""
        excess = np.maximum(np.abs(velocity) / np.maximum(most, 1e-12), 1.0)
        arm = slice(None) if self._robot.gripper is None else slice(-1)
        excess[arm] = excess[arm].max()
        return velocity / excess

    def _stepped(self, pace: Array, dt: float) -> tuple[Array, Array, Stop]:
        """Positions and velocities `dt` later, as near to `pace` as limits allow, and the stop from there."""
        change = self._within_room(pace, dt) - self.velocities
        slope = self._slowed(change / dt, self._steepest(change, dt))
        turn = 0.5 * self._jerk * (dt + self._dt)
        slope = np.minimum(np.maximum(slope, self._slope - turn), self._slope + turn)
        v = self.velocities + slope * dt
        q = self.positions + v * dt
        # A stop after this tick may begin with a slope that is half a tick of jerk nearer to none, and has
        # the velocity v half a tick before it begins.
        left = np.sign(slope) * np.maximum(np.abs(slope) - 0.5 * self._jerk * dt, 0.0)
        return q, v, self._stop_from(q, v + 0.5 * dt * left, left)

    def _steepest(self, change: Array, dt: float) -> Array:
        """The largest slopes for the next `dt` on the way to a `change` of velocity that is not to be
        overshot.

        Jerk has to bring the slope a to none in what is left after this tick: with x = a - J·dt/2, which a
        stop would begin with, a·dt + x·dt/2 + x²/2J = change. Changes of less than J·dt²/2 are made in one
        tick; for them this is more than is needed.
        """
        easing = self._jerk * (np.sqrt(1.25 * dt * dt + 2.0 * np.abs(change) / self._jerk) - dt)
        return np.minimum(self._acceleration, easing)

    def _stop_from(self, q: Array, v: Array, a: Array) -> Stop:
        return Stop(q, v, a, self._robot.acceleration_limits, self._jerk)

    def _share_near_bodies(self, stop: Stop) -> float:
        """What is left of the speed: all of it, unless the arm would come to rest near another body."""
        collision = self._robot.collision
        there = self._bodies.clearance(stop.rest)
        if there >= collision.slow_from or there >= self._bodies.clearance(self.positions):
            return 1.0
        return max(0.0, (there - collision.margin) / (collision.slow_from - collision.margin))

    def _within_room(self, wanted: Array, dt: float) -> Array:
        """`wanted`, slower for each joint that could not stop before its end after one more tick of `dt`."""
        robot, q = self._robot, self.positions
        slowest = -self._stoppable_within(np.maximum(q - robot.position_lower, 0.0), dt)
        fastest = self._stoppable_within(np.maximum(robot.position_upper - q, 0.0), dt)
        return np.minimum(np.maximum(wanted, slowest), fastest)

    def _stoppable_within(self, room: Array, dt: float) -> Array:
        """A velocity from which each joint stops within `room`: v dt + v²/2a + va/2j ≥ the way it takes."""
        delay = dt + 0.5 * self._acceleration / self._jerk
        return 2.0 * room / (np.sqrt(delay * delay + 2.0 * room / self._acceleration) + delay)

    def _highest_velocity(self, seconds: float) -> Array:
        """The velocities from which the joints, each alone and all together, stop in `seconds`."""
        robot = self._robot
        ramp_s = robot.acceleration_limits / self._jerk
        alone = np.where(
            seconds >= 2.0 * ramp_s,
            robot.acceleration_limits * (seconds - ramp_s),
            0.25 * self._jerk * seconds**2,
        )
        highest = np.minimum(robot.velocity_limits, alone)
        while sum(braking_times(highest, robot.acceleration_limits, self._jerk)) > seconds + ROUNDING:
            highest = 0.99 * highest
        return highest

    def _outside(self, q: Array) -> float:
        """How far (m) the tool is outside the workspace on its worst axis; negative inside."""
        tool = self._kinematics.tool_position(q)
        return float(np.maximum(self._robot.workspace_min - tool, tool - self._robot.workspace_max).max())
