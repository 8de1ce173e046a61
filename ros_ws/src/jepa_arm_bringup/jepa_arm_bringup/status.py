"""`jepa-arm status`: what the gate does, and how well the control loops keep their time, on this machine."""

from __future__ import annotations

import argparse
import os
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
    from diagnostic_msgs.msg import DiagnosticArray
    from jepa_arm_ros import qos
    from jepa_arm_ros.graph_client import GateClient
    from jepa_arm_ros.health import LOOP

    heard = Heard()

    def on_diagnostics(message: DiagnosticArray) -> None:
        loops = (status for status in message.status if status.name.endswith(f": {LOOP}"))
        heard.loops.update({status.name.replace(":", ""): status.message for status in loops})

    with GateClient(domain, f"jepa_arm_status_{os.getpid()}") as client:
        client.node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, qos.RECORD)
        client.spin(LISTENS_S)
    if (safety := client.safety) is not None:
        reason = f" ({safety.text})" if safety.text else ""
        heard.gate = f"the gate is {STATES[safety.state]}{reason}"
    return heard
