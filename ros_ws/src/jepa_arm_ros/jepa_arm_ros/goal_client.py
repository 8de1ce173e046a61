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
from typing import Any

import numpy as np
from jepa_arm_interfaces.action import PursueGoal
from jepa_arm_interfaces.msg import SafetyStatus
from numpy.typing import NDArray
from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from rclpy.task import Future
from sensor_msgs.msg import Image

from hardware.camera.contract import Frame
from jepa_arm_ros import qos
from jepa_arm_ros.errors import EpisodeError, GoalRefused
from jepa_arm_ros.graph_client import SPIN_SLICE_S, GateClient
from jepa_arm_ros.messages import frame_from_image, image_message

# The planner decides ten times a second and more; the gate notices a pause in motion far sooner than this.
SILENT_AFTER_S = 10.0
RESTS_WITHIN_S = 3.0
REFUSED = "goal refused: "


@dataclass(frozen=True)
class Ending:
    """How a pursuit ended: `text` is one sentence. Energy as in PursueGoal, `elapsed_s` in s."""

    reached: bool
    text: str
    energy: float = float("nan")
    elapsed_s: float = 0.0
    decisions: int = 0


class GoalClient(GateClient):
    """Pursues one goal at a time; `feedback` is what the planner last said of it."""

    def __init__(self, domain_id: int) -> None:
        super().__init__(domain_id, f"jepa_arm_goal_{os.getpid()}")
        self._where = f"ROS domain {domain_id}"
        self.feedback: PursueGoal.Feedback | None = None
        self._heard_s = 0.0
        self._pursue = ActionClient(self.node, PursueGoal, "pursue_goal")

    @property
    def _resting(self) -> bool:
        return self.safety is not None and self.safety.state in (SafetyStatus.IDLE, SafetyStatus.STOPPED)

    def wait_ready(self, interrupted: Callable[[], bool] = lambda: False) -> None:
        """Until gate and planner are there, or `interrupted()`. Raises `EpisodeError` naming what is not."""
        if not self.spin_until(lambda: self.safety is not None or interrupted()):
            raise EpisodeError(f"there is no safety gate in {self._where}: is the graph running?")
        if not self.spin_until(lambda: self._pursue.server_is_ready() or interrupted()):
            raise EpisodeError(f"there is no planner in {self._where}: `jepa-arm up` with a bundle has one")

    def picture(self) -> Frame:
        """The next picture of the camera. Raises `EpisodeError` if none comes."""
        came: list[Image] = []
        subscription = self.node.create_subscription(Image, "camera/image_raw", came.append, qos.IMAGE)
        try:
            if not self.spin_until(lambda: bool(came)):
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
        handle = self._answer(accepted, "the planner does not answer to the goal")
        result = handle.get_result_async()
        why = ""
        try:
            while not result.done() and not why:
                self.spin_until(result.done, SPIN_SLICE_S)
                on_progress()
                why = self._why_to_end(interrupted)
        finally:
            if not result.done():
                self._cancel(handle, result)
        self.spin_until(lambda: self._resting, RESTS_WITHIN_S)
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
        self._answer(result, "the planner does not answer")

    def _answer(self, future: Future, silence: str) -> Any:
        """What the planner answers; a planner that does not may still move the arm."""
        if self.spin_until(future.done):
            return future.result()
        try:
            self.stop()
        except EpisodeError as error:
            raise EpisodeError(f"{silence}, nor does the gate: use the arm's own emergency stop") from error
        raise EpisodeError(f"{silence}; the gate was told to stop the arm")

    def _took_feedback(self, message: PursueGoal.Impl.FeedbackMessage) -> None:
        self.feedback, self._heard_s = message.feedback, time.monotonic()
