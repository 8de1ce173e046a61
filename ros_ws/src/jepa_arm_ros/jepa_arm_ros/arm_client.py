"""Commands an arm through the gate of a running graph, and listens to what comes of it.

with ArmClient(graph.domain_id, robot) as client:
    client.reset()
    client.send(command)
    client.spin(0.03)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
import rclpy
from jepa_arm_interfaces.msg import SafetyStatus
from numpy.typing import NDArray
from rclpy.experimental.events_executor import EventsExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from sensor_msgs.msg import Image
from sensor_msgs.msg import JointState as JointStateMessage
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from hardware.arm.contract import JointCommand, JointState
from hardware.camera.contract import Frame
from hardware.robot import Robot
from jepa_arm_ros import qos
from jepa_arm_ros.errors import EpisodeError, MessageError
from jepa_arm_ros.messages import command_message, frame_from_image, joint_state_from, setpoint_from

ANSWER_TIMEOUT_S = 10.0
SPIN_SLICE_S = 0.05


class ArmClient:
    """A node of the caller's process. One thread uses it; the `on_…` are called while it spins.

    `on_state` gets each joint state, `on_setpoint` names, positions (J,) and the time [ns] at which what the
    gate sent came, `on_frame` each picture.
    """

    def __init__(self, domain_id: int, robot: Robot, name: str = "recorder") -> None:
        self._robot = robot
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain_id, signal_handler_options=SignalHandlerOptions.NO)
        self.node: Node = rclpy.create_node(name, context=self._context)
        self._source = f"{self.node.get_fully_qualified_name()}:{os.getpid()}"
        self._executor = EventsExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.state: JointState | None = None
        self.safety: SafetyStatus | None = None
        self.on_state: Callable[[JointState], None] = lambda state: None
        self.on_setpoint: Callable[[tuple[str, ...], NDArray[np.float64], int], None] = lambda *_: None
        self.on_frame: Callable[[Frame], None] = lambda frame: None
        self._stop = self.node.create_client(Trigger, "safety/stop")
        self._reset = self.node.create_client(Trigger, "safety/reset")
        self._publisher = self.node.create_publisher(JointTrajectory, "planner/command", qos.COMMAND)
        subscribe = self.node.create_subscription
        subscribe(JointStateMessage, "joint_states", self._took_state, qos.JOINT_STATES)
        subscribe(SafetyStatus, "safety/status", self._took_safety, qos.STATUS)
        subscribe(
            JointTrajectory, "joint_trajectory_controller/joint_trajectory", self._took_setpoint, qos.RECORD
        )
        subscribe(Image, "camera/image_raw", self._took_image, qos.PICTURES)

    def __enter__(self) -> ArmClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._executor.remove_node(self.node)
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    @property
    def stopped(self) -> bool:
        """Whether the gate has stopped the arm, or does so now."""
        return self.safety is not None and self.safety.state in (SafetyStatus.STOPPING, SafetyStatus.STOPPED)

    def wait_ready(self) -> JointState:
        """Until joint states come and the gate listens. Raises `EpisodeError` naming what does not."""
        listens = self.spin_until(lambda: self._publisher.get_subscription_count() > 0, ANSWER_TIMEOUT_S)
        if not listens or not self.spin_until(lambda: self.safety is not None, ANSWER_TIMEOUT_S):
            raise EpisodeError("there is no safety gate in this ROS domain: is the graph running?")
        if not self.spin_until(lambda: self.state is not None, ANSWER_TIMEOUT_S) or self.state is None:
            raise EpisodeError("the arm sends no joint states: its node's last message says why")
        return self.state

    def send(self, command: JointCommand) -> None:
        self._publisher.publish(command_message(command, self._source))

    def stop(self) -> None:
        self._call(self._stop, "safety/stop")

    def reset(self) -> None:
        """Make a stopped gate go on from the joints as measured. Raises `EpisodeError` if it refuses."""
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while not (answer := self._call(self._reset, "safety/reset")).success:
            if time.monotonic() > deadline:
                raise EpisodeError(f"the safety gate does not reset: {answer.message}")
            self.spin(SPIN_SLICE_S)
        self.spin_until(lambda: not self.stopped, ANSWER_TIMEOUT_S)

    def spin(self, seconds: float) -> None:
        """Handle what comes in for so long."""
        self.spin_until(lambda: False, seconds)

    def spin_until(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Handle what comes in until `done()`; False if it is not within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not done():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._executor.spin_until_future_complete(Future(), min(left, SPIN_SLICE_S))
        return True

    def _call(self, client: rclpy.client.Client, name: str) -> Trigger.Response:
        if not self.spin_until(client.service_is_ready, ANSWER_TIMEOUT_S):
            raise EpisodeError(f"there is no service {name}: is the graph running in this domain?")
        answer = client.call_async(Trigger.Request())
        if not self.spin_until(answer.done, ANSWER_TIMEOUT_S):
            raise EpisodeError(f"service {name} did not answer within {ANSWER_TIMEOUT_S:g} s")
        return answer.result()

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

    def _took_safety(self, message: SafetyStatus) -> None:
        self.safety = message

    def _took_image(self, message: Image) -> None:
        try:
            frame = frame_from_image(message)
        except MessageError as error:
            self.node.get_logger().error(f"picture ignored: {error}", throttle_duration_sec=1.0)
            return
        self.on_frame(frame)
