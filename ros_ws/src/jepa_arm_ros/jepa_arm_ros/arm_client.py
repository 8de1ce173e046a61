"""Commands an arm through the gate of a running graph, and listens to what comes of it.

with ArmClient(graph.domain_id, robot) as client:
    client.reset_safety()
    client.send(command)
    client.spin(0.03)
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from sensor_msgs.msg import JointState as JointStateMessage
from trajectory_msgs.msg import JointTrajectory

from hardware.arm.contract import JointCommand, JointState
from hardware.camera.contract import Frame
from hardware.robot import Robot
from jepa_arm_ros import qos
from jepa_arm_ros.errors import EpisodeError, MessageError
from jepa_arm_ros.graph_client import GateClient
from jepa_arm_ros.messages import command_message, frame_from_image, joint_state_from, setpoint_from


class ArmClient(GateClient):
    """Sends commands; `state` is the newest joint state. The `on_…` are called while it spins.

    `on_state` gets each joint state, `on_setpoint` names, positions (J,) and the time [ns] at which what the
    gate sent came, `on_frame` each picture.
    """

    def __init__(self, domain_id: int, robot: Robot) -> None:
        super().__init__(domain_id, "recorder")
        self._robot = robot
        self._source = f"{self.node.get_fully_qualified_name()}:{os.getpid()}"
        self.state: JointState | None = None
        self.on_state: Callable[[JointState], None] = lambda state: None
        self.on_setpoint: Callable[[tuple[str, ...], NDArray[np.float64], int], None] = lambda *_: None
        self.on_frame: Callable[[Frame], None] = lambda frame: None
        self._publisher = self.node.create_publisher(JointTrajectory, "planner/command", qos.COMMAND)
        subscribe = self.node.create_subscription
        subscribe(JointStateMessage, "joint_states", self._took_state, qos.JOINT_STATES)
        subscribe(
            JointTrajectory, "joint_trajectory_controller/joint_trajectory", self._took_setpoint, qos.RECORD
        )
        subscribe(Image, "camera/image_raw", self._took_image, qos.PICTURES)

    def wait_ready(self) -> JointState:
        """Until joint states come and the gate listens. Raises `EpisodeError` naming what does not."""
        listens = self.spin_until(lambda: self._publisher.get_subscription_count() > 0)
        if not listens or not self.spin_until(lambda: self.safety is not None):
            raise EpisodeError("there is no safety gate in this ROS domain: is the graph running?")
        if not self.spin_until(lambda: self.state is not None) or self.state is None:
            raise EpisodeError("the arm sends no joint states: its node's last message says why")
        return self.state

    def send(self, command: JointCommand) -> None:
        self._publisher.publish(command_message(command, self._source))

    def _took_state(self, message: JointStateMessage) -> None:
        try:
            state = joint_state_from(message).ordered(self._robot.joint_names)
        except (MessageError, KeyError) as error:
            self.node.get_logger().error(f"joint state ignored: {error}", throttle_duration_sec=1.0)
            return
        self.state = state
        self.on_state(state)

    def _took_setpoint(self, message: JointTrajectory) -> None:
        try:
            names, positions = setpoint_from(message)
        except MessageError as error:
            self.node.get_logger().error(f"setpoint ignored: {error}", throttle_duration_sec=1.0)
            return
        self.on_setpoint(names, positions, self.node.get_clock().now().nanoseconds)

    def _took_image(self, message: Image) -> None:
        try:
            frame = frame_from_image(message)
        except MessageError as error:
            self.node.get_logger().error(f"picture ignored: {error}", throttle_duration_sec=1.0)
            return
        self.on_frame(frame)
