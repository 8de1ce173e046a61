"""Play: the tool wanders through its workspace, from one random place to the next, with pauses. Seeded."""

from __future__ import annotations

import numpy as np

from hardware.arm.contract import JointCommand, JointState
from hardware.errors import RobotError
from hardware.kinematics import Kinematics
from hardware.robot import Robot
from hardware.safety.collision import Bodies
from hardware.teleop.contract import ToolMotion, Vector, limited

# Places are this far inside the workspace, and the arm this far from itself and its boxes there.
INSIDE_M = 0.02
# There, and on the way, the tool's orientation may be off by this much: arms of few joints need it.
REACHED_M = 0.01
MISSED_M = 0.005
SPEED_SHARE = (0.4, 1.0)
PAUSE_SHARE = 0.3
PAUSE_S = (0.1, 0.8)
# A place that is not reached in this many times the time it should take is given up.
PATIENCE = 3.0
ATTEMPTS = 200
ON_THE_WAY = 4


class Play:
    help = "the arm plays by itself: keep clear of it"

    def __init__(
        self,
        robot: Robot,
        kinematics: Kinematics,
        motion: ToolMotion,
        speed_m_s: float,
        seed: int,
        height_m: float | None = None,
    ) -> None:
        self._robot, self._kinematics, self._motion = robot, kinematics, motion
        self._bodies = Bodies(robot)
        self._speed_m_s, self._height_m = speed_m_s, height_m
        self._rng = np.random.default_rng(seed)
        self._place: Vector | None = None
        self._speed = self._until_s = self._pause_until_s = 0.0

    def press(self, key: str, now_s: float) -> None:
        pass

    def command(self, state: JointState, now_s: float) -> JointCommand | None:
        if now_s < self._pause_until_s:
            return self._motion.command(state, now_s, np.zeros(3))
        tool = self._motion.tool(state)
        if self._place is not None and self._is_over(tool, now_s):
            self._place = None
            if self._rng.random() < PAUSE_SHARE:
                self._pause_until_s = now_s + self._rng.uniform(*PAUSE_S)
                return self._motion.command(state, now_s, np.zeros(3))
        if self._place is None:
            self._choose(tool, state, now_s)
        assert self._place is not None
        # Slower at the end: the last command reaches no further than the place.
        velocity = limited((self._place - tool) / 0.2, self._speed)
        return self._motion.command(state, now_s, velocity)

    def close(self) -> None:
        pass

    def _is_over(self, tool: Vector, now_s: float) -> bool:
        assert self._place is not None
        return bool(np.linalg.norm(self._place - tool) < REACHED_M) or now_s > self._until_s

    def _choose(self, tool: Vector, state: JointState, now_s: float) -> None:
        """A place that the arm can reach on a straight line, clear of everything."""
        low, high = self._robot.workspace_min + INSIDE_M, self._robot.workspace_max - INSIDE_M
        q = state.ordered(self._robot.joint_names).positions
        for _ in range(ATTEMPTS):
            place = self._rng.uniform(low, high)
            if self._height_m is not None:
                place[2] = self._height_m
            if self._is_clear(tool, place, q):
                break
        else:
            raise RobotError(
                f"robot {self._robot.name}: no place in its workspace can be reached from where it stands: "
                "move it towards its home by hand, or correct the workspace in the robot file"
            )
        self._place = place
        self._speed = self._speed_m_s * self._rng.uniform(*SPEED_SHARE)
        self._until_s = now_s + 1.0 + PATIENCE * float(np.linalg.norm(place - tool)) / self._speed

    def _is_clear(self, tool: Vector, place: Vector, q: Vector) -> bool:
        rotation = self._kinematics.tool_pose(self._robot.home)[1]
        for share in np.linspace(0.0, 1.0, ON_THE_WAY + 1)[1:]:
            found = self._kinematics.inverse(tool + share * (place - tool), rotation, q)
            q = found.positions
            if self._bodies.clearance(q) < self._robot.collision.slow_from:
                return False
        return found.position_error_m < MISSED_M
