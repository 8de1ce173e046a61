"""Latent + joint states → commands, towards the goal of the `pursue_goal` action.

The planning lives in `planner`, the servo in `hardware`; this looks up which joint state belongs to which
latent, keeps the action's promises, and sends what was decided. One goal at a time: a newer one takes over,
and the older ends as aborted.
"""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jepa_arm_interfaces.action import PursueGoal
from jepa_arm_interfaces.msg import Latent, PlanStatus, SafetyStatus
from numpy.typing import NDArray
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import JointState as JointStateMessage
from std_msgs.msg import Header
from trajectory_msgs.msg import JointTrajectory

from hardware.arm.contract import JointState
from hardware.kinematics import CartesianServo, Kinematics
from hardware.robot import load_robot
from jepa_arm_ros import qos
from jepa_arm_ros.errors import MessageError
from jepa_arm_ros.health import Health
from jepa_arm_ros.messages import (
    command_message,
    frame_from_image,
    joint_state_from,
    latent_values,
    stamp_ns,
)
from jepa_arm_ros.parameters import parameter, read_parameters
from jepa_arm_ros.running import exit_with
from perception.preprocessing import prepare
from planner.mpc import Decision, RecedingHorizon, make_planner
from planner.runtime_options import MOVING
from planner.runtimes import load_bundle_on

REMEMBERED_JOINT_STATES = 64
CHECK_PERIOD_S = 0.05


@dataclass(frozen=True)
class PlannerParameters:
    bundle: str = parameter("", "folder of the world-model bundle to plan with")
    robot: str = parameter("panda", "robot file: a name in hardware/robots or a path")
    planner: str = parameter("mode2", "hold, random, mode1, cem, mode2, icem, mppi or gradient")
    runtime: str = parameter(MOVING, "auto, onnxruntime, openvino, torch or tensorrt[:precision]")
    force_runtime: bool = parameter(False, "use the runtime even if it is not exact enough or unchecked")
    seed: int = parameter(0, "seed of the planner's random numbers", low=0, high=2**62)
    budget_ms: float = parameter(0.0, "time for a plan, 0: as long as it takes [ms]", low=0.0, high=60e3)
    replan_every_frames: int = parameter(2, "decide on every n-th frame", low=1, high=100)
    max_latent_age_s: float = parameter(
        0.1, "nothing is decided from a frame older than this [s]", low=0.001, high=60.0
    )


class Pursuit:
    """One accepted goal: since when, until when, and what was decided so far."""

    def __init__(self, handle: ServerGoalHandle) -> None:
        self.handle = handle
        self.started = time.monotonic()
        self.timeout_s = float(handle.request.timeout_s)
        self.decisions = 0
        self.energy = float("nan")

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    @property
    def timed_out(self) -> bool:
        return 0.0 < self.timeout_s < self.elapsed_s


class PlannerNode(LifecycleNode):
    def __init__(self) -> None:
        super().__init__("planner")
        self.parameters = read_parameters(self, PlannerParameters)
        self.robot = load_robot(self.parameters.robot)
        self.health = Health(self)
        self.source = f"{self.get_fully_qualified_name()}:{os.getpid()}"
        self.active = False
        self.pursuit: Pursuit | None = None

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            camera = self.robot.camera
            told, tell = self.parameters, self.get_logger().info
            self.bundle = load_bundle_on(Path(told.bundle), told.runtime, told.force_runtime, tell)
            self.bundle.check_fits(self.robot.name, (camera.width, camera.height))
            budget_ms = self.parameters.budget_ms or None
            planner = make_planner(self.parameters.planner, self.bundle, self.parameters.seed, budget_ms)
            self.encoder = self.bundle.encoder()
            self.horizon = RecedingHorizon(self.bundle, planner)
            action = self.bundle.action
            self.kinematics = Kinematics(self.robot)
            self.servo = CartesianServo(self.kinematics, action.axes, action.fixed)
        except (ValueError, OSError) as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        self.joint_states: deque[JointState] = deque(maxlen=REMEMBERED_JOINT_STATES)
        self.frames = 0
        self.command_publisher = self.create_publisher(JointTrajectory, "planner/command", qos.COMMAND)
        self.status_publisher = self.create_publisher(PlanStatus, "planner/status", qos.RECORD)
        on_state = self.health.monitor("joint_states", self.on_joint_state)
        on_latent = self.health.monitor("latent", self.on_latent)
        self.create_subscription(JointStateMessage, "joint_states", on_state, qos.JOINT_STATES)
        self.create_subscription(Latent, "latent", on_latent, qos.LATENT)
        on_safety = self.health.monitor("safety", self.on_safety)
        self.create_subscription(SafetyStatus, "safety/status", on_safety, qos.STATUS)
        self.create_subscription(Header, "safety/followed_frame", self.on_followed, qos.RECORD)
        self.create_timer(CHECK_PERIOD_S, self.check_pursuit)
        self.action_server = ActionServer(
            self,
            PursueGoal,
            "pursue_goal",
            execute_callback=lambda handle: PursueGoal.Result(),
            handle_accepted_callback=self.on_goal,
            cancel_callback=self.on_cancel,
        )
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.active = True
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.active = False
        self.finish("abort", "the planner was deactivated")
        return super().on_deactivate(state)

    # receive → run → publish

    def on_joint_state(self, message: JointStateMessage) -> None:
        try:
            self.joint_states.append(joint_state_from(message))
        except MessageError as error:
            self.get_logger().error(f"joint state ignored: {error}", throttle_duration_sec=1.0)

    def on_safety(self, message: SafetyStatus) -> None:
        """What the gate lets through is what the world model has to expect."""
        stopped = message.state in (SafetyStatus.STOPPING, SafetyStatus.STOPPED)
        self.horizon.permit(None if stopped else message.speed_share, stamp_ns(message.header.stamp))

    def on_followed(self, message: Header) -> None:
        self.horizon.followed(stamp_ns(message.stamp), self.get_clock().now().nanoseconds)

    def on_latent(self, message: Latent) -> None:
        stamp = stamp_ns(message.header.stamp)
        if not self.active or not self.joint_states or not self.is_ours(message):
            return
        state = self.joint_state_at(stamp)
        # An arm may have a gripper that the bundle's actions do not move, and whose joint it does not know.
        tool = self.kinematics.tool_state(state.positions)[: self.bundle.info.tool.dim]
        self.horizon.observe(latent_values(message), tool, stamp)
        self.frames += 1
        if self.pursuit is None or self.frames % self.parameters.replan_every_frames:
            return
        if self.health.age_s(message.header.stamp) > self.parameters.max_latent_age_s:
            return self.health.late("latent")
        decision = self.horizon.decide()
        if decision is None:
            return
        if decision.dropped:
            self.get_logger().info(
                f"to plan within {self.parameters.budget_ms:g} ms: without {decision.dropped}",
                throttle_duration_sec=5.0,
            )
        self.send(decision.action, decision.stamp_ns)
        self.tell(decision, message)
        if decision.reached:
            self.finish("succeed", f"reached the goal after {self.pursuit.decisions} decisions")

    def joint_state_at(self, stamp_ns: int) -> JointState:
        """The measured joints nearest in time to the frame, in the robot's order."""
        nearest = min(self.joint_states, key=lambda state: abs(state.stamp_ns - stamp_ns))
        return nearest.ordered(self.robot.joint_names)

    def is_ours(self, message: Latent) -> bool:
        """Whether the latent comes from this bundle's encoder; latents of different encoders do not mix."""
        expected = self.encoder.spec.sha256
        if message.encoder == expected:
            return True
        self.health.late("latent")
        problem = (
            f"latents come from encoder {message.encoder[:12]}, bundle {self.bundle.name} has "
            f"{expected[:12]}: start encoder and planner with the same bundle"
        )
        self.get_logger().error(problem, throttle_duration_sec=1.0)
        self.finish("abort", problem)
        return False

    def send(self, action: NDArray[np.float32], stamp_ns: int) -> None:
        period_s = self.bundle.action.period_s
        command = self.servo.joint_command(self.joint_states[-1], action, period_s, stamp_ns)
        self.command_publisher.publish(command_message(command, self.source))

    def send_rest(self) -> None:
        """A command that ends at rest where the tool is now."""
        if self.joint_states:
            now_ns = self.get_clock().now().nanoseconds
            self.send(np.zeros(len(self.bundle.action.axes), dtype=np.float32), now_ns)

    def tell(self, decision: Decision, latent: Latent) -> None:
        """What was decided, to whoever gave the goal and to whoever watches."""
        assert self.pursuit is not None
        self.pursuit.decisions += 1
        self.pursuit.energy = float(decision.energy)
        self.status_publisher.publish(
            PlanStatus(
                header=latent.header,
                planner=self.parameters.planner,
                energy=float(decision.energy),
                steps_to_go=float(decision.steps_to_go),
                surprise=float(decision.surprise),
                caution=int(decision.caution),
                plan_ms=float(decision.plan_ms),
                candidates=int(decision.candidates),
                action=[float(value) for value in decision.action],
                phase="reached" if decision.reached else "pursuing",
            )
        )
        self.pursuit.handle.publish_feedback(
            PursueGoal.Feedback(
                energy=float(decision.energy),
                steps_to_go=float(decision.steps_to_go),
                surprise=float(decision.surprise),
                decisions=self.pursuit.decisions,
            )
        )

    # the action

    def on_goal(self, handle: ServerGoalHandle) -> None:
        """Accepted for now; a goal that cannot be pursued ends at once, with the reason in its outcome."""
        self.finish("abort", "a newer goal took over")
        pursuit = Pursuit(handle)
        try:
            goal = self.goal_latent(handle.request)
        except (MessageError, ValueError) as error:
            self.get_logger().warning(f"goal refused: {error}")
            return self.conclude(pursuit, "abort", f"goal refused: {error}")
        self.pursuit = pursuit
        self.horizon.begin(goal)

    def goal_latent(self, request: PursueGoal.Goal) -> NDArray[np.float32]:
        """(D,). Raises `MessageError` saying what is wrong with the goal."""
        if not self.active:
            raise MessageError("the planner is not active; activate it first")
        image = request.goal_image
        if image.width or image.height or len(image.data):
            camera = self.robot.camera
            frame = frame_from_image(image)
            height, width, _ = frame.image.shape
            if (width, height) != (camera.width, camera.height):
                raise MessageError(
                    f"goal image is {width}x{height}, the camera's are {camera.width}x{camera.height}"
                )
            return self.encoder.encode(prepare(frame.image, self.encoder.spec.image_size)[None])[0]
        latent = np.array(request.goal_latent, dtype=np.float32)
        if latent.shape != (self.encoder.spec.latent_dim,):
            raise MessageError(
                f"goal has no image, and its latent has {latent.size} values; "
                f"expected {self.encoder.spec.latent_dim}"
            )
        if not np.isfinite(latent).all():
            raise MessageError("goal latent is not finite")
        return latent

    def on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        """Comes to rest now; the goal ends as canceled once rclpy has answered the canceller."""
        if self.pursuit is not None and self.pursuit.handle == handle:
            self.send_rest()
            self.executor.create_task(self.finish, "cancel", "canceled")
        return CancelResponse.ACCEPT

    def check_pursuit(self) -> None:
        """Times out even when no frames come."""
        if self.pursuit is not None and self.pursuit.timed_out:
            self.finish("abort", f"not reached within {self.pursuit.timeout_s:g} s")

    def finish(self, ending: str, outcome: str) -> None:
        """End the present pursuit, if there is one, and come to rest."""
        if self.pursuit is None:
            return
        pursuit, self.pursuit = self.pursuit, None
        self.horizon.end()
        self.send_rest()
        self.conclude(pursuit, ending, outcome)

    def conclude(self, pursuit: Pursuit, ending: str, outcome: str) -> None:
        """Give the goal its result.

        A goal is "executed" only now: an execute callback that waits for the end would block the executor,
        and as a coroutine it would keep EventsExecutor polling at full load.
        """

        def result(handle: ServerGoalHandle) -> PursueGoal.Result:
            if ending == "cancel" and handle.is_cancel_requested:
                handle.canceled()
            elif ending == "succeed":
                handle.succeed()
            else:
                handle.abort()
            return PursueGoal.Result(
                reached=ending == "succeed",
                outcome=outcome,
                energy=pursuit.energy,
                elapsed_s=pursuit.elapsed_s,
                decisions=pursuit.decisions,
            )

        pursuit.handle.execute(result)


def main() -> None:
    exit_with(PlannerNode)


if __name__ == "__main__":
    main()
