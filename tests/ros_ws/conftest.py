"""Real graphs of real processes over DDS. Each graph runs in a ROS domain of its own."""

from __future__ import annotations

import os

os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"
os.environ.pop("ROS_DOMAIN_ID", None)

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from jepa_arm_bringup.environment import enter_ros_environment

enter_ros_environment()

import rclpy
from action_msgs.msg import GoalStatus
from jepa_arm_bringup.domain import claim_domain
from jepa_arm_bringup.graph import Graph, node_environment
from jepa_arm_bringup.lifecycle import LifecycleManager
from jepa_arm_bringup.shared_memory import remove_leaked_segments
from jepa_arm_interfaces.action import PursueGoal
from jepa_arm_ros import qos
from jepa_arm_ros.episode_client import EpisodeClient
from jepa_arm_ros.messages import stamp_ns
from rclpy.action.client import ClientGoalHandle
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_srvs.srv import SetBool

from .up_command import ROOT, StartUp, Up

REST_RAD_S = 0.01
MOVING_RAD_S = 0.15
MOVES_WITHIN_S = 3.0
SCENES = (2, 3, 4, 5, 6)
ABORTED, CANCELED = GoalStatus.STATUS_ABORTED, GoalStatus.STATUS_CANCELED
STARTS_WITHIN_S = 60.0
ANSWERS_WITHIN_S = 20.0


class Operator(EpisodeClient):
    """Someone at the running graph: gives goals, watches the joints."""

    def __init__(self, domain_id: int) -> None:
        super().__init__(domain_id)
        self.speeds: list[tuple[int, float]] = []  # (stamp in ns, fastest joint in rad/s)
        self.images: list[int] = []
        self.goal_image = Image()
        self._pause = self.node.create_client(SetBool, "sim/pause_camera")
        self.node.create_subscription(JointState, "joint_states", self._on_joints, qos.RECORD)
        self.node.create_subscription(
            Image,
            "camera/image_raw",
            lambda image: self.images.append(stamp_ns(image.header.stamp)),
            qos.IMAGE,
        )

    def _on_joints(self, message: JointState) -> None:
        self.speeds.append((stamp_ns(message.header.stamp), float(np.abs(message.velocity).max())))

    def set_scene(self, seed: int) -> None:
        """A fresh scene, a camera that runs, a gate that is ready."""
        self.pause_camera(False)
        self.goal_image = self.reset_scene(seed).goal_image
        self.reset_safety()

    def pause_camera(self, paused: bool) -> None:
        self.call(self._pause, SetBool.Request(data=paused))

    def pursue(self, goal: PursueGoal.Goal | None = None) -> ClientGoalHandle:
        goal = goal or PursueGoal.Goal(goal_image=self.goal_image)
        assert self.spin_until(self._pursue.server_is_ready, ANSWERS_WITHIN_S), (
            "there is no action pursue_goal"
        )
        return self.wait_for(self._pursue.send_goal_async(goal), "pursue_goal", ANSWERS_WITHIN_S)

    def result_of(self, handle: ClientGoalHandle) -> tuple[int, PursueGoal.Result]:
        """Status (a GoalStatus constant) and result of a goal that ends."""
        response = self.wait_for(handle.get_result_async(), "the goal's result", ANSWERS_WITHIN_S)
        return response.status, response.result

    def pursue_until_moving(self) -> ClientGoalHandle:
        """Pursue a goal until the arm moves: the first of some scenes in which the planner wants to."""
        for seed in SCENES:
            handle = self.pursue()
            self.speeds.clear()
            if self.spin_until(lambda: self.speed > MOVING_RAD_S, MOVES_WITHIN_S):
                return handle
            self.set_scene(seed)
        raise AssertionError(f"the arm moves in none of the scenes {SCENES}")

    def wait_until_moving(self) -> None:
        self.speeds.clear()
        moved = self.spin_until(lambda: self.speed > MOVING_RAD_S, ANSWERS_WITHIN_S)
        assert moved, f"the arm does not move; the gate says {self.safety}"

    @property
    def speed(self) -> float:
        """The fastest joint now, rad/s."""
        return self.speeds[-1][1] if self.speeds else 0.0

    def seconds_until_rest(self, since_ns: int, watch_s: float = 1.0) -> float:
        """From `since_ns` on the ROS clock to the last moment that some joint was faster than rest.

        On the stamps that the simulator gave its joint states; watches until `watch_s` after `since_ns`.
        """
        end_ns = since_ns + int(watch_s * 1e9)
        assert self.spin_until(lambda: self.speeds[-1][0] >= end_ns, ANSWERS_WITHIN_S), "joint states stopped"
        moving = [
            stamp for stamp, speed in self.speeds if since_ns <= stamp <= end_ns and speed >= REST_RAD_S
        ]
        return (moving[-1] - since_ns) * 1e-9 if moving else 0.0

    def stops_for(self, reason: str, meanwhile: Callable[[], None] = lambda: None) -> bool:
        """Whether the gate stops, or has stopped, for this reason; calls `meanwhile` while waiting."""

        def stopped() -> bool:
            meanwhile()
            return self.safety is not None and self.safety.reason == reason

        return self.spin_until(stopped, ANSWERS_WITHIN_S)


def now_ns() -> int:
    """The ROS clock, which without use_sim_time is the system's."""
    return time.time_ns()


@pytest.fixture(scope="session")
def bundle() -> Path:
    return ROOT / "models" / "panda-push"


@pytest.fixture(scope="session")
def start_graph(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Graph]:
    """Starts a graph and waits until it is ready; whoever calls it stops it."""

    def start(**settings: object) -> Graph:
        logs = tmp_path_factory.mktemp("graph")
        # The fastest runtime is another on another machine.
        told = {"task": "push", "bundle": str(bundle), "runtime": "onnxruntime", "seed": 1, **settings}
        graph = Graph(told, log_dir=logs)
        try:
            graph.start()
            graph.wait_ready(STARTS_WITHIN_S)
        except BaseException:
            graph.stop()
            raise
        return graph

    return start


@pytest.fixture(scope="module")
def running_graph(start_graph: Callable[..., Graph]) -> Iterator[Graph]:
    """One graph that the tests of a file share; its gate and simulator must live on."""
    graph = start_graph()
    yield graph
    graph.stop()


@pytest.fixture(scope="module")
def shared_operator(running_graph: Graph) -> Iterator[Operator]:
    with Operator(running_graph.domain_id) as operator:
        yield operator


@pytest.fixture
def operator(running_graph: Graph, shared_operator: Operator) -> Operator:
    """At the shared graph, which is all active again, with a fresh scene."""
    running_graph.wait_ready(STARTS_WITHIN_S)
    shared_operator.set_scene(seed=1)
    return shared_operator


class Peer:
    """A node of the test in a domain of its own, to talk to single nodes."""

    def __init__(self, domain_id: int) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.node: Node = rclpy.create_node("peer", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def spin_until(self, done: Callable[[], bool], timeout_s: float = ANSWERS_WITHIN_S) -> bool:
        deadline = time.monotonic() + timeout_s
        while not done() and time.monotonic() < deadline:
            self.executor.spin_once(timeout_sec=0.05)
        return done()

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def start_node() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts one node with the given parameters; it is ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(
        executable: str, domain_id: int, environment: dict[str, str] | None = None, **parameters: object
    ) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", f"jepa_arm_ros.{executable}", "--ros-args"]
        command += ["--disable-external-lib-logs"]
        for name, value in parameters.items():
            command += ["-p", f"{name}:={json.dumps(value)}"]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**node_environment(domain_id), **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
    remove_leaked_segments()


@pytest.fixture
def up(bundle: Path) -> Iterator[StartUp]:
    started: list[Up] = []

    def start(*arguments: str) -> Up:
        started.append(Up("--bundle", str(bundle), *arguments))
        return started[-1]

    yield start
    for one in started:
        one.kill_all()


@pytest.fixture
def activate() -> Callable[[str, int], str]:
    """Brings a node to active; "active", or "failed" where it refuses."""

    def drive(name: str, domain_id: int) -> str:
        manager = LifecycleManager(domain_id, (name,))
        try:
            deadline = time.monotonic() + STARTS_WITHIN_S
            while manager.poll(name) not in ("active", "failed") and time.monotonic() < deadline:
                manager.spin(0.05)
            return manager.poll(name)
        finally:
            manager.close()

    return drive


@pytest.fixture
def own_domain() -> Iterator[int]:
    domain = claim_domain()
    yield domain.number
    domain.release()


@pytest.fixture
def peer(own_domain: int) -> Iterator[Peer]:
    peer = Peer(own_domain)
    yield peer
    peer.close()
