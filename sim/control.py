"""One decision in simulation: action → servo → safety gate → arm, as over ROS but in lockstep.

decision 10 Hz → CartesianServo → SafetyGate.tick at 120 Hz → World at 240 Hz
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hardware.arm.contract import JointCommand
from hardware.kinematics import GRIPPER, CartesianServo, Kinematics
from hardware.safety.collision import Bodies
from hardware.safety.gate import GateConfig, SafetyGate
from sim.world import PHYSICS_HZ, World

CONTROL_HZ = 120
PHYSICS_STEPS_PER_TICK = PHYSICS_HZ // CONTROL_HZ
DECISION_S = 0.1
TICKS_PER_DECISION = round(CONTROL_HZ * DECISION_S)

# In lockstep the next command comes after exactly one decision, as late as all others: the one before lasts
# until then.
LOCKSTEP = GateConfig(command_timeout_s=DECISION_S)


class ControlLoop:
    """Drives a `World` by tool displacements, through the same servo and gate as a real arm."""

    def __init__(self, world: World, axes: tuple[str, ...], fixed: dict[str, float]) -> None:
        self.world = world
        self.kinematics = Kinematics(world.robot)
        self.bodies = Bodies(world.robot)
        self.servo = CartesianServo(self.kinematics, axes, fixed)
        self.restart()

    def restart(self) -> None:
        """Take the world as it stands: a fresh gate that starts from the measured joints."""
        self.gate = SafetyGate(self.world.robot, self.kinematics, LOCKSTEP, self.bodies)
        self.gate.observe(self.world.joint_state(), self._now_s)
        # What the camera delivers: the world as it is, or what an anomaly makes of it.
        self.look: Callable[[], NDArray[np.uint8]] = self.world.render

    @property
    def _now_s(self) -> float:
        return self.world.time_ns * 1e-9

    def tool_position(self) -> NDArray[np.float64]:
        """Tool tip (3,) in metres from the measured joints: what a real arm would report too."""
        return self.kinematics.tool_position(self.world.joint_state().positions)

    def tool_state(self) -> NDArray[np.float64]:
        """Tool tip, and the gripper's joint if actions move one, (P,) in metres from the measured joints."""
        state = self.kinematics.tool_state(self.world.joint_state().positions)
        return state if GRIPPER in self.servo.axes else state[:3]

    def execute(self, action: ArrayLike, caution: int = 0) -> None:
        """Run one decision: displace the tool by `action` (A,) metres over 0.1 s, from its latency on.

        The gate hears first what `caution` the decision asks for: 0, calm, to 3, stop.
        """
        delay = round(self.world.conditions.latency_s * CONTROL_HZ)
        for tick in range(TICKS_PER_DECISION):
            if tick == delay:
                state = self.world.joint_state()
                command = self.servo.joint_command(state, action, DECISION_S, state.stamp_ns)
                self.gate.caution(caution, self._now_s)
                self.gate.submit(command, self._now_s, image_age_s=0.0)
            self._send(self.gate.tick(self._now_s))
            self.world.advance(PHYSICS_STEPS_PER_TICK)
            self.gate.observe(self.world.joint_state(), self._now_s)

    def _send(self, setpoint: JointCommand | None) -> None:
        if setpoint is not None:
            self.world.set_joint_targets(setpoint.names, setpoint.positions)
