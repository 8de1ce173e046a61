from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from hardware.arm.contract import JointCommand, JointState
from hardware.kinematics import CartesianServo, Kinematics
from hardware.robot import Robot
from hardware.safety.collision import Bodies
from hardware.safety.gate import SafetyGate
from hardware.safety.status import GateConfig, Verdict

TICK_S = 0.01


@pytest.fixture(scope="session")
def bodies(robot: Robot) -> Bodies:
    return Bodies(robot)


@dataclass
class GatedArm:
    """A gate and an arm that follows its setpoints exactly, on a clock that only the test moves."""

    gate: SafetyGate
    kinematics: Kinematics
    now_s: float = 0.0
    reports: bool = True  # whether joint states still come
    blocked: bool = False  # whether the arm stays where it is
    setpoints: list[JointCommand] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.robot = self.gate.robot
        self.q = self.robot.home
        self.servo = CartesianServo(self.kinematics, ("x", "y", "z"))

    @property
    def state(self) -> JointState:
        return JointState(self.robot.joint_names, self.q, np.zeros_like(self.q), 0)

    @property
    def tool(self) -> np.ndarray:
        return self.kinematics.tool_position(self.q)

    @property
    def at_rest(self) -> bool:
        return not self.setpoints[-1].velocities.any()

    def run(self, seconds: float, tick_s: float = TICK_S) -> list[JointCommand]:
        """Let time pass; the setpoints of that time."""
        sent = []
        for _ in range(round(seconds / tick_s)):
            if self.reports:
                self.gate.observe(self.state, self.now_s)
            self.now_s += tick_s
            setpoint = self.gate.tick(self.now_s)
            assert setpoint is not None
            sent.append(setpoint)
            if not self.blocked:
                self.q = setpoint.positions
        self.setpoints += sent
        return sent

    def command(self, displacement: tuple[float, float, float]) -> JointCommand:
        return self.servo.joint_command(self.state, displacement, 0.1, stamp_ns=round(self.now_s * 1e9))

    def send(self, command: JointCommand, image_age_s: float = 0.03, source: str = "planner") -> Verdict:
        return self.gate.submit(command, self.now_s, image_age_s, source)

    def drive(self, displacement: tuple[float, float, float], seconds: float) -> None:
        """Command the same displacement every 70 ms, as a moving planner does, and end right after one."""
        for _ in range(round(seconds / 0.07)):
            if self.setpoints:
                self.run(0.07)
            else:
                self.run(TICK_S)
            verdict = self.send(self.command(displacement))
            assert verdict.accepted, verdict

    def seconds_until_rest(self, at_most: float = 2.0) -> float:
        start_s = self.now_s
        while not self.at_rest:
            self.run(TICK_S)
            assert self.now_s - start_s < at_most, "the arm does not come to rest"
        return self.now_s - start_s


@pytest.fixture
def make_arm(robot: Robot, kinematics: Kinematics, bodies: Bodies):
    """Makes a `GatedArm`, at rest at home, its gate ready for commands."""

    def make(q: np.ndarray | None = None, **settings: float) -> GatedArm:
        arm = GatedArm(SafetyGate(robot, kinematics, GateConfig(**settings), bodies), kinematics)
        if q is not None:
            arm.q = q
        arm.gate.observe(arm.state, arm.now_s)
        arm.run(TICK_S)
        return arm

    return make


@pytest.fixture
def arm(make_arm) -> GatedArm:
    return make_arm()
