"""Gives goal pictures to a running graph, takes pictures from its camera, watches what comes of them.

with GoalClient(domain_id) as client:
    client.wait_ready()
    ending = client.pursue(image, timeout_s=60.0)

Whatever ends the watching ends the pursuit too: the goal is cancelled, which brings the arm to rest; if
nobody answers that, the gate is told to stop the arm.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import rclpy
from jepa_arm_interfaces.action import PursueGoal
from jepa_arm_interfaces.msg import SafetyStatus
from numpy.typing import NDArray
from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from rclpy.experimental.events_executor import EventsExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from hardware.camera.contract import Frame
from jepa_arm_ros import qos
from jepa_arm_ros.errors import EpisodeError, GoalRefused
from jepa_arm_ros.messages import frame_from_image, image_message

ANSWER_TIMEOUT_S = 10.0
SPIN_SLICE_S = 0.05
# The planner decides ten times a second and more; the gate notices a pause in motion far sooner than this.
SILENT_AFTER_S = 10.0
RESTS_WITHIN_S = 3.0
REFUSED = "goal refused: "
STOPPED = (SafetyStatus.STOPPING, SafetyStatus.STOPPED)


@dataclass(frozen=True)
class Ending:
    """How a pursuit ended: `text` is one sentence. Energy as in PursueGoal, `elapsed_s` in s."""

    reached: bool
    text: str
    energy: float = float("nan")
    elapsed_s: float = 0.0
    decisions: int = 0


class GoalClient:
    """A node of the caller's process. One thread uses it; callbacks run while it waits for something."""

    def __init__(self, domain_id: int) -> None:
        self._where = f"ROS domain {domain_id}"
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain_id, signal_handler_options=SignalHandlerOptions.NO)
        self.node: Node = rclpy.create_node(f"jepa_arm_goal_{os.getpid()}", context=self._context)
        self._executor = EventsExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.safety: SafetyStatus | None = None
        self.feedback: PursueGoal.Feedback | None = None
        self._heard_s = 0.0
        self._pursue = ActionClient(self.node, PursueGoal, "pursue_goal")
        self._stop = self.node.create_client(Trigger, "safety/stop")
        self.node.create_subscription(SafetyStatus, "safety/status", self._took_safety, qos.STATUS)

    def __enter__(self) -> GoalClient:
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
        return self.safety is not None and self.safety.state in STOPPED

    @property
    def _resting(self) -> bool:
        return self.safety is not None and self.safety.state in (SafetyStatus.IDLE, SafetyStatus.STOPPED)

    def wait_ready(self, interrupted: Callable[[], bool] = lambda: False) -> None:
        """Until gate and planner are there, or `interrupted()`. Raises `EpisodeError` naming what is not."""
        if not self._wait(lambda: self.safety is not None or interrupted()):
            raise EpisodeError(f"there is no safety gate in {self._where}: is the graph running?")
        if not self._wait(lambda: self._pursue.server_is_ready() or interrupted()):
            raise EpisodeError(f"there is no planner in {self._where}: `jepa-arm up` with a bundle has one")

    def picture(self) -> Frame:
        """The next picture of the camera. Raises `EpisodeError` if none comes."""
        came: list[Image] = []
        subscription = self.node.create_subscription(Image, "camera/image_raw", came.append, qos.IMAGE)
        try:
            if not self._wait(lambda: bool(came)):
                raise EpisodeError(
                    f"no picture comes in {self._where}: the last messages of `jepa-arm up` say why "
                    "(with --arm-only there is no camera)"
                )
        finally:
            self.node.destroy_subscription(subscription)
        return frame_from_image(came[-1])

    def pursue(
        self,
        image: NDArray[np.uint8],
        timeout_s: float = 0.0,
        on_progress: Callable[[], None] = lambda: None,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> Ending:
        """Pursue `image`, uint8 (H, W, 3) RGB of the camera's size, until it is reached, `timeout_s` are over
        (0: no limit), the gate stops the arm, the planner falls silent, or `interrupted()`.

        `on_progress` is called twenty times a second; `feedback` and `safety` tell how it goes. Raises
        `GoalRefused` if the planner does not take the picture, `EpisodeError` if nobody answers.
        """
        if self.stopped:
            return Ending(False, self._gate_says())
        self.feedback, self._heard_s = None, time.monotonic()
        picture = image_message(Frame(image, self.node.get_clock().now().nanoseconds, ""))
        goal = PursueGoal.Goal(goal_image=picture, timeout_s=timeout_s)
        accepted = self._pursue.send_goal_async(goal, feedback_callback=self._took_feedback)
        if not self._wait(accepted.done):
            self._stop_arm()
            raise EpisodeError("the planner does not answer to the goal; the gate was told to stop the arm")
        handle = accepted.result()
        result = handle.get_result_async()
        why = ""
        try:
            while not result.done() and not why:
                self._wait(result.done, SPIN_SLICE_S)
                on_progress()
                why = self._why_to_end(interrupted)
        finally:
            if not result.done():
                self._cancel(handle, result)
        self._wait(lambda: self._resting, RESTS_WITHIN_S)
        answer = result.result().result
        if answer.outcome.startswith(REFUSED):
            raise GoalRefused(answer.outcome.removeprefix(REFUSED))
        text = answer.outcome if answer.reached or not why else why
        return Ending(answer.reached, text, answer.energy, answer.elapsed_s, answer.decisions)

    def _why_to_end(self, interrupted: Callable[[], bool]) -> str:
        if interrupted():
            return "cancelled"
        if self.stopped:
            return self._gate_says()
        if time.monotonic() - self._heard_s > SILENT_AFTER_S:
            return f"no decision for {SILENT_AFTER_S:g} s: no pictures come, or no joint states"
        return ""

    def _gate_says(self) -> str:
        assert self.safety is not None
        return f"the gate has stopped the arm: {self.safety.text}"

    def _cancel(self, handle: ClientGoalHandle, result: Future) -> None:
        handle.cancel_goal_async()
        if not self._wait(result.done):
            self._stop_arm()
            raise EpisodeError("the planner does not answer; the gate was told to stop the arm")

    def _stop_arm(self) -> None:
        self._wait(self._stop.call_async(Trigger.Request()).done)

    def _wait(self, done: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Handle what comes in until `done()`; False if it is not in time."""
        deadline = time.monotonic() + (ANSWER_TIMEOUT_S if timeout_s is None else timeout_s)
        while not done():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            self._executor.spin_until_future_complete(Future(), min(left_s, SPIN_SLICE_S))
        return True

    def _took_safety(self, message: SafetyStatus) -> None:
        self.safety = message

    def _took_feedback(self, message: PursueGoal.Impl.FeedbackMessage) -> None:
        self.feedback, self._heard_s = message.feedback, time.monotonic()
