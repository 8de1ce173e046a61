"""PyBullet as robot and camera: joint setpoints in; joint states, pictures and the truth out.

It speaks what a ros2_control arm and a camera driver speak, in real time: simulated time is the time on the
wall. What is only here is under `sim/`: the truth, new episodes, and the frame→command time, measured where
it counts, at the motor, on one clock.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import Point
from jepa_arm_interfaces.msg import SceneTruth
from jepa_arm_interfaces.srv import ResetScene
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float32, Header
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from hardware.camera.contract import Frame
from hardware.robot import load_robot
from jepa_arm_ros import qos
from jepa_arm_ros.errors import MessageError
from jepa_arm_ros.health import Health
from jepa_arm_ros.messages import (
    camera_info_message,
    header,
    image_message,
    joint_state_message,
    setpoint_from,
    stamp_message,
    stamp_ns,
)
from jepa_arm_ros.parameters import parameter, read_parameters
from jepa_arm_ros.running import exit_with
from sim.results import TOLERANCE_M
from sim.tasks import Episode, distance_m, make_loop, make_task, new_episode
from sim.world import PHYSICS_HZ

TICK_HZ = 120
TICKS_PER_FRAME = 4
TICKS_PER_TRUTH = 12
# Behind by more than this (an episode was made, the machine slept), the world does not catch up.
MAX_CATCH_UP_STEPS = PHYSICS_HZ // 10
REMEMBERED_FRAMES = 64
NO_STAMP = -1
# A setpoint within this of the joints (rad) shows that the gate knows where a new scene has put the arm.
NEAR_RAD = 0.02


@dataclass(frozen=True)
class SimParameters:
    task: str = parameter("push", "what the scene is for: push or reach")
    robot: str = parameter("panda", "robot file: a name in hardware/robots or a path")
    seed: int = parameter(0, "seed of the first scene", low=0, high=2**62)
    pixel_noise: float = parameter(2.0, "camera noise, standard deviation in grey levels", low=0.0, high=50.0)
    setpoint_timeout_s: float = parameter(
        0.1,
        "without setpoints for this long the arm holds the position it is measured at [s]",
        low=0.02,
        high=5.0,
    )


class SimNode(LifecycleNode):
    """The world on a timer: apply the newest setpoint, advance, publish what a robot would measure."""

    def __init__(self) -> None:
        super().__init__("sim")
        self.parameters = read_parameters(self, SimParameters)
        self.task = make_task(self.parameters.task)
        self.robot = load_robot(self.parameters.robot)
        self.health = Health(self)
        self.health.also_report(self.report)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.loop = make_loop(self.task, self.robot, self.parameters.pixel_noise)
        self.world = self.loop.world
        self.ticks = self.frames_sent = 0
        self.camera_paused = self.holding = self.just_placed = False
        self.captured_at: OrderedDict[int, int] = OrderedDict()
        self.followed_stamp = NO_STAMP
        self.setpoint_at = time.monotonic()

        self.joint_publisher = self.create_publisher(JointState, "joint_states", qos.JOINT_STATES)
        self.image_publisher = self.create_publisher(
            Image, "camera/image_raw", qos.IMAGE, qos_overriding_options=qos.overridable()
        )
        self.info_publisher = self.create_publisher(CameraInfo, "camera/camera_info", qos.CAMERA_INFO)
        self.clock_publisher = self.create_publisher(Clock, "/clock", qos.IMAGE)
        self.truth_publisher = self.create_publisher(SceneTruth, "sim/truth", qos.RECORD)
        self.latency_publisher = self.create_publisher(Float32, "sim/frame_to_command_ms", qos.RECORD)

        on_setpoint = self.health.monitor("setpoint", self.on_setpoint)
        topic = "joint_trajectory_controller/joint_trajectory"
        self.create_subscription(JointTrajectory, topic, on_setpoint, qos.COMMAND)
        self.create_subscription(Header, "safety/followed_frame", self.on_followed_frame, qos.RECORD)
        self.create_service(ResetScene, "sim/reset_scene", self.on_reset_scene)
        self.create_service(SetBool, "sim/pause_camera", self.on_pause_camera)
        self.timer = self.create_timer(1 / TICK_HZ, self.on_tick, autostart=False)
        self.reset(self.parameters.seed)
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.start_clock()
        self.timer.reset()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.timer.cancel()
        return super().on_deactivate(state)

    def on_tick(self) -> None:
        self.hold_without_setpoints()
        self.catch_up()
        now_ns = self.get_clock().now().nanoseconds
        self.clock_publisher.publish(Clock(clock=stamp_message(now_ns)))
        self.joint_publisher.publish(joint_state_message(self.world.joint_state(), now_ns))
        if self.ticks % TICKS_PER_FRAME == 0 and not self.camera_paused:
            self.publish_frame(now_ns)
        if self.ticks % TICKS_PER_TRUTH == 0:
            self.publish_truth(now_ns)
        self.ticks += 1

    def on_setpoint(self, message: JointTrajectory) -> None:
        try:
            names, positions = setpoint_from(message)
            if self.just_placed and not self.is_near(names, positions):
                return
            self.world.set_joint_targets(names, positions)
        except (MessageError, ValueError, KeyError) as error:
            self.get_logger().warning(f"setpoint ignored: {error}", throttle_duration_sec=1.0)
            return
        self.setpoint_at, self.holding, self.just_placed = time.monotonic(), False, False
        captured_at = self.captured_at.pop(self.followed_stamp, None)
        self.followed_stamp = NO_STAMP
        if captured_at is not None:
            elapsed_ms = (time.monotonic_ns() - captured_at) * 1e-6
            self.latency_publisher.publish(Float32(data=elapsed_ms))

    def on_followed_frame(self, message: Header) -> None:
        """The next setpoint is the first that comes from this frame."""
        self.followed_stamp = stamp_ns(message.stamp)

    def on_reset_scene(
        self, request: ResetScene.Request, response: ResetScene.Response
    ) -> ResetScene.Response:
        self.reset(request.seed)
        now_ns = self.get_clock().now().nanoseconds
        frame_id = self.robot.camera.frame_id
        response.success = True
        response.goal_image = image_message(Frame(self.episode.goal_image, now_ns, frame_id))
        response.start_image = image_message(Frame(self.episode.start_image, now_ns, frame_id))
        response.start_distance_m = self.episode.start_distance_m
        response.budget_steps = self.episode.budget_steps
        return response

    def on_pause_camera(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """For tests: a camera that delivers nothing until it is told to go on."""
        self.camera_paused = request.data
        response.success = True
        return response

    def reset(self, seed: int) -> None:
        self.episode: Episode = new_episode(self.task, self.loop, seed)
        self.just_placed = True
        self.start_clock()

    def is_near(self, names: tuple[str, ...], positions: NDArray[np.float64]) -> bool:
        """Setpoints from before the arm was put elsewhere would tear it back; a reset gate starts near."""
        measured = self.world.joint_state().ordered(names).positions
        return bool(np.abs(positions - measured).max() < NEAR_RAD)

    def start_clock(self) -> None:
        self.clock_start = time.monotonic()
        self.steps_done = 0

    def catch_up(self) -> None:
        """Run the physics steps that have become due."""
        due = int((time.monotonic() - self.clock_start) * PHYSICS_HZ) - self.steps_done
        if due > MAX_CATCH_UP_STEPS:
            self.start_clock()
            return
        self.world.advance(due)
        self.steps_done += due

    def hold_without_setpoints(self) -> None:
        """The drive's own watchdog, for when the gate is gone."""
        if self.holding or time.monotonic() - self.setpoint_at < self.parameters.setpoint_timeout_s:
            return
        state = self.world.joint_state()
        self.world.set_joint_targets(state.names, state.positions)
        self.holding = True

    def publish_frame(self, now_ns: int) -> None:
        self.captured_at[now_ns] = time.monotonic_ns()
        if len(self.captured_at) > REMEMBERED_FRAMES:
            self.captured_at.popitem(last=False)
        mount = self.robot.camera
        self.image_publisher.publish(image_message(Frame(self.world.render(), now_ns, mount.frame_id)))
        self.info_publisher.publish(camera_info_message(mount, now_ns))
        self.frames_sent += 1

    def publish_truth(self, now_ns: int) -> None:
        distance = distance_m(self.task, self.loop, self.episode)
        self.truth_publisher.publish(
            SceneTruth(
                header=header(now_ns, self.robot.base_link),
                distance_m=distance,
                object_position=point(self.world.object_position()),
                tool_position=point(self.world.tool_position()),
                success=distance <= TOLERANCE_M,
            )
        )

    def report(self) -> dict[str, object]:
        return {"frames_sent": getattr(self, "frames_sent", 0)}


def point(position: NDArray[np.float64] | None) -> Point:
    """NaN where there is nothing."""
    x, y, z = (np.nan,) * 3 if position is None else position
    return Point(x=float(x), y=float(y), z=float(z))


def main() -> None:
    exit_with(SimNode)


if __name__ == "__main__":
    main()
