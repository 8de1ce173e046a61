"""A leader arm: limp, moved by hand, and the arm does as it does. Joints are matched by name."""

from __future__ import annotations

import numpy as np

from hardware.arm.config import ArmConfig
from hardware.arm.contract import JointCommand, JointState
from hardware.arm.servo_bus import make_bus
from hardware.errors import ArmError
from hardware.kinematics import Kinematics
from hardware.robot import Robot
from hardware.teleop.contract import COMMAND_S, Vector

# Of the joints' velocity limits: to catch up with a leader that stands elsewhere, and once that is done.
CATCH_UP_SHARE, FOLLOW_SHARE = 0.15, 0.6
CAUGHT_UP_RAD = 0.1
SHORTENED = (1.0, 0.5, 0.25, 0.1)
# What is less than this share of the most that a command may go ends at rest.
STILL_SHARE = 0.2


class Leader:
    help = "move the leader arm by hand; the arm comes to its pose slowly first"

    def __init__(self, config: ArmConfig, port: str, robot: Robot, kinematics: Kinematics) -> None:
        """Opens the leader's port, lets it go limp. Raises ArmError if it does not fit or does not answer."""
        config.check_fits(robot)
        self._config, self._robot, self._kinematics = config, robot, kinematics
        self._caught_up = False
        self._sent: Vector | None = None
        self._bus = make_bus(config.bus, {servo.id: servo.model for servo in config.servos})
        self._bus.open(port or config.port, config.baud)
        try:
            self._bus.torque_off(config.ids)
        except ArmError:
            self._bus.close()
            raise

    def press(self, key: str, now_s: float) -> None:
        pass

    def positions(self) -> Vector:
        """Where the leader's joints are (J,) rad, in the order of the robot's, within the robot's limits."""
        readings = self._bus.read(self._config.ids)
        found = {servo.joint: servo.position(readings[servo.id].ticks) for servo in self._config.servos}
        q = np.array([found[name] for name in self._robot.joint_names])
        return np.clip(q, self._robot.position_lower, self._robot.position_upper)

    def command(self, state: JointState, now_s: float) -> JointCommand | None:
        robot = self._robot
        q = state.ordered(robot.joint_names).positions
        way = self.positions() - q
        if np.abs(way).max() < CAUGHT_UP_RAD:
            self._caught_up = True
        most = (FOLLOW_SHARE if self._caught_up else CATCH_UP_SHARE) * robot.velocity_limits * COMMAND_S
        way *= min(1.0, float((most / np.maximum(np.abs(way), 1e-9)).min()))
        share = next((share for share in SHORTENED if self._is_inside(q + share * way)), 0.0)
        if share > 0.0 or self._sent is None:
            self._sent = q + share * way
        # It ends at rest where the leader is, and where the workspace ends.
        moves = share > 0.0 and float((np.abs(way) / most).max()) > STILL_SHARE
        velocities = share * way / COMMAND_S if moves else np.zeros_like(q)
        return JointCommand(robot.joint_names, self._sent, velocities, COMMAND_S, state.stamp_ns)

    def close(self) -> None:
        self._bus.close()

    def _is_inside(self, q: Vector) -> bool:
        tool = self._kinematics.tool_position(q)
        return bool((tool >= self._robot.workspace_min).all() and (tool <= self._robot.workspace_max).all())
