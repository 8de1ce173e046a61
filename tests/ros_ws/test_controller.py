"""Beside an arm that ros2_control drives, for which the simulator stands in: it speaks the same topics.

A real joint_trajectory_controller cannot run here (the ROS wheels have neither ros2_control nor
control_msgs); two parts stand for its action that are the same for every action: cancelling, and status.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from action_msgs.msg import GoalInfo, GoalStatus, GoalStatusArray
from action_msgs.srv import CancelGoal
from jepa_arm_bringup.graph import Graph
from jepa_arm_interfaces.msg import SafetyStatus
from jepa_arm_ros import qos
from jepa_arm_ros.messages import command_message
from rclpy.qos import qos_profile_action_status_default
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory
from unique_identifier_msgs.msg import UUID

from hardware.arm.contract import JointCommand
from hardware.robot import load_robot

from .conftest import STARTS_WITHIN_S, Peer, now_ns

pytestmark = pytest.mark.ros

ACTION = "joint_trajectory_controller/follow_joint_trajectory/_action"
SETPOINTS = "joint_trajectory_controller/joint_trajectory"
ROBOT = load_robot("panda")


@dataclass
class Cell:
    """The simulator as a ros2_control arm, gate and controller node beside it, and a peer at all of them."""

    peer: Peer
    states: list[JointState] = field(default_factory=list)
    cancelled: list[GoalInfo] = field(default_factory=list)
    safety: SafetyStatus = field(default_factory=SafetyStatus)

    def __post_init__(self) -> None:
        node = self.peer.node
        node.create_subscription(JointState, "joint_states", self.states.append, qos.JOINT_STATES)
        node.create_subscription(SafetyStatus, "safety/status", self.on_safety, qos.STATUS)
        node.create_service(CancelGoal, f"{ACTION}/cancel_goal", self.on_cancel)
        self.status = node.create_publisher(
            GoalStatusArray, f"{ACTION}/status", qos_profile_action_status_default
        )
        self.commands = node.create_publisher(JointTrajectory, "planner/command", qos.COMMAND)
        self.reset = node.create_client(Trigger, "safety/reset")

    def on_safety(self, status: SafetyStatus) -> None:
        self.safety = status

    def on_cancel(self, request: CancelGoal.Request, response: CancelGoal.Response) -> CancelGoal.Response:
        self.cancelled.append(request.goal_info)
        return response

    def command(self) -> None:
        v = np.zeros(len(ROBOT.joints))
        v[0] = 0.4
        q = np.array(self.states[-1].position) + 0.12 * v
        self.commands.publish(
            command_message(JointCommand(ROBOT.joint_names, q, v, 0.12, now_ns()), "planner")
        )

    def moves(self) -> bool:
        self.command()
        return self.states[-1].velocity[0] > 0.1

    def ready_again(self) -> None:
        def reset() -> bool:
            answer = self.reset.call_async(Trigger.Request())
            return self.peer.spin_until(answer.done) and answer.result().success

        assert self.peer.spin_until(reset)


@pytest.fixture
def start_cell(
    start_node: Callable[..., subprocess.Popen[str]], activate: Callable[..., str], tmp_path: Path
) -> Iterator[Callable[..., Cell]]:
    cells: list[Cell] = []
    graph = Graph(
        {"robot": "panda"}, world="ros2_control", without=("camera", "encoder", "planner"), log_dir=tmp_path
    )

    def start(prepare: Callable[[Cell], None] = lambda cell: None) -> Cell:
        graph.start()
        cell = Cell(Peer(graph.domain_id))
        cells.append(cell)
        prepare(cell)
        start_node("sim_node", graph.domain_id)
        assert activate("sim", graph.domain_id) == "active"
        graph.wait_ready(STARTS_WITHIN_S)
        assert cell.peer.spin_until(lambda: cell.states and cell.commands.get_subscription_count())
        return cell

    yield start
    for cell in cells:
        cell.peer.close()
    graph.stop()


def running_goal(number: int) -> GoalStatusArray:
    info = GoalInfo(goal_id=UUID(uuid=np.full(16, number, np.uint8)))
    return GoalStatusArray(status_list=[GoalStatus(goal_info=info, status=GoalStatus.STATUS_EXECUTING)])


def test_the_gate_alone_drives_the_controller(start_cell: Callable[..., Cell]) -> None:
    cell = start_cell()
    assert cell.peer.spin_until(cell.moves), cell.safety

    # A goal of someone else: it is cancelled, all goals at once, and the gate stops.
    cell.cancelled.clear()
    cell.status.publish(running_goal(7))
    assert cell.peer.spin_until(lambda: cell.cancelled and cell.safety.reason == "operator_stop")
    assert not np.any(cell.cancelled[0].goal_id.uuid) and cell.cancelled[0].stamp.sec == 0
    cell.ready_again()
    assert cell.peer.spin_until(cell.moves), "the same goal, still listed, stops the gate again"

    # Setpoints from someone else.
    rogue = cell.peer.node.create_publisher(JointTrajectory, SETPOINTS, qos.COMMAND)
    assert cell.peer.spin_until(lambda: cell.safety.reason == "operator_stop"), (
        "a second publisher is not seen"
    )
    cell.peer.node.destroy_publisher(rogue)
    cell.ready_again()
    assert cell.peer.spin_until(cell.moves)


def test_a_goal_that_ran_before_is_cancelled_at_the_start(start_cell: Callable[..., Cell]) -> None:
    cell = start_cell(lambda cell: cell.status.publish(running_goal(3)))
    assert cell.peer.spin_until(lambda: cell.cancelled)
