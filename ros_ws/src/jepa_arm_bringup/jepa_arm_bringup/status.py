"""`jepa-arm status`: what the gate does, and how well the control loops keep their time, on this machine."""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass, field

EXAMPLE = "jepa-arm status"
# Diagnostics come once a second.
LISTENS_S = 2.5
STATES = ("holding still, ready", "following commands", "stopping", "stopped")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--domain-id", type=int, help="only the graph in this ROS domain")


def run(args: argparse.Namespace) -> int:
    from jepa_arm_bringup.domain import domains_to_ask
    from jepa_arm_bringup.environment import enter_ros_environment

    domains = domains_to_ask(args.domain_id)
    enter_ros_environment()
    heard = {domain: listen(domain) for domain in domains}
    for domain, found in heard.items():
        print(f"ROS domain {domain}: {found.gate or 'no safety gate speaks here'}")
        for name, timing in sorted(found.loops.items()):
            print(f"  {name}: {timing}")
    return 0 if all(found.gate for found in heard.values()) else 1


@dataclass
class Heard:
    """What the gate does, in words, and the timing of each loop by its name."""

    gate: str = ""
    loops: dict[str, str] = field(default_factory=dict)


def listen(domain: int) -> Heard:
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from jepa_arm_interfaces.msg import SafetyStatus
    from jepa_arm_ros import qos
    from jepa_arm_ros.health import LOOP
    from rclpy.signals import SignalHandlerOptions

    heard = Heard()

    def on_safety(message: SafetyStatus) -> None:
        reason = f" ({message.text})" if message.text else ""
        heard.gate = f"the gate is {STATES[message.state]}{reason}"

    def on_diagnostics(message: DiagnosticArray) -> None:
        loops = (status for status in message.status if status.name.endswith(f": {LOOP}"))
        heard.loops.update({status.name.replace(":", ""): status.message for status in loops})

    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = rclpy.create_node(f"jepa_arm_status_{os.getpid()}", context=context)
        executor = rclpy.executors.SingleThreadedExecutor(context=context)
        executor.add_node(node)
        node.create_subscription(SafetyStatus, "safety/status", on_safety, qos.STATUS)
        node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, qos.RECORD)
        deadline = time.monotonic() + LISTENS_S
        while (left_s := deadline - time.monotonic()) > 0.0:
            executor.spin_once(timeout_sec=left_s)
    finally:
        rclpy.shutdown(context=context)
    return heard
