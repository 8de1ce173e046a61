"""Runs episodes through a running graph from the outside, as any user of its topics and action would.

    with EpisodeClient(graph.domain_id) as client:
        episode = client.run_episode(seed=7)

The success is judged on the simulator's truth, which no node of the graph listens to.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jepa_arm_interfaces.action import PursueGoal
from jepa_arm_interfaces.msg import Latent, PlanStatus, SafetyStatus, SceneTruth
from jepa_arm_interfaces.srv import ResetScene
from numpy.typing import NDArray
from rclpy.action import ActionClient
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Float32
from trajectory_msgs.msg import JointTrajectory

from jepa_arm_ros import qos
from jepa_arm_ros.errors import EpisodeError
from jepa_arm_ros.graph_client import GateClient
from jepa_arm_ros.messages import NANOSECONDS, frame_from_image, stamp_ns
from sim.results import HeldSuccess

STEP_S = 0.1
VIDEO_PERIOD_S = 0.1
# The latest frames may still be on their way through the encoder when an episode ends.
LATENT_GRACE_S = 0.3
# A pursuit that ended within the budget is begun again if at least this much is left of it.
WORTH_PURSUING_S = 0.5


@dataclass
class RosEpisode:
    """One episode over ROS. Times are in seconds since its start; series are of (time, value)."""

    seed: int
    goal_image: NDArray[np.uint8]
    start_image: NDArray[np.uint8]
    start_distance_m: float
    budget_s: float
    success: bool = False
    held: bool = False
    outcome: str = ""
    elapsed_s: float = 0.0
    distances: list[tuple[float, float]] = field(default_factory=list)
    energies: list[tuple[float, float]] = field(default_factory=list)
    steps_to_go: list[tuple[float, float]] = field(default_factory=list)
    surprises: list[float] = field(default_factory=list)
    plan_ms: list[float] = field(default_factory=list)
    encode_ms: list[float] = field(default_factory=list)
    frame_to_command_ms: list[float] = field(default_factory=list)
    video: list[tuple[float, NDArray[np.uint8]]] = field(default_factory=list)
    commands: int = 0
    frames_sent: int = 0
    frames_encoded: int = 0
    stops: list[str] = field(default_factory=list)

    @property
    def final_distance_m(self) -> float:
        return self.distances[-1][1] if self.distances else self.start_distance_m

    @property
    def frames_dropped(self) -> int:
        """Pictures that the camera sent and the encoder made no latent of."""
        return self.frames_sent - self.frames_encoded

    @property
    def camera_hz(self) -> float:
        return self.frames_sent / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def command_hz(self) -> float:
        """Decisions that reached the gate as commands, a second."""
        return self.commands / self.elapsed_s if self.elapsed_s else 0.0


class EpisodeClient(GateClient):
    """Runs one episode at a time."""

    def __init__(self, domain_id: int) -> None:
        super().__init__(domain_id, "episode_client")
        node = self.node
        self._reset_scene = node.create_client(ResetScene, "sim/reset_scene")
        self._pursue = ActionClient(node, PursueGoal, "pursue_goal")
        self._episode: RosEpisode | None = None
        self._started = 0.0
        self._sent: dict[int, bool] = {}
        subscribe = node.create_subscription
        subscribe(SceneTruth, "sim/truth", self._on_truth, qos.RECORD)
        subscribe(PlanStatus, "planner/status", self._on_plan, qos.RECORD)
        subscribe(Latent, "latent", self._on_latent, qos.RECORD)
        subscribe(CameraInfo, "camera/camera_info", self._on_camera_info, qos.RECORD)
        subscribe(Image, "camera/image_raw", self._on_image, qos.IMAGE)
        subscribe(Float32, "sim/frame_to_command_ms", self._on_latency, qos.RECORD)
        subscribe(JointTrajectory, "planner/command", self._on_command, qos.RECORD)
        self._success = HeldSuccess()
        self._on_update: Callable[[RosEpisode], None] = lambda episode: None

    def run_episode(
        self, seed: int, on_update: Callable[[RosEpisode], None] = lambda episode: None
    ) -> RosEpisode:
        """Set the scene of `seed`, pursue its goal picture until held, stopped by the gate, or out of budget.

        `on_update` is called with the growing episode ten times a second. Raises `EpisodeError`.
        """
        scene = self.reset_scene(seed)
        self.reset_safety()
        episode = RosEpisode(
            seed=seed,
            goal_image=frame_from_image(scene.goal_image).image,
            start_image=frame_from_image(scene.start_image).image,
            start_distance_m=scene.start_distance_m,
            budget_s=scene.budget_steps * STEP_S,
        )
        self._begin(episode, on_update)
        try:
            while not self._is_over() and (left_s := self._left_s()) > WORTH_PURSUING_S:
                self._pursue_once(PursueGoal.Goal(goal_image=scene.goal_image, timeout_s=left_s), episode)
        finally:
            self._end(episode)
        return episode

    def reset_scene(self, seed: int) -> ResetScene.Response:
        """A new episode in the simulator. The gate is stopped: it would pull the arm back to where it was."""
        self.stop()
        response = self.call(self._reset_scene, ResetScene.Request(seed=seed))
        if not response.success:
            raise EpisodeError(f"the simulator did not set the scene of seed {seed}: {response.message}")
        return response

    # One episode

    def _begin(self, episode: RosEpisode, on_update: Callable[[RosEpisode], None]) -> None:
        self._success = HeldSuccess()
        self._on_update = on_update
        self._sent.clear()
        self._started = time.monotonic()
        self._started_ns = self.node.get_clock().now().nanoseconds
        self._episode = episode

    def _pursue_once(self, goal: PursueGoal.Goal, episode: RosEpisode) -> None:
        if not self.spin_until(self._pursue.server_is_ready):
            raise EpisodeError("there is no action pursue_goal; is the planner running in this domain?")
        handle = self.wait_for(self._pursue.send_goal_async(goal), "action pursue_goal")
        result = handle.get_result_async()
        self.spin_until(lambda: result.done() or self._is_over(), self._left_s())
        if not result.done():
            self.wait_for(handle.cancel_goal_async(), "cancelling pursue_goal")
        episode.outcome = self.wait_for(result, "the result of pursue_goal").result.outcome
        if episode.outcome.startswith("goal refused"):
            raise EpisodeError(episode.outcome)

    def _end(self, episode: RosEpisode) -> None:
        episode.elapsed_s = self._now_s()
        self._episode = None
        self.spin_until(lambda: all(self._sent.values()), LATENT_GRACE_S)
        episode.frames_sent = len(self._sent)
        episode.frames_encoded = sum(self._sent.values())
        episode.success, episode.held = self._success.reached, self._success.held

    def _is_over(self) -> bool:
        """Whether nothing more can come of the episode: the success was held, or the gate stopped the arm."""
        return self._success.held or bool(self._episode and self._episode.stops)

    def _now_s(self) -> float:
        return time.monotonic() - self._started

    def _left_s(self) -> float:
        return 0.0 if self._episode is None else self._episode.budget_s - self._now_s()

    # What comes in

    def _on_truth(self, message: SceneTruth) -> None:
        episode = self._episode
        if episode is None:
            return
        time_s = (stamp_ns(message.header.stamp) - self._started_ns) / NANOSECONDS
        if time_s < 0 or time_s > episode.budget_s:
            return
        self._success.update(message.distance_m, time_s)
        episode.distances.append((time_s, message.distance_m))
        episode.elapsed_s = self._now_s()
        self._on_update(episode)

    def _on_plan(self, message: PlanStatus) -> None:
        if self._episode is not None:
            self._episode.energies.append((self._now_s(), message.energy))
            self._episode.steps_to_go.append((self._now_s(), message.steps_to_go))
            self._episode.surprises.append(message.surprise)
            self._episode.plan_ms.append(message.plan_ms)

    def _on_camera_info(self, message: CameraInfo) -> None:
        stamp = stamp_ns(message.header.stamp)
        if self._episode is not None and stamp > self._started_ns:
            self._sent.setdefault(stamp, False)
            self._episode.frames_sent = len(self._sent)

    def _on_latent(self, message: Latent) -> None:
        stamp = stamp_ns(message.header.stamp)
        if self._episode is not None:
            self._episode.encode_ms.append(message.encode_ms)
            if stamp > self._started_ns:
                self._sent[stamp] = True
        elif stamp in self._sent:
            self._sent[stamp] = True

    def _on_image(self, message: Image) -> None:
        episode = self._episode
        if episode is None:
            return
        if not episode.video or self._now_s() - episode.video[-1][0] >= VIDEO_PERIOD_S - 0.01:
            episode.video.append((self._now_s(), frame_from_image(message).image.copy()))

    def _on_latency(self, message: Float32) -> None:
        if self._episode is not None:
            self._episode.frame_to_command_ms.append(message.data)

    def _on_command(self, message: JointTrajectory) -> None:
        if self._episode is not None:
            self._episode.commands += 1

    def _took_safety(self, message: SafetyStatus) -> None:
        super()._took_safety(message)
        if self._episode is not None and message.reason:
            self._episode.stops.append(message.reason)
