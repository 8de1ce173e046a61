"""Where motion comes from while episodes are recorded, and what turns a tool's velocity into commands.

Whatever a source says goes through the safety gate; it says how far to go in the next tenth of a second, and
nothing while the arm is to stay where it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hardware.arm.contract import JointCommand, JointState
from hardware.errors import ArmError
from hardware.kinematics import AXES, GRIPPER, CartesianServo, Kinematics, box_text
from hardware.robot import Robot

# A command reaches this far ahead; the next one comes well before.
COMMAND_S = 0.1
# How far (m) the tool may be from where it was sent before it is led on from where it is.
NEAR_M = 0.03
# The gate allows for as much (`GateConfig.workspace_tolerance_m`).
OUTSIDE_M = 0.002

Vector = NDArray[np.float64]


class Source(Protocol):
    """A source of motion. `now_s` is a steady clock; `help` says how to use it, in a line."""

    help: str

    def press(self, key: str, now_s: float) -> None:
        """A key of the terminal that the recorder has no use for."""
        ...

    def command(self, state: JointState, now_s: float) -> JointCommand | None:
        """What to do now; None: stay. Its stamp is that of `state`. Raises ArmError if a device is gone."""
        ...

    def close(self) -> None: ...


class ToolMotion:
    """Velocities of the tool → commands. The axes that do not move are held where the tool was sent to.

    Not where it is measured: an arm that sags a little would be told to stay there, and sag again.
    """

    def __init__(self, robot: Robot, kinematics: Kinematics, height_m: float | None = None) -> None:
        """With `height_m` the tool stays at that height. Raises ValueError if it is not in the workspace."""
        self._robot, self._kinematics = robot, kinematics
        fixed = {} if height_m is None else {"z": height_m}
        axes = [axis for axis in AXES if axis not in fixed]
        self._moving = [AXES.index(axis) for axis in axes]
        self._grips = robot.gripper is not None
        self._servo = CartesianServo(kinematics, (*axes, *((GRIPPER,) if self._grips else ())), fixed)
        self._target: Vector | None = None
        self._at_s = 0.0
        self._resting = True

    def tool(self, state: JointState) -> Vector:
        """The tool's tip (3,) m, as measured."""
        return self._kinematics.tool_position(state.ordered(self._robot.joint_names).positions)

    def command(
        self, state: JointState, now_s: float, velocity: ArrayLike, grip: float = 0.0
    ) -> JointCommand | None:
        """On with `velocity` (3,) m/s, and the gripper's joint with `grip` /s. None: at rest, and told so."""
        wanted = np.zeros(3)
        wanted[self._moving] = np.asarray(velocity, dtype=np.float64)[self._moving]
        moves = bool(wanted.any()) or grip != 0.0
        if not moves and self._resting:
            return None
        tool = self.tool(state)
        if self._target is None or np.abs(self._target - tool).max() > NEAR_M:
            self._target = tool
        elapsed_s = 0.0 if self._resting else min(now_s - self._at_s, COMMAND_S)
        self._at_s, self._resting = now_s, not moves
        low, high = self._robot.workspace_min, self._robot.workspace_max
        self._target = np.clip(self._target + wanted * elapsed_s, low, high)
        way = self._target + wanted * COMMAND_S - tool
        displacement = np.append(way[self._moving], [grip * COMMAND_S] * self._grips)
        command = self._servo.joint_command(state, displacement, COMMAND_S, state.stamp_ns)
        return command if moves else replace(command, velocities=np.zeros_like(command.velocities))


def check_begins_inside(robot: Robot, kinematics: Kinematics, state: JointState) -> None:
    """Raises ArmError if the tool is outside the workspace, where every first motion would be refused."""
    tool = kinematics.tool_position(state.ordered(robot.joint_names).positions)
    low, high = robot.workspace_min - OUTSIDE_M, robot.workspace_max + OUTSIDE_M
    if not ((low <= tool) & (tool <= high)).all():
        at = ", ".join(f"{axis} {place:.3f}" for axis, place in zip(AXES, tool))
        raise ArmError(
            f"the tool is at {at} m, outside the workspace of {robot.name} "
            f"({box_text(robot.workspace_min, robot.workspace_max)}): move it inside by hand, with its power "
            "off, and start again"
        )


def limited(way: Vector, most: float) -> Vector:
    """`way`, no longer than `most`."""
    length = float(np.linalg.norm(way))
    return way if length <= most else way * (most / length)


def direction(keys: Iterable[str], meaning: dict[str, tuple[int, int]]) -> Vector:
    """(3,): the sum of what pressed `keys` mean, each an axis and a sign."""
    found = np.zeros(3)
    for key in keys:
        axis, sign = meaning[key]
        found[axis] += sign
    return found
