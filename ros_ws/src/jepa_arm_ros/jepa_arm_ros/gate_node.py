"""Command + joint states → safe setpoints. The gate lives in `hardware.safety`; this only ticks it.

It ticks on a thread of its own, whose deadlines do not wait for messages; a lock lets in one at a time.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from jepa_arm_interfaces.msg import PlanStatus, SafetyStatus
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Header
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from hardware.arm.priority import NEXT_PRIORITY, come_first
from hardware.control_loop import ANY_CORE, ControlLoop
from hardware.kinematics import Kinematics
from hardware.robot import load_robot
from hardware.safety.gate import STOP_STATES, GateConfig, SafetyGate
from hardware.safety.status import Caution, Reason, SafetyState
from hardware.safety.status import SafetyStatus as GateStatus
from jepa_arm_ros import qos
from jepa_arm_ros.errors import MessageError
from jepa_arm_ros.health import Health
from jepa_arm_ros.messages import command_from, header, joint_state_from, setpoint_message
from jepa_arm_ros.parameters import import_factory, parameter, read_parameters
from jepa_arm_ros.running import exit_with

COMMAND_TOPIC = "planner/command"
SETPOINT_TOPIC = "joint_trajectory_controller/joint_trajectory"
DEFAULT = GateConfig()
# How often it is looked whether the ticks go on: a bug in one ends the node, and the driver stops the arm.
CHECK_PERIOD_S = 0.05


@dataclass(frozen=True)
class GateParameters:
    robot: str = parameter("panda", "robot file: a name in hardware/robots or a path")
    rate_hz: float = parameter(100.0, "setpoints a second [Hz]", low=20.0, high=1000.0)
    command_timeout_s: float = parameter(
        DEFAULT.command_timeout_s, "a command is followed for at most this long [s]", low=0.01, high=1.0
    )
    fault_after_s: float = parameter(
        DEFAULT.fault_after_s, "a motion nobody continues is a fault after this long [s]", low=0.02, high=5.0
    )
    rest_after_image_s: float = parameter(
        DEFAULT.rest_after_image_s, "a motion rests this long after its image at last [s]", low=0.02, high=5.0
    )
    max_image_age_s: float = parameter(
        DEFAULT.max_image_age_s, "oldest image a command may be decided from [s]", low=0.01, high=5.0
    )
    state_timeout_s: float = parameter(
        DEFAULT.state_timeout_s, "joint states may be missing this long [s]", low=0.01, high=1.0
    )
    max_command_rate_hz: float = parameter(
        DEFAULT.max_command_rate_hz, "more commands than this are a fault [Hz]", low=20.0, high=10000.0
    )
    e_stop: str = parameter(
        "", "what makes an EStop: module:callable, called without arguments; the gate asks it at every tick"
    )
    max_late_s: float = parameter(
        0.1, "a tick later than this while the arm moves is a fault [s]", low=0.01, high=5.0
    )
    core: int = parameter(ANY_CORE, "processor core the ticks stay on; -1: any", low=ANY_CORE, high=4095)
    max_tracking_error: float = parameter(
        DEFAULT.max_tracking_error, "joints may be this far from their setpoints [rad]", low=0.01, high=3.0
    )


class GateNode(LifecycleNode):
    def __init__(self) -> None:
        super().__init__("gate")
        parameters = read_parameters(self, GateParameters)
        robot = load_robot(parameters.robot)
        config = GateConfig(
            command_timeout_s=parameters.command_timeout_s,
            fault_after_s=parameters.fault_after_s,
            rest_after_image_s=parameters.rest_after_image_s,
            max_command_rate_hz=parameters.max_command_rate_hz,
            max_image_age_s=parameters.max_image_age_s,
            state_timeout_s=parameters.state_timeout_s,
            max_tracking_error=parameters.max_tracking_error,
        )
        self.period_s, self.max_late_s = 1.0 / parameters.rate_hz, parameters.max_late_s
        self.loop = ControlLoop("gate", parameters.rate_hz, self.on_tick, parameters.core)
        self.lock = threading.Lock()
        e_stops = [import_factory(self, "e_stop", parameters.e_stop)()] if parameters.e_stop else []
        self.gate = SafetyGate(robot, Kinematics(robot), config, e_stops=e_stops)
        self.health = Health(self)
        self.health.also_report(lambda: counters(self.status()))
        self.health.also_report_loop(self.loop.timing)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.announced: tuple[SafetyState, Reason, Caution] | None = None
        self.followed_stamp_ns = 0
        self.setpoint_publisher = self.create_publisher(JointTrajectory, SETPOINT_TOPIC, qos.COMMAND)
        self.followed_publisher = self.create_publisher(Header, "safety/followed_frame", qos.RECORD)
        self.status_publisher = self.create_publisher(SafetyStatus, "safety/status", qos.STATUS)
        on_state = self.health.monitor("joint_states", self.on_joint_state)
        on_command = self.health.monitor("command", self.on_command)
        self.create_subscription(JointState, "joint_states", on_state, qos.NEWEST_JOINT_STATE)
        self.create_subscription(JointTrajectory, COMMAND_TOPIC, on_command, qos.COMMAND)
        on_plan = self.health.monitor("plan", self.on_plan)
        self.create_subscription(PlanStatus, "planner/status", on_plan, qos.RECORD)
        on_e_stop = self.health.monitor("e_stop", self.on_e_stop)
        self.create_subscription(Bool, "safety/e_stop", on_e_stop, qos.E_STOP)
        self.create_service(Trigger, "safety/stop", self.on_stop)
        self.create_service(Trigger, "safety/reset", self.on_reset)
        self.create_timer(CHECK_PERIOD_S, self.loop.check)
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.loop.start()
        come_first(NEXT_PRIORITY)
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.loop.stop()
        self.stop(text="the gate was deactivated")
        return super().on_deactivate(state)

    def on_joint_state(self, message: JointState) -> None:
        try:
            joints = joint_state_from(message)
        except MessageError as error:
            return self.get_logger().error(f"joint state ignored: {error}", throttle_duration_sec=1.0)
        with self.lock:
            self.gate.observe(joints, time.monotonic())

    def on_command(self, message: JointTrajectory) -> None:
        stopped = self.status().state in STOP_STATES  # in which even a flood costs little
        if not stopped and (commanders := self.second_commanders()):
            return self.stop(Reason.SECOND_SOURCE, f"nodes {commanders} all command the arm")
        try:
            command = command_from(message)
        except MessageError as error:
            return self.stop(Reason.MALFORMED, str(error))
        image_age_s = self.health.age_s(message.header.stamp)
        with self.lock:
            verdict = self.gate.submit(command, time.monotonic(), image_age_s, message.header.frame_id)
        if not verdict.accepted:
            self.get_logger().warning(f"command refused: {verdict.text}", throttle_duration_sec=1.0)

    def on_e_stop(self, message: Bool) -> None:
        with self.lock:
            self.gate.e_stop(message.data, time.monotonic())

    def on_plan(self, message: PlanStatus) -> None:
        with self.lock:
            self.gate.caution(message.caution, time.monotonic())

    def stop(self, reason: Reason = Reason.OPERATOR_STOP, text: str = "") -> None:
        with self.lock:
            self.gate.stop(time.monotonic(), reason, text)

    def status(self) -> GateStatus:
        with self.lock:
            return self.gate.status

    def second_commanders(self) -> str:
        """The nodes that publish commands, if they are several.

        A killed node's restarted self has the same name and does not count: until DDS forgets the dead one,
        both are listed. Two living nodes of one name are told apart by the source in their commands.
        """
        publishers = self.get_publishers_info_by_topic(COMMAND_TOPIC)
        nodes = {f"{info.node_namespace.rstrip('/')}/{info.node_name}" for info in publishers}
        return ", ".join(sorted(nodes)) if len(nodes) > 1 else ""

    def on_tick(self, late_s: float) -> None:
        with self.lock:
            now_s = time.monotonic()
            if late_s > self.max_late_s and self.gate.status.state is SafetyState.ACTIVE:
                late_ms, most_ms = 1e3 * late_s, 1e3 * self.max_late_s
                text = f"the gate was held up for {late_ms:.0f} ms, at most {most_ms:g} ms are allowed"
                self.gate.stop(now_s, Reason.DEADLINE_MISSED, text)
            setpoint, status = self.gate.tick(now_s), self.gate.status
        if setpoint is not None:
            if setpoint.stamp_ns != self.followed_stamp_ns:
                self.followed_stamp_ns = setpoint.stamp_ns
                self.followed_publisher.publish(header(setpoint.stamp_ns))
            self.setpoint_publisher.publish(
                setpoint_message(setpoint.names, setpoint.positions, self.period_s)
            )
        if (status.state, status.reason, status.caution) != self.announced:
            self.announced = status.state, status.reason, status.caution
            self.announce(status)

    def on_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.stop()
        response.success, response.message = True, self.status().text
        return response

    def on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self.lock:
            verdict = self.gate.reset(time.monotonic())
        response.success, response.message = verdict.accepted, verdict.text
        return response

    def announce(self, status: GateStatus) -> None:
        message = SafetyStatus(header=header(self.get_clock().now().nanoseconds))
        message.state, message.caution = int(status.state), int(status.caution)
        message.speed_share = status.speed_share
        message.reason = "" if status.reason is Reason.NONE else status.reason.value
        message.text = status.text
        counts = counters(status)
        message.counter_names, message.counter_values = list(counts), list(counts.values())
        self.status_publisher.publish(message)
        if message.reason:
            self.get_logger().warning(f"{status.state.name.lower()}: {status.text}")

    def destroy_node(self) -> None:
        self.loop.stop()
        super().destroy_node()


def counters(status: GateStatus) -> dict[str, int]:
    return {
        "accepted": status.commands_accepted,
        "refused": status.commands_refused,
        "pauses": status.pauses,
        "states_ignored": status.states_ignored,
        "stops": status.stops,
        "slows": status.slows,
        "holds": status.holds,
        **{reason.value: count for reason, count in status.counts.items()},
    }


def main() -> None:
    exit_with(GateNode)


if __name__ == "__main__":
    main()
