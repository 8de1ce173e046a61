"""Where the tool is, and which joints take it somewhere: pinocchio on the robot's URDF.

    kinematics = Kinematics(robot)
    servo = CartesianServo(kinematics, axes=("x", "y"), fixed={"z": 0.025})
    command = servo.joint_command(state, displacement, duration_s=0.1, stamp_ns=frame.stamp_ns)

`CartesianServo` turns a planner's action (tool displacement in metres) into a `JointCommand`. Positions are
in metres in the robot's base frame, rotations are 3×3 matrices whose columns are the tool's axes in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pinocchio
from numpy.typing import ArrayLike, NDArray

from hardware.arm.contract import JointCommand, JointState
from hardware.robot import Robot

AXES = ("x", "y", "z")
GRIPPER = "gripper"

MAX_ITERATIONS = 6
POSITION_TOLERANCE_M = 2e-5
ROTATION_TOLERANCE_RAD = 2e-4
DAMPING = 1e-3
# The share of the way to the home posture that spare joints (the Panda's elbow) go in one solution. Without
# it the elbow would drift, and the same tool pose would come to mean a different picture.
POSTURE_GAIN = 0.05

# What the servo corrects on its own (fixed axes, orientation, a tool outside the workspace) it corrects no
# faster than this.
CORRECTION_M_S = 0.2
CORRECTION_RAD_S = 1.0
# Near the end of its reach a motion that would take a joint beyond this share of its velocity limit is
# shortened. The rest is for the gate's setpoint, which may be ahead of the measured joints.
SPEED_SHARE = 0.9


class InverseSolution(NamedTuple):
    """The best joints found for a tool pose, and how far from it their tool is."""

    positions: NDArray[np.float64]
    position_error_m: float
    rotation_error_rad: float


class Kinematics:
    """Forward and inverse kinematics of one robot. Joint arrays are (J,) in the order of `robot.joints`."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        model = pinocchio.buildModelFromUrdf(str(robot.urdf))
        spare = [model.getJointId(name) for name in model.names[1:] if name not in robot.joint_names]
        self._model = pinocchio.buildReducedModel(model, spare, pinocchio.neutral(model)) if spare else model
        self._data = self._model.createData()
        self._tool = self._model.getFrameId(robot.tool_link)
        self._damping = DAMPING**2 * np.eye(6)
        self._identity = np.eye(len(robot.joints))

    def tool_position(self, q: NDArray[np.float64]) -> NDArray[np.float64]:
        """The tool tip (3,) at joint positions `q`."""
        pinocchio.framesForwardKinematics(self._model, self._data, q)
        return self._data.oMf[self._tool].translation.copy()

    def tool_state(self, q: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the arm knows of its tool, in metres: its tip (3,), and the gripper's joint if it has one."""
        position = self.tool_position(q)
        return position if self.robot.gripper is None else np.append(position, q[-1])

    def tool_pose(self, q: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The tool tip (3,) and its rotation (3, 3) at joint positions `q`."""
        pinocchio.framesForwardKinematics(self._model, self._data, q)
        pose = self._data.oMf[self._tool]
        return pose.translation.copy(), pose.rotation.copy()

    def joint_origins(self, q: NDArray[np.float64]) -> NDArray[np.float64]:
        """(J, 3): where the joints themselves are at joint positions `q`."""
        pinocchio.forwardKinematics(self._model, self._data, q)
        return np.array([pose.translation for pose in self._data.oMi.tolist()[1:]])

    def jacobian(self, q: NDArray[np.float64]) -> NDArray[np.float64]:
        """(6, J): joint velocities to the tool tip's linear, then angular velocity, along the base's axes."""
        return pinocchio.computeFrameJacobian(
            self._model, self._data, q, self._tool, pinocchio.ReferenceFrame.LOCAL_WORLD_ALIGNED
        )

    def condition(self, q: NDArray[np.float64]) -> float:
        """The condition number of the arm's Jacobian at `q`; it grows without end towards a singularity.

        Metres and radians are taken as equals, as MoveIt Servo does. The gripper's joint does not count.
        """
        jacobian = self.jacobian(q)
        arm = jacobian if self.robot.gripper is None else jacobian[:, :-1]
        values = np.linalg.svd(arm, compute_uv=False)
        return float(values[0] / max(values[-1], 1e-9))

    def inverse(
        self, target_position: ArrayLike, target_rotation: NDArray[np.float64], q_start: NDArray[np.float64]
    ) -> InverseSolution:
        """Joint positions near `q_start`, within limits, that bring the tool to the target.

        Damped least squares; always answers with the best it found, and the caller decides whether the errors
        are small enough. Joints that the task leaves free go a little way home.
        """
        robot = self.robot
        target = np.asarray(target_position, dtype=np.float64)
        error = np.empty(6)
        best: InverseSolution | None = None
        q = np.minimum(np.maximum(q_start, robot.position_lower), robot.position_upper)
        for i in range(MAX_ITERATIONS + 1):
            jacobian = self.jacobian(q)  # also places the joints, so the frame costs next to nothing more
            pose = pinocchio.updateFramePlacement(self._model, self._data, self._tool)
            error[:3] = target - pose.translation
            error[3:] = pose.rotation @ pinocchio.log3(pose.rotation.T @ target_rotation)
            solution = InverseSolution(q, _norm(error[:3]), _norm(error[3:]))
            if best is None or _residual(solution) <= _residual(best):
                best = solution
            arrived = (
                solution.position_error_m < POSITION_TOLERANCE_M
                and solution.rotation_error_rad < ROTATION_TOLERANCE_RAD
            )
            if (arrived and i > 0) or i == MAX_ITERATIONS:
                break
            normal = jacobian @ jacobian.T + self._damping
            if i == 0:  # the posture step comes first, so that the iterations after it undo its side effects
                posture = POSTURE_GAIN * (robot.home - q)
                step = jacobian.T @ np.linalg.solve(normal, error - jacobian @ posture) + posture
            else:
                step = jacobian.T @ np.linalg.solve(normal, error)
            q = np.minimum(np.maximum(q + step, robot.position_lower), robot.position_upper)
        assert best is not None
        return best


class CartesianServo:
    """Turns tool displacements on `axes` into joint commands; holds the `fixed` axes and home's orientation.

    `fixed` gives metres in the base frame for every axis that is not in `axes`. A last axis "gripper" moves
    the gripper's joint, no faster than its limit; a gripper that is not among the axes stays as it is.
    """

    def __init__(
        self, kinematics: Kinematics, axes: tuple[str, ...], fixed: Mapping[str, float] | None = None
    ) -> None:
        fixed = dict(fixed or {})
        robot = kinematics.robot
        self.axes = tuple(axes)
        self._grips = self.axes[-1:] == (GRIPPER,)
        moving = self.axes[:-1] if self._grips else self.axes
        if sorted((*moving, *fixed)) != list(AXES):
            raise ValueError(f"axes {axes} and fixed {tuple(fixed)} must name each of x, y, z exactly once")
        if self._grips and robot.gripper is None:
            raise ValueError(f"axes {axes} move a gripper, and robot {robot.name} has none")
        self._kinematics = kinematics
        self._active = [AXES.index(axis) for axis in moving]
        self._held = [AXES.index(axis) for axis in fixed]
        self._held_values = np.array(list(fixed.values()), dtype=np.float64)
        for axis, value in fixed.items():
            low, high = robot.workspace.min[AXES.index(axis)], robot.workspace.max[AXES.index(axis)]
            if not low <= value <= high:
                raise ValueError(
                    f"fixed {axis} = {value:g} m is outside the workspace ({low:g} to {high:g} m)"
                )
        self._rotation = kinematics.tool_pose(robot.home)[1]

    def joint_command(
        self, state: JointState, displacement: ArrayLike, duration_s: float, stamp_ns: int
    ) -> JointCommand:
        """The command that moves the tool by `displacement` (A,) m from where it is measured in `duration_s`.

        The target is clipped into the workspace, and the motion shortened to what the joints can do in that
        time. A displacement of exactly zero makes a command that ends
        at rest; any other ends at the mean velocity of the motion, which promises a further command.
        Raises ValueError if `displacement` is not finite or has the wrong shape.
        """
        displacement = np.asarray(displacement, dtype=np.float64)
        if displacement.shape != (len(self.axes),):
            raise ValueError(
                f"displacement has shape {displacement.shape}, axes {self.axes} need {len(self.axes)}"
            )
        if not np.isfinite(displacement).all():
            raise ValueError(f"displacement is not finite: {displacement}")
        robot = self._kinematics.robot
        q = state.ordered(robot.joint_names).positions
        position, rotation = self._kinematics.tool_pose(q)
        motion = displacement[: len(self._active)]
        target = position.copy()
        target[self._active] += motion
        target[self._held] = self._held_values
        target = np.minimum(np.maximum(target, robot.workspace_min), robot.workspace_max)
        bound = np.full(3, CORRECTION_M_S * duration_s)
        bound[self._active] += np.abs(motion)
        target = position + np.minimum(np.maximum(target - position, -bound), bound)
        turn = pinocchio.log3(rotation.T @ self._rotation)
        angle = _norm(turn)
        if angle > (limit := CORRECTION_RAD_S * duration_s):
            turn *= limit / angle
        goal = self._kinematics.inverse(target, rotation @ pinocchio.exp3(turn), q).positions
        if robot.gripper is not None:
            goal[-1] = q[-1]  # it moves by the displacement alone, below, and does not slow the arm
        fastest_share = float((np.abs(goal - q) / (robot.velocity_limits * duration_s)).max())
        goal = q + (goal - q) * min(1.0, SPEED_SHARE / max(fastest_share, 1e-9))
        if robot.gripper is not None:
            grip = displacement[-1] if self._grips else 0.0
            fastest = robot.velocity_limits[-1] * duration_s
            opening = q[-1] + min(max(grip, -fastest), fastest)
            goal[-1] = min(max(opening, robot.position_lower[-1]), robot.position_upper[-1])
        moves = displacement.any()
        velocities = (goal - q) / duration_s if moves else np.zeros_like(q)
        return JointCommand(robot.joint_names, goal, velocities, duration_s, stamp_ns)


def box_text(low: ArrayLike, high: ArrayLike) -> str:
    """A box (3,), (3,) in metres, in words."""
    sides = zip(AXES, np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64))
    return ", ".join(f"{axis} {least:.2f} to {most:.2f}" for axis, least, most in sides) + " m"


def _residual(solution: InverseSolution) -> float:
    """One figure to compare solutions by; a metre weighs as a radian, as in the least squares."""
    return float(np.hypot(solution.position_error_m, solution.rotation_error_rad))


def _norm(vector: NDArray[np.float64]) -> float:
    return float(np.sqrt(vector @ vector))
