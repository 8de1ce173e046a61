"""`jepa-arm stop`: stop the arm of every graph that runs on this machine, from any terminal."""

from __future__ import annotations

import argparse
import os
import time

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
    import rclpy
    from rclpy.signals import SignalHandlerOptions
    from std_srvs.srv import Trigger

    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = rclpy.create_node(f"jepa_arm_stop_{os.getpid()}", context=context)
        executor = rclpy.executors.SingleThreadedExecutor(context=context)
        executor.add_node(node)
        client = node.create_client(Trigger, service)
        deadline = time.monotonic() + ANSWERS_WITHIN_S
        while not client.service_is_ready():
            if time.monotonic() > deadline:
                return False, f"no safety gate answers at {service}: use the emergency stop of the arm itself"
            executor.spin_once(timeout_sec=0.02)
        answer = client.call_async(Trigger.Request())
        executor.spin_until_future_complete(answer, ANSWERS_WITHIN_S)
        if not answer.done():
            return False, f"the safety gate does not answer at {service}: use the arm's own emergency stop"
        return answer.result().success, answer.result().message
    finally:
        rclpy.shutdown(context=context)
