"""The safety gate: the last thing between a planner and the drives.

    gate = SafetyGate(robot, kinematics)
    gate.observe(state, now_s)                       # each joint state
    gate.submit(command, now_s, image_age_s)         # each command: accepted, or refused with a reason
    gate.caution(level, now_s)                       # if the commander can say how surprised it is
    setpoint = gate.tick(now_s)                      # ~100 times a second: what the drives get

A learned planner may send anything, at any time, or nothing any more. Whatever it does, the setpoints keep to
the joints' position, velocity and acceleration limits and the tool to its workspace, and a motion that nobody
continues comes to rest. `now_s` is a steady clock in seconds; one thread calls the gate.

What leads to what (`Reason`):

| what is seen                                       | command | arm                                      |
|----------------------------------------------------|---------|------------------------------------------|
| MISSING_JOINT, UNKNOWN_JOINT, DUPLICATE_JOINT      | refused | stops until reset: the sender is broken  |
| MALFORMED, NOT_FINITE                              | refused | stops until reset: the sender is broken  |
| POSITION_LIMIT, VELOCITY_LIMIT, WORKSPACE          | refused | stops until reset: the sender is broken  |
| SECOND_SOURCE: another source owns the arm         | refused | stops until reset                        |
| IMAGE_STALE: image too old, too new, or of no age  | refused | goes on; stops when its command runs out |
| STATE_STALE before the first joint state           | refused | no setpoints yet                         |
| already stopped                                    | refused | stays stopped                            |
| command ran out, final velocities zero             |         | is at rest: IDLE                         |
| command ran out, final velocities not zero         |         | brakes; goes on if the next comes        |
| COMMAND_STALE: ... and none within `fault_after_s` |         | stops until reset                        |
| STATE_STALE: joint states stop                     |         | stops until reset                        |
| TRACKING: measured joints far from their setpoints |         | stops until reset                        |
| OPERATOR_STOP: `stop()`                            |         | stops until reset                        |
| caution SLOW                                       |         | goes on at `slow_share` of the speed     |
| caution HOLD                                       |         | brakes to rest; goes on when calm again  |
| SURPRISE: caution STOP                             |         | stops until reset                        |
| UNKNOWN_CAUTION: a level that is none              |         | stops until reset: the sender is broken  |

A COMMAND_STALE is called IMAGE_STALE where stale images were refused in the meantime.

To stop is to decelerate within limits to rest, then to hold the position the joints are measured at.
Acceleration is never a reason: motion is shaped to it. Slow-downs at the workspace edge and at joint limits
are not faults either. A joint state that is incomplete or not finite is ignored, so STATE_STALE follows.

Caution rises at once and is lowered only after lower levels have come, without a gap, for `calm_after_s`: one
that nobody renews stays in force. Whoever never speaks of caution moves the arm without.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hardware.arm.contract import JointCommand, JointState
from hardware.kinematics import Kinematics
from hardware.robot import Robot
from hardware.safety.command import CommandFault, Target, as_array, check_velocity, read_command
from hardware.safety.motion import Motion
from hardware.safety.status import Caution, GateConfig, Reason, SafetyState, SafetyStatus, Verdict

# At rest after a stop: how long the drives settle before their measured position becomes the one to hold,
# and how long the reference takes to get there.
SETTLE_S = 0.2
GLIDE_S = 0.3
# A command of 0.1 s is followed for twelve ticks at 120 Hz, whatever the sum of their lengths rounds to.
CLOCK_ROUNDING_S = 1e-6


class SafetyGate:
    """Turns commands into a stream of setpoints that is safe to send; see the module's table."""

    def __init__(self, robot: Robot, kinematics: Kinematics, config: GateConfig | None = None) -> None:
        self.robot = robot
        self.config = config = config or GateConfig()
        self._motion = Motion(kinematics, config.max_braking_s, config.workspace_tolerance_m)
        self._state = SafetyState.IDLE
        self._reason, self._text = Reason.NONE, ""
        self._clock = 0.0  # the gate's own time: advances with now_s, never goes back
        self._now_s: float | None = None
        self._ticked = 0.0

        self._q: NDArray[np.float64] | None = None  # the reference: what the drives are told
        self._v = np.zeros(len(robot.joints))
        self._measured = np.zeros(len(robot.joints))
        self._observed = 0.0

        self._target: Target | None = None  # of the last accepted command, while ACTIVE
        self._arrived = 0.0
        self._image_age_s = 0.0  # when that command arrived
        self._paused = False
        self._stamp_ns = 0
        self._source = ""
        self._source_until = 0.0
        self._image_refused = False

        self._hold: NDArray[np.float64] | None = None  # the measured position, once stopped and settled
        self._rested = 0.0

        self._caution = Caution.CALM
        self._lower: Caution | None = None  # the highest of the lower levels that came since `_lower_since`
        self._lower_since = self._cautioned = 0.0
        self._accepted = self._refused = self._pauses = self._ignored = self._stops = 0
        self._slows = self._holds = 0

    @property
    def status(self) -> SafetyStatus:
        return SafetyStatus(
            self._state,
            self._reason,
            self._text,
            self._accepted,
            self._refused,
            self._pauses,
            self._ignored,
            self._stops,
            self._caution,
            self._speed_share(),
            self._slows,
            self._holds,
        )

    # What comes in

    def observe(self, state: JointState, now_s: float) -> None:
        """Take the newest measured joints. The first state is where the arm is held until a command comes."""
        self._advance(now_s)
        try:
            ordered = state.ordered(self.robot.joint_names)
            positions, velocities = as_array(ordered.positions), as_array(ordered.velocities)
        except (KeyError, IndexError, TypeError, ValueError):
            self._ignored += 1
            return
        complete = positions.shape == velocities.shape == self._v.shape
        if not (complete and np.isfinite(positions).all() and np.isfinite(velocities).all()):
            self._ignored += 1
            return
        self._measured, self._observed = positions, self._clock
        if self._q is None:
            self._q, self._ticked = positions, self._clock

    def submit(self, command: JointCommand, now_s: float, image_age_s: float, source: str = "") -> Verdict:
        """Follow `command` from now on, or refuse it. `image_age_s` is the age of the image behind it."""
        self._advance(now_s)
        if self._state in (SafetyState.STOPPING, SafetyState.STOPPED):
            return self._refuse(self._reason, f"stopped ({self._text}); reset the gate first")
        if self._q is None:
            return self._refuse(Reason.STATE_STALE, "no joint state seen yet; start the arm first")
        if source != self._source and self._clock < self._source_until:
            return self._refuse_and_stop(
                Reason.SECOND_SOURCE,
                f"{source!r} commands the arm while {self._source!r} does; stop one of them",
            )
        limit = self.config.max_image_age_s
        if not -limit <= image_age_s <= limit:
            self._image_refused = True
            return self._refuse(
                Reason.IMAGE_STALE, f"image is {image_age_s:.3f} s old, at most {limit:g} s is allowed"
            )
        try:
            target = read_command(command, self.robot)
            check_velocity(self._way_to(target.positions) / target.duration_s, self.robot)
        except CommandFault as fault:
            return self._refuse_and_stop(fault.reason, fault.text)
        if not self._motion.target_is_inside(target.positions, self._q):
            return self._refuse_and_stop(Reason.WORKSPACE, Reason.WORKSPACE.text)
        self._target, self._arrived, self._stamp_ns = target, self._clock, target.stamp_ns
        self._image_age_s = max(image_age_s, 0.0)
        self._paused = self._image_refused = False
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
        silent_s, self._cautioned = self._clock - self._cautioned, self._clock
        if level >= self._caution:
            self._slows += self._caution < level is Caution.SLOW
            self._holds += self._caution < level is Caution.HOLD
            self._caution, self._lower = level, None
        elif self._lower is None or silent_s > self.config.caution_timeout_s:
            self._lower, self._lower_since = level, self._clock
        else:
            self._lower = max(self._lower, level)
            if self._clock - self._lower_since >= self.config.calm_after_s:
                self._caution, self._lower = self._lower, None

    def stop(self, now_s: float, reason: Reason = Reason.OPERATOR_STOP, text: str = "") -> None:
        """Bring the arm to rest and keep it there until `reset`. The first reason to stop is kept."""
        self._advance(now_s)
        self._stop(reason, text or reason.text)

    def reset(self, now_s: float) -> Verdict:
        """Leave STOPPED and be ready for commands, from where the joints are measured now."""
        self._advance(now_s)
        if self._state is SafetyState.STOPPING:
            return Verdict(False, Reason.MOVING, "the arm is still coming to rest; reset again in a moment")
        if self._state is SafetyState.STOPPED:
            if self._state_is_stale():
                return Verdict(False, Reason.STATE_STALE, "no fresh joint state; start the arm, then reset")
            self._q, self._v = self._measured, np.zeros_like(self._v)
            self._hold = None
            self._source, self._source_until = "", 0.0
            self._caution, self._lower = Caution.CALM, None
            self._state, self._reason, self._text = SafetyState.IDLE, Reason.NONE, ""
        return Verdict(True)

    # What goes out

    def tick(self, now_s: float) -> JointCommand | None:
        """The next setpoint, or None before the first joint state.

        Its `duration_s` is the time since the tick before, its `stamp_ns` that of the command it comes from.
        """
        self._advance(now_s)
        if self._q is None:
            return None
        dt = min(self._clock - self._ticked, self.config.max_tick_s)
        self._ticked = self._clock
        self._watch(self._q)
        if dt > 0.0:
            self._q, self._v = self._move(self._q, dt)
        self._settle()
        setpoint = JointCommand(self.robot.joint_names, self._q, self._v, dt, self._stamp_ns)
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

    def _watch(self, q: NDArray[np.float64]) -> None:
        """Stop if the arm has gone silent or does not follow."""
        if self._state in (SafetyState.STOPPING, SafetyState.STOPPED):
            return
        if self._state_is_stale():
            self._stop(Reason.STATE_STALE, f"no joint state for {self._clock - self._observed:.3f} s")
            return
        error = np.abs(self._measured - q)
        if error.max() > self.config.max_tracking_error:
            joint = self.robot.joint_names[int(error.argmax())]
            self._stop(
                Reason.TRACKING, f"{joint} is {error.max():.3f} away from its setpoint; it may be blocked"
            )

    def _move(self, q: NDArray[np.float64], dt: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The reference `dt` later: towards the command's target or the position to hold, or to rest."""
        motion, v = self._motion, self._v
        if self._target is not None and self._is_live():
            left = self._arrived + self._target.duration_s - (self._clock - dt)
            wanted = motion.towards(self._target.positions, q, left, dt, rest_there=self._target.ends_at_rest)
            wanted *= self._speed_share()
            v = motion.step_in_workspace(wanted, q, v, dt)
        elif self._hold is not None:
            left = self._rested + SETTLE_S + GLIDE_S - (self._clock - dt)
            v = motion.step(motion.towards(self._hold, q, left, dt, rest_there=True), q, v, dt)
        elif v.any():
            v = motion.step(np.zeros_like(v), q, v, dt)
        return q + v * dt, v

    def _speed_share(self) -> float:
        """What caution and stops leave of the speed."""
        if self._caution is Caution.HOLD or self._state in (SafetyState.STOPPING, SafetyState.STOPPED):
            return 0.0
        return self.config.slow_share if self._caution is Caution.SLOW else 1.0

    def _settle(self) -> None:
        """Change state where the motion has ended, or should have been continued and was not."""
        at_rest = not self._v.any()
        if self._target is not None and not self._is_live():
            if self._target.ends_at_rest:
                if at_rest:
                    self._target, self._state = None, SafetyState.IDLE
                return
            self._pauses += not self._paused
            self._paused = True
            silent_s = self._clock - self._arrived
            if silent_s >= self.config.fault_after_s:
                reason = Reason.IMAGE_STALE if self._image_refused else Reason.COMMAND_STALE
                self._stop(reason, f"{reason.text} (last accepted {silent_s:.3f} s ago)")
        elif self._state is SafetyState.STOPPING and at_rest:
            self._state, self._rested = SafetyState.STOPPED, self._clock
        elif self._state is SafetyState.STOPPED and self._hold is None and self._has_settled():
            lower, upper = self.robot.position_lower, self.robot.position_upper
            self._hold = np.minimum(np.maximum(self._measured, lower), upper)

    def _is_live(self) -> bool:
        """Whether the command that is being followed has not run out by now."""
        assert self._target is not None
        lifetime = self._target.duration_s
        if self._target.ends_at_rest:
            lifetime += self.config.max_braking_s  # to come to rest on the target rather than just before it
        else:
            lifetime = min(lifetime, self.config.max_motion_age_s - self._image_age_s)
        lifetime = min(lifetime, self.config.command_timeout_s)
        return self._clock - self._arrived <= lifetime + CLOCK_ROUNDING_S

    def _way_to(self, target: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far each joint has to go from its reference to `target`.

        A gripper that is closed on something is measured behind its reference for as long as it holds it, and
        its commands begin there: it alone may count from where it is measured.
        """
        assert self._q is not None
        way = target - self._q
        if self.robot.gripper is not None:
            from_measured = float(target[-1] - self._measured[-1])
            way[-1] = min(float(way[-1]), from_measured, key=abs)
        return way

    def _has_settled(self) -> bool:
        """Whether the measured joints are those of an arm at rest, to be held from now on.

        They are taken once, not continuously: a reference that follows a sagging arm lets it sag on.
        """
        return self._clock - self._rested >= SETTLE_S and not self._state_is_stale()

    def _state_is_stale(self) -> bool:
        return self._clock - self._observed > self.config.state_timeout_s

    def _refuse(self, reason: Reason, text: str) -> Verdict:
        self._refused += 1
        return Verdict(False, reason, text)

    def _refuse_and_stop(self, reason: Reason, text: str) -> Verdict:
        self._stop(reason, text)
        return self._refuse(reason, text)

    def _stop(self, reason: Reason, text: str) -> None:
        if self._state in (SafetyState.STOPPING, SafetyState.STOPPED):
            return
        self._state, self._reason, self._text = SafetyState.STOPPING, reason, text
        self._target = None
        self._stops += 1
