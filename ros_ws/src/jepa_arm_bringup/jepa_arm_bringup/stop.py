"""`jepa-arm stop`: stop the arm of every graph that runs on this machine, from any terminal."""

from __future__ import annotations

import argparse
import os

EXAMPLE = "jepa-arm stop"
ANSWERS_WITHIN_S = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reset", action="store_true", help="go on instead, from where the joints are measured"
    )
    parser.add_argument("--domain-id", type=int, help="only the graph in this ROS domain")


def run(args: argparse.Namespace) -> int:
    from jepa_arm_bringup.domain import domains_to_ask
    from jepa_arm_bringup.environment import enter_ros_environment

    domains = domains_to_ask(args.domain_id)
    enter_ros_environment()
    service = "safety/reset" if args.reset else "safety/stop"
    answers = {domain: call(service, domain) for domain in domains}
    for domain, (done, text) in answers.items():
        print(f"ROS domain {domain}: {'ready' if args.reset and done else text}")
    return 0 if all(done for done, _ in answers.values()) else 1


def call(service: str, domain: int) -> tuple[bool, str]:
    """What the gate in `domain` answers, or that it does not."""
    from jepa_arm_ros.graph_client import GraphClient
    from std_srvs.srv import Trigger

    with GraphClient(domain, f"jepa_arm_stop_{os.getpid()}") as graph:
        gate = graph.node.create_client(Trigger, service)
        if not graph.spin_until(gate.service_is_ready, ANSWERS_WITHIN_S):
            return False, f"no safety gate answers at {service}: use the emergency stop of the arm itself"
        answer = gate.call_async(Trigger.Request())
        if not graph.spin_until(answer.done, ANSWERS_WITHIN_S):
            return False, f"the safety gate does not answer at {service}: use the arm's own emergency stop"
        return answer.result().success, answer.result().message
