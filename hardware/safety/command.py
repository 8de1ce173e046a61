"""Reading a joint command with distrust: what is wrong with it in itself, wherever the arm is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hardware.arm.contract import JointCommand
from hardware.robot import Robot
from hardware.safety.status import Reason

# Rounding in a command that was clipped to a limit elsewhere is not a fault.
POSITION_ROUNDING = 1e-6
VELOCITY_ROUNDING = 1.001


class CommandFault(Exception):
    """A command that must not be followed, and why."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class Target:
    """A command in the robot's joint order: `positions` (J,) rad, within limits but for rounding."""

    positions: NDArray[np.float64]
    ends_at_rest: bool
    duration_s: float
    stamp_ns: int


def read_command(command: JointCommand, robot: Robot) -> Target:
    """`command` in the robot's joint order. Raises `CommandFault` on names, shapes, values or limits."""
    names, expected = tuple(command.names), robot.joint_names
    if names != expected:
        _check_names(names, expected)
    try:
        positions, velocities = as_array(command.positions), as_array(command.velocities)
        duration_s = float(command.duration_s)
    except (TypeError, ValueError) as error:
        raise CommandFault(Reason.MALFORMED, "positions, velocities or duration_s are not numbers") from error
    if not positions.shape == velocities.shape == (len(expected),):
        raise CommandFault(
            Reason.MALFORMED,
            f"positions {positions.shape}, velocities {velocities.shape} do not fit {len(expected)} joints",
        )
    if not (np.isfinite(positions).all() and np.isfinite(velocities).all() and np.isfinite(duration_s)):
        raise CommandFault(Reason.NOT_FINITE, "the command holds a number that is NaN or infinite")
    if duration_s <= 0.0:
        raise CommandFault(Reason.MALFORMED, f"duration_s = {duration_s:g} is not positive")
    if names != expected:
        order = [names.index(name) for name in expected]
        positions, velocities = positions[order], velocities[order]
    beyond = np.maximum(robot.position_lower - positions, positions - robot.position_upper)
    if beyond.max() > POSITION_ROUNDING:
        i = int(beyond.argmax())
        joint = robot.joints[i]
        raise CommandFault(
            Reason.POSITION_LIMIT,
            f"target {positions[i]:.3f} of {joint.name} is outside {joint.lower:g} to {joint.upper:g}",
        )
    share = np.abs(velocities) / robot.velocity_limits
    if share.max() > VELOCITY_ROUNDING:
        i = int(share.argmax())
        joint = robot.joints[i]
        raise CommandFault(
            Reason.VELOCITY_LIMIT,
            f"{joint.name} would move at {abs(velocities[i]):.3g}, its limit is {joint.velocity:g}",
        )
    return Target(positions, not velocities.any(), duration_s, command.stamp_ns)


def check_way(way: NDArray[np.float64], duration_s: float, robot: Robot) -> None:
    """Raise `CommandFault` if a joint cannot go its `way` (J,) in `duration_s`."""
    share = np.abs(way) / (robot.velocity_limits * duration_s)
    if share.max() > VELOCITY_ROUNDING:
        i = int(share.argmax())
        joint = robot.joints[i]
        raise CommandFault(
            Reason.DISCONTINUITY,
            f"{joint.name} would jump by {abs(way[i]):.3g} in {duration_s:.3g} s, its velocity limit is "
            f"{joint.velocity:g}",
        )


class RateLimit:
    """Lets `rate_hz` commands a second through, and a tenth of that at once."""

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._most = max(1.0, 0.1 * rate_hz)
        self._left = self._most
        self._counted = 0.0

    def allows(self, clock_s: float) -> bool:
        """Whether one more command, at `clock_s`, keeps to the rate."""
        self._left = min(self._most, self._left + (clock_s - self._counted) * self._rate_hz)
        self._counted = clock_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


def as_array(values: ArrayLike) -> NDArray[np.float64]:
    """A copy of `values` as float64, so that nobody changes them afterwards."""
    return np.array(values, dtype=np.float64)


def _check_names(names: tuple[str, ...], expected: tuple[str, ...]) -> None:
    for reason, wrong in (
        (Reason.UNKNOWN_JOINT, [name for name in names if name not in expected]),
        (Reason.MISSING_JOINT, [name for name in expected if name not in names]),
        (Reason.DUPLICATE_JOINT, [name for name in expected if names.count(name) > 1]),
    ):
        if wrong:
            raise CommandFault(reason, f"{reason.text}: {wrong[0]}")
