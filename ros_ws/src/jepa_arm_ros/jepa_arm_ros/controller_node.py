"""Beside an arm that ros2_control drives: nobody but the gate commands its joint_trajectory_controller.

Such an arm needs no driver of ours: the gate publishes to the controller's topic, its
joint_state_broadcaster publishes joint_states. But the controller also has an action, FollowJointTrajectory,
and takes its topic from anyone. This node ends what runs there when it becomes active; a goal that comes past
the gate later is cancelled, and the gate is stopped until someone has looked.

The action's own types (control_msgs) are not needed: cancelling and status are the same for every action.
"""

from __future__ import annotations

from dataclasses import dataclass

from action_msgs.msg import GoalStatus, GoalStatusArray
from action_msgs.srv import CancelGoal
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import qos_profile_action_status_default
from std_srvs.srv import Trigger

from jepa_arm_ros.health import Health
from jepa_arm_ros.parameters import parameter, read_parameters
from jepa_arm_ros.running import exit_with

SETPOINT_TOPIC = "joint_trajectory_controller/joint_trajectory"
# What DDS calls a node whose endpoint it has found before its name, for a moment.
NOT_YET_KNOWN = "_NODE_NAME_UNKNOWN_"
RUNNING = (GoalStatus.STATUS_ACCEPTED, GoalStatus.STATUS_EXECUTING)


@dataclass(frozen=True)
class ControllerParameters:
    action: str = parameter(
        "joint_trajectory_controller/follow_joint_trajectory",
        "the controller's action, which is to stay unused",
    )
    gate: str = parameter("gate", "name of the only node that may publish setpoints")
    rate_hz: float = parameter(
        10.0, "how often publishers of setpoints are looked up [Hz]", low=1.0, high=100.0
    )


class ControllerNode(LifecycleNode):
    def __init__(self) -> None:
        super().__init__("controller")
        self.parameters = read_parameters(self, ControllerParameters)
        self.health = Health(self)
        self.health.also_report(lambda: {"intruders": self.intruders})
        self.intruders = 0

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        action = self.parameters.action
        self.active = False
        self.seen: set[bytes] = set()
        self.strangers: set[str] = set()
        self.cancel = self.create_client(CancelGoal, f"{action}/_action/cancel_goal")
        self.stop_gate = self.create_client(Trigger, "safety/stop")
        self.create_subscription(
            GoalStatusArray, f"{action}/_action/status", self.on_status, qos_profile_action_status_default
        )
        self.timer = self.create_timer(1 / self.parameters.rate_hz, self.on_tick, autostart=False)
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.active = True
        self.cancel_all()
        self.timer.reset()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.active = False
        self.timer.cancel()
        return super().on_deactivate(state)

    def on_status(self, message: GoalStatusArray) -> None:
        running = {
            bytes(status.goal_info.goal_id.uuid) for status in message.status_list if status.status in RUNNING
        }
        if self.active and running - self.seen:
            self.intrude(f"a goal runs at {self.parameters.action}")
            self.cancel_all()
        self.seen = running

    def on_tick(self) -> None:
        """The controller takes setpoints from everyone: look who publishes them."""
        publishers = self.get_publishers_info_by_topic(SETPOINT_TOPIC)
        strangers = {info.node_name for info in publishers} - {self.parameters.gate, NOT_YET_KNOWN}
        if strangers - self.strangers:
            self.intrude(f"{', '.join(sorted(strangers))} publishes to {SETPOINT_TOPIC}")
        self.strangers = strangers

    def intrude(self, how: str) -> None:
        self.intruders += 1
        self.get_logger().error(f"{how}, past the gate: it is stopped; end that, then call safety/reset")
        self.stop_gate.call_async(Trigger.Request())

    def cancel_all(self) -> None:
        """A request without goal id and stamp cancels every goal."""
        self.cancel.call_async(CancelGoal.Request())


def main() -> None:
    exit_with(ControllerNode)


if __name__ == "__main__":
    main()
