"""A driven arm behind the `Arm` contract: joint setpoints in, measured joints out.

An arm that has stopped itself for a fault publishes no joint states, so the gate stops too; /diagnostics says
why. `arm/recover` connects it anew once that is mended, then `safety/reset` lets it go on.

For an arm that ros2_control drives this node is not needed: its joint_trajectory_controller and
joint_state_broadcaster speak the same topics.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from hardware.arm.config import arm_config_for
from hardware.arm.contract import Arm, Diagnosed, JointCommand
from hardware.arm.priority import NEXT_PRIORITY, come_first
from hardware.arm.servo_arm import ServoArm
from hardware.control_loop import ANY_CORE, Timed
from hardware.robot import load_robot
from jepa_arm_ros import qos
from jepa_arm_ros.errors import MessageError
from jepa_arm_ros.health import Health
from jepa_arm_ros.messages import joint_state_message, setpoint_from
from jepa_arm_ros.parameters import import_factory, parameter, read_parameters
from jepa_arm_ros.running import exit_with


@dataclass(frozen=True)
class ArmParameters:
    arm: str = parameter(
        "",
        "feetech, dynamixel, an arm file (.yaml), or what makes the Arm: module:callable without arguments",
    )
    robot: str = parameter("panda", "robot file whose joints the servos move: a name or a path")
    port: str = parameter("", "serial port of the servos; empty: the arm file's")
    core: int = parameter(
        ANY_CORE, "processor core the servos' loop stays on; -1: any", low=ANY_CORE, high=4095
    )
    rate_hz: float = parameter(100.0, "joint states a second [Hz]", low=10.0, high=1000.0)
    setpoint_timeout_s: float = parameter(
        0.1, "without setpoints for this long the arm is stopped [s]", low=0.02, high=5.0
    )


class ArmNode(LifecycleNode):
    def __init__(self) -> None:
        super().__init__("arm")
        self.parameters = read_parameters(self, ArmParameters)
        self.make_arm = self.arm_maker()
        self.health = Health(self)
        self.health.also_report(self.report)
        self.health.also_report_loop(lambda: self.arm.timing() if isinstance(self.arm, Timed) else None)
        self.arm: Arm | None = None

    def arm_maker(self) -> Callable[[], Arm]:
        """What makes the arm; a wrong name, arm file or robot file is told here, before anything moves."""
        arm, port = self.parameters.arm, self.parameters.port
        if not arm or ":" in arm:
            return import_factory(self, "arm", arm)
        config = arm_config_for(arm, load_robot(self.parameters.robot))
        return lambda: ServoArm(config, port, self.parameters.core)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        arm = self.make_arm()
        try:
            arm.connect()
        except (ValueError, OSError) as error:
            self.get_logger().error(f"the arm does not connect: {error}")
            return TransitionCallbackReturn.FAILURE
        self.arm = arm
        self.driving = False
        self.setpoint_at = 0.0
        self.published_ns = -1
        self.joint_publisher = self.create_publisher(JointState, "joint_states", qos.JOINT_STATES)
        on_setpoint = self.health.monitor("setpoint", self.on_setpoint)
        topic = "joint_trajectory_controller/joint_trajectory"
        self.create_subscription(JointTrajectory, topic, on_setpoint, qos.COMMAND)
        self.create_service(Trigger, "arm/recover", self.on_recover)
        self.timer = self.create_timer(1 / self.parameters.rate_hz, self.on_tick, autostart=False)
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.timer.reset()
        come_first(NEXT_PRIORITY)
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.timer.cancel()
        self.stop()
        return super().on_deactivate(state)

    def on_tick(self) -> None:
        assert self.arm is not None
        if self.driving and time.monotonic() - self.setpoint_at > self.parameters.setpoint_timeout_s:
            self.get_logger().warning("setpoints stopped: the arm is stopped where it is")
            self.stop()
        try:
            state = self.arm.state()
        except OSError as error:
            return self.get_logger().error(f"no joint state: {error}", throttle_duration_sec=1.0)
        if state.stamp_ns != self.published_ns:  # an old reading is not sent again as a new one
            self.published_ns = state.stamp_ns
            self.joint_publisher.publish(joint_state_message(state, self.get_clock().now().nanoseconds))

    def on_setpoint(self, message: JointTrajectory) -> None:
        if self.arm is None or self.timer.is_canceled():
            return
        try:
            names, positions = setpoint_from(message)
            reach = message.points[-1].time_from_start
            duration_s = reach.sec + reach.nanosec * 1e-9
            self.arm.command(JointCommand(names, positions, np.zeros_like(positions), duration_s, 0))
        except (MessageError, ValueError, OSError) as error:
            return self.get_logger().error(f"setpoint not sent: {error}", throttle_duration_sec=1.0)
        self.setpoint_at, self.driving = time.monotonic(), True

    def on_recover(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        assert self.arm is not None
        self.driving = False
        try:
            self.arm.disconnect()
            self.arm.connect()
            response.success, response.message = True, "connected; safety/reset lets the arm go on"
        except (ValueError, OSError) as error:
            response.message = str(error)
        return response

    def report(self) -> dict[str, object]:
        return dict(self.arm.diagnostics()) if isinstance(self.arm, Diagnosed) else {}

    def stop(self) -> None:
        if self.arm is not None and self.driving:
            self.driving = False
            self.arm.stop()

    def destroy_node(self) -> None:
        self.stop()
        if self.arm is not None:
            self.arm.disconnect()
        super().destroy_node()


def main() -> None:
    exit_with(ArmNode)


if __name__ == "__main__":
    main()
