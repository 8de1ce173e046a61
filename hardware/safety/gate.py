"""The safety gate: the last thing between a planner and the drives.

    gate = SafetyGate(robot, kinematics)
    gate.observe(state, now_s)                       # each joint state
    gate.submit(command, now_s, image_age_s)         # each command: accepted, or refused with a reason
    gate.caution(level, now_s)                       # if the commander can say how surprised it is
    gate.e_stop(pressed, now_s)                      # if somebody has a button
    setpoint = gate.tick(now_s)                      # 100 to 250 times a second: what the drives get

A learned planner may send anything, at any time, or nothing any more. Whatever it does, the setpoints keep to
the joints' position, velocity, acceleration and jerk limits, the tool to its workspace, the arm clear of
itself and of its keep-out boxes, and a motion that nobody continues comes to rest. `now_s` is a steady clock
in seconds; one thread calls the gate.

What leads to what (`Reason`):

| what is seen                                       | command | arm                                      |
|----------------------------------------------------|---------|------------------------------------------|
| MISSING_JOINT, UNKNOWN_JOINT, DUPLICATE_JOINT      | refused | stops until reset: the sender is broken  |
| MALFORMED, NOT_FINITE                              | refused | stops until reset: the sender is broken  |
| POSITION_LIMIT, VELOCITY_LIMIT, DISCONTINUITY      | refused | stops until reset: the sender is broken  |
| WORKSPACE, COLLISION: where the target is          | refused | stops until reset: the sender is broken  |
| COMMAND_RATE: a flood of commands                  | refused | stops until reset: the sender is broken  |
| SECOND_SOURCE: another source owns the arm         | refused | stops until reset                        |
| IMAGE_STALE: image too old, too new, or of no age  | refused | goes on; stops when its command runs out |
| STATE_STALE before the first joint state           | refused | no setpoints yet                         |
| already stopped                                    | refused | stays stopped                            |
| command ran out, final velocities zero             |         | is at rest: IDLE                         |
| command ran out, final velocities not zero         |         | brakes; goes on if the next comes        |
| COMMAND_STALE: ... and none within `fault_after_s` |         | stops until reset                        |
| STATE_STALE: joint states stop, or repeat          |         | stops until reset                        |
| TRACKING: measured joints far from their setpoints |         | stops until reset                        |
| OPERATOR_STOP: `stop()`                            |         | stops until reset                        |
| DEADLINE_MISSED: its caller ticked it too late     |         | stops until reset                        |
| E_STOP: an emergency stop is pressed               |         | stops until released and reset           |
| NEAR_COLLISION: comes near itself or a box         |         | slows down; rests at the margin          |
| NEAR_SINGULARITY: joints fold up or stretch out    |         | slows down; rests, unless it goes back   |
| caution SLOW                                       |         | goes on at `slow_share` of the speed     |
| caution HOLD                                       |         | brakes to rest; goes on when calm again  |
| SURPRISE: caution STOP                             |         | stops until reset                        |
| UNKNOWN_CAUTION: a level that is none              |         | stops until reset: the sender is broken  |

A COMMAND_STALE is called IMAGE_STALE where stale images were refused in the meantime.

To stop is to come to rest as quickly as the limits allow, then to hold the position the joints are measured
at. Acceleration and jerk are never a reason: motion is shaped to them. Slow-downs at the workspace edge and
at joint limits are not faults either. A joint state that is incomplete, not finite, impossible or the same
as the one before is ignored, so STATE_STALE follows.

Caution rises at once and is lowered only after lower levels have come, without a gap, for `calm_after_s`: one
that nobody renews stays in force. Whoever never speaks of caution moves the arm without.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from hardware.arm.contract import JointCommand, JointState
from hardware.kinematics import Kinematics
from hardware.robot import Robot
from hardware.safety.caution import CautionInForce
from hardware.safety.collision import Bodies
from hardware.safety.command import CommandFault, RateLimit, check_way, read_command
from hardware.safety.estop import EStop, EStops
from hardware.safety.followed import Followed
from hardware.safety.measured import MeasuredJoints
from hardware.safety.motion import Reference
from hardware.safety.status import Caution, GateConfig, Reason, SafetyState, SafetyStatus, Verdict

# At rest after a stop: how long the drives settle before their measured position becomes the one to hold,
# and how long the reference takes to get there.
SETTLE_S = 0.2
GLIDE_S = 0.3
# Sooner after the last tick nothing moves yet: the rounding of positions would be a velocity.
SHORTEST_TICK_S = 1e-6

STOP_STATES = (SafetyState.STOPPING, SafetyState.STOPPED)


class SafetyGate:
    """Turns commands into a stream of setpoints that is safe to send; see the module's table.

    `bodies` are the robot's, if they were made before: that takes a while. `e_stops` are asked at every tick.
    """

    def __init__(
        self,
        robot: Robot,
        kinematics: Kinematics,
        config: GateConfig | None = None,
        bodies: Bodies | None = None,
        e_stops: Iterable[EStop] = (),
    ) -> None:
        self.robot = robot
        self.config = config = config or GateConfig()
        self._kinematics = kinematics
        self._bodies = bodies or Bodies(robot)
        # What the drives are told; meaningless before the first joint state.
        self._reference = Reference(kinematics, self._bodies, config.workspace_tolerance_m)
        self._state = SafetyState.IDLE
        self._reason, self._text = Reason.NONE, ""
        self._clock = 0.0  # the gate's own time: advances with now_s, never goes back
        self._now_s: float | None = None
        self._ticked: float  # from the first joint state on

        self._measured = MeasuredJoints(robot, config.state_timeout_s)

        self._followed: Followed | None = None  # the last accepted command, while ACTIVE
        self._posture_share = 1.0  # what nearness to a singularity leaves of its speed
        self._stamp_ns = 0
        self._rate = RateLimit(config.max_command_rate_hz)
        self._source = ""
        self._source_until = 0.0

        self._hold: NDArray[np.float64] | None = None  # the measured position, once stopped and settled
        self._rested: float  # since when it is stopped, once it is

        self._caution = CautionInForce(config)
        self._e_stops = EStops(e_stops)
        self._near = False
        self._accepted = self._refused = self._pauses = self._stops = 0
        self._counts: Counter[Reason] = Counter()

    @property
    def status(self) -> SafetyStatus:
        return SafetyStatus(
            self._state,
            self._reason,
            self._text,
            self._accepted,
            self._refused,
            self._pauses,
            self._measured.ignored,
            self._stops,
            self._caution.level,
            self._speed_share() * self._reference.nearness_share,
            self._caution.slows,
            self._caution.holds,
            dict(self._counts),
        )

    # What comes in

    def observe(self, state: JointState, now_s: float) -> None:
        """Take the newest measured joints. The first state is where the arm is held until a command comes."""
        self._advance(now_s)
        is_first = self._measured.positions is None
        positions = self._measured.take(state, self._clock)
        if is_first and positions is not None:
            self._reference.place(positions)
            self._ticked = self._clock

    def submit(self, command: JointCommand, now_s: float, image_age_s: float, source: str = "") -> Verdict:
        """Follow `command` from now on, or refuse it. `image_age_s` is the age of the image behind it."""
        self._advance(now_s)
        in_time = self._rate.allows(self._clock)
        if self._state in STOP_STATES:
            return self._refuse(self._reason, f"stopped ({self._text}); reset the gate first")
        measured = self._measured.positions
        if measured is None:
            return self._refuse(Reason.STATE_STALE, "no joint state seen yet; start the arm first")
        if not in_time:
            return self._refuse_and_stop(
                Reason.COMMAND_RATE, f"more than {self.config.max_command_rate_hz:g} commands a second"
            )
        if source != self._source and self._clock < self._source_until:
            return self._refuse_and_stop(
                Reason.SECOND_SOURCE,
                f"{source!r} commands the arm while {self._source!r} does; stop one of them",
            )
        limit = self.config.max_image_age_s
        if not -limit <= image_age_s <= limit:
            if self._followed is not None:
                self._followed.image_refused = True
            return self._refuse(
                Reason.IMAGE_STALE, f"image is {image_age_s:.3f} s old, at most {limit:g} s is allowed"
            )
        try:
            target = read_command(command, self.robot)
            check_way(self._way_to(target.positions, measured), target.duration_s, self.robot)
            self._check_place(target.positions)
        except CommandFault as fault:
            return self._refuse_and_stop(fault.reason, str(fault))
        # One that ends at rest comes to rest on its target rather than just before it.
        lifetime_s = target.duration_s + (self.robot.max_braking_s if target.ends_at_rest else 0.0)
        lifetime_s = min(lifetime_s, self.config.command_timeout_s)
        self._followed = Followed(target, self._clock, max(image_age_s, 0.0), lifetime_s)
        self._stamp_ns = target.stamp_ns
        self._posture_share = self._share_near_singularity(target.positions)
        self._source, self._source_until = source, self._clock + self.config.source_hold_s
        self._state = SafetyState.ACTIVE
        self._accepted += 1
        return Verdict(True)

    def caution(self, level: int, now_s: float) -> None:
        """Take the newest level of `Caution`: raised at once, lowered when it stays lower for a while."""
        self._advance(now_s)
        try:
            level = Caution(level)
        except ValueError:
            return self._stop(Reason.UNKNOWN_CAUTION, f"the level of caution is {level!r}, which is none")
        if level is Caution.STOP:
            return self._stop(Reason.SURPRISE, Reason.SURPRISE.text)
        self._caution.say(level, self._clock)

    def stop(self, now_s: float, reason: Reason = Reason.OPERATOR_STOP, text: str = "") -> None:
        """Bring the arm to rest and keep it there until `reset`. The first reason to stop is kept."""
        self._advance(now_s)
        self._stop(reason, text or reason.text)

    def e_stop(self, pressed: bool, now_s: float) -> None:
        """Take the state of an emergency stop: anything but False is pressed."""
        self._advance(now_s)
        self._e_stops.tell(pressed)
        self._ask_e_stops()

    def reset(self, now_s: float) -> Verdict:
        """Leave STOPPED and be ready for commands, from where the joints are measured now."""
        self._advance(now_s)
        if self._state is SafetyState.STOPPING:
            return Verdict(False, Reason.MOVING, "the arm is still coming to rest; reset again in a moment")
        if self._state is SafetyState.STOPPED:
            if name := self._e_stops.pressed():
                return Verdict(False, Reason.E_STOP, f"{name} is pressed; release it, then reset")
            measured = self._measured.positions
            if measured is None or self._measured.is_stale(self._clock):
                return Verdict(False, Reason.STATE_STALE, "no fresh joint state; start the arm, then reset")
            self._reference.place(measured)
            self._hold = None
            self._source, self._source_until = "", 0.0
            self._caution.clear()
            self._state, self._reason, self._text = SafetyState.IDLE, Reason.NONE, ""
        return Verdict(True)

    # What goes out

    def tick(self, now_s: float) -> JointCommand | None:
        """The next setpoint, or None before the first joint state.

        Its `duration_s` is the time since the tick before, its `stamp_ns` that of the command it comes from.
        """
        self._advance(now_s)
        self._ask_e_stops()
        measured = self._measured.positions
        if measured is None:
            return None
        since = self._clock - self._ticked
        dt = min(since, self.config.max_tick_s) if since >= SHORTEST_TICK_S else 0.0
        self._watch(measured)
        if dt > 0.0:
            self._ticked = self._clock
            self._move(dt)
        self._settle(measured)
        reference = self._reference
        setpoint = JointCommand(
            self.robot.joint_names, reference.positions, reference.velocities, dt, self._stamp_ns
        )
        setpoint.positions.flags.writeable = setpoint.velocities.flags.writeable = False
        return setpoint

    # How

    def _advance(self, now_s: float) -> None:
        """Bring the gate's own time forward. A clock that jumps back, or is no number, stands still."""
        elapsed = 0.0 if self._now_s is None else now_s - self._now_s
        if 0.0 < elapsed < float("inf"):
            self._clock += elapsed
        if math.isfinite(now_s):
            self._now_s = now_s

    def _check_place(self, target: NDArray[np.float64]) -> None:
        """Raise `CommandFault` if the arm must not be where `target` (J,) brings it."""
        if not self._reference.target_is_inside(target):
            raise CommandFault(Reason.WORKSPACE, Reason.WORKSPACE.text)
        if not self._reference.target_is_clear(target):
            distance, first, second = self._bodies.nearest(target)
            raise CommandFault(
                Reason.COLLISION, f"the target brings {first} within {1e3 * distance:.0f} mm of {second}"
            )

    def _share_near_singularity(self, target: NDArray[np.float64]) -> float:
        """What is left of the speed of a motion that makes the arm's Jacobian worse."""
        slow, stop = self.config.singularity_slow, self.config.singularity_stop
        there = self._kinematics.condition(target)
        if there <= slow or there <= self._kinematics.condition(self._reference.positions):
            return 1.0
        if self._posture_share == 1.0:
            self._counts[Reason.NEAR_SINGULARITY] += 1
        return max(0.0, (stop - there) / (stop - slow))

    def _ask_e_stops(self) -> None:
        if name := self._e_stops.pressed():
            self._stop(Reason.E_STOP, f"{name} is pressed")

    def _watch(self, measured: NDArray[np.float64]) -> None:
        """Stop if the arm has gone silent or does not follow."""
        if self._state in STOP_STATES:
            return
        if self._measured.is_stale(self._clock):
            silent_s = self._measured.silent_s(self._clock)
            self._stop(Reason.STATE_STALE, f"no joint state for {silent_s:.3f} s")
            return
        error = np.abs(measured - self._reference.positions)
        if error.max() > self.config.max_tracking_error:
            joint = self.robot.joint_names[int(error.argmax())]
            self._stop(
                Reason.TRACKING, f"{joint} is {error.max():.3f} away from its setpoint; it may be blocked"
            )

    def _move(self, dt: float) -> None:
        """The reference `dt` later: towards the command's target or the position to hold, or to rest."""
        reference, followed = self._reference, self._followed
        if followed is not None and followed.is_live(self._clock):
            goal, share = followed.target.positions, self._speed_share()
            left_s = followed.left_s(self._clock - dt)
            if followed.target.ends_at_rest:
                reference.settle(goal, left_s, dt, share)
            else:
                rest_within_s = self.config.rest_after_image_s - followed.image_is_old_s(self._clock)
                reference.follow(goal, left_s, dt, share, rest_within_s)
        elif self._hold is not None:
            reference.settle(self._hold, self._rested + SETTLE_S + GLIDE_S - (self._clock - dt), dt)
        else:
            reference.brake(dt)
        near = reference.nearness_share < 1.0
        if near and not self._near:
            self._counts[Reason.NEAR_COLLISION] += 1
        self._near = near

    def _speed_share(self) -> float:
        """What caution, the arm's posture and stops leave of the speed."""
        return 0.0 if self._state in STOP_STATES else self._caution.speed_share * self._posture_share

    def _settle(self, measured: NDArray[np.float64]) -> None:
        """Change state where the motion has ended, or should have been continued and was not."""
        at_rest, followed = self._reference.at_rest, self._followed
        if followed is not None and not followed.is_live(self._clock):
            if followed.target.ends_at_rest:
                if at_rest:
                    self._followed, self._state = None, SafetyState.IDLE
                return
            self._pauses += not followed.paused
            followed.paused = True
            silent_s = followed.silent_s(self._clock)
            if silent_s >= self.config.fault_after_s:
                reason = Reason.IMAGE_STALE if followed.image_refused else Reason.COMMAND_STALE
                self._stop(reason, f"{reason.text} (last accepted {silent_s:.3f} s ago)")
        elif self._state is SafetyState.STOPPING and at_rest:
            self._state, self._rested = SafetyState.STOPPED, self._clock
        elif self._state is SafetyState.STOPPED and self._hold is None and self._has_settled():
            self._hold = np.clip(measured, self.robot.position_lower, self.robot.position_upper)

    def _way_to(self, target: NDArray[np.float64], measured: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far each joint has to go from its reference to `target`.

        A gripper that is closed on something is measured behind its reference for as long as it holds it, and
        its commands begin there: it alone may count from where it is measured.
        """
        way = target - self._reference.positions
        if self.robot.gripper is not None:
            from_measured = float(target[-1] - measured[-1])
            way[-1] = min(float(way[-1]), from_measured, key=abs)
        return way

    def _has_settled(self) -> bool:
        """Whether the measured joints are those of an arm at rest, to be held from now on.

        They are taken once, not continuously: a reference that follows a sagging arm lets it sag on.
        """
        return self._clock - self._rested >= SETTLE_S and not self._measured.is_stale(self._clock)

    def _refuse(self, reason: Reason, text: str) -> Verdict:
        self._refused += 1
        self._counts[reason] += 1
        return Verdict(False, reason, text)

    def _refuse_and_stop(self, reason: Reason, text: str) -> Verdict:
        self._refused += 1
        self._stop(reason, text)
        return Verdict(False, reason, text)

    def _stop(self, reason: Reason, text: str) -> None:
        if self._state in STOP_STATES:
            return
        self._state, self._reason, self._text = SafetyState.STOPPING, reason, text
        self._followed = None
        self._stops += 1
        self._counts[reason] += 1
