"""`jepa-arm bag`: the graph's topics as an MCAP file, and a LeRobot dataset out of one."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "jepa-arm bag record --out out/table.mcap"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subparsers = parser.add_subparsers(dest="_what", metavar="WHAT", required=True)
    record = subparsers.add_parser("record", help="record every topic of a running graph, until Ctrl-C")
    record.add_argument("--out", type=Path, required=True, metavar="FILE", help="the MCAP file to write")
    record.add_argument(
        "--domain-id", type=int, help="ROS domain (default: that of the graph that runs here)"
    )
    record.add_argument("--seconds", type=float, help="end after so long")
    record.set_defaults(_run=run_record)
    convert = subparsers.add_parser("to-dataset", help="make a LeRobot dataset of what a bag holds")
    convert.add_argument("bag", type=Path, metavar="BAG", help="MCAP file with ROS 2 messages")
    convert.add_argument("--out", type=Path, required=True, help="dataset folder; one that was begun grows")
    convert.add_argument("--robot", required=True, help="robot file of the arm in it: a name or a path")
    convert.add_argument("--task", default="push", help='what is done, in words (default: "push")')
    convert.add_argument("--fps", type=int, help="rows a second (default: the robot file's camera's)")
    convert.add_argument("--camera-name", default="front", help="observation.images.NAME (default: front)")
    convert.set_defaults(_run=run_to_dataset)
    for subparser in (record, convert):
        subparser.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )


def run(args: argparse.Namespace) -> int:
    return args._run(args)


def run_record(args: argparse.Namespace) -> int:
    from jepa_arm_bringup.domain import running_domains
    from jepa_arm_bringup.environment import enter_ros_environment
    from jepa_arm_bringup.errors import GraphError

    domains = [args.domain_id] if args.domain_id is not None else running_domains()
    if len(domains) != 1:
        found = f"several graphs run ({', '.join(map(str, domains))})" if domains else "no graph runs"
        raise GraphError(f"{found} on this machine: name a ROS domain with --domain-id")
    enter_ros_environment()
    from jepa_arm_bringup.bag_recording import record_bag
    from jepa_arm_bringup.up import stop_signals, tell

    with stop_signals():
        record_bag(args.out, domains[0], args.seconds, tell)
    return 0


def run_to_dataset(args: argparse.Namespace) -> int:
    from jepa_arm_bringup.up import tell
    from sim.bag_dataset import Wanted, dataset_of_bag

    dataset_of_bag(args.bag, args.out, Wanted(args.robot, args.task, args.camera_name, args.fps), tell)
    return 0
