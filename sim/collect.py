"""`jepa-arm collect`: play data in parallel, shard by shard, resumable.

Every shard is made from its own seed, so the data does not depend on which workers make it, nor on how many,
and a run that was cut goes on with the shards that are missing.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from sim.conditions import GROUPS
from sim.workers import add_worker_arguments, open_workers

EXAMPLE = "jepa-arm collect --task push --out data/panda-push"

EPISODES_PER_SHARD = 24
# Enough of them to tell what moves from what merely differs between sessions; so few that there are many.
EPISODES_PER_SESSION = 4
IMAGE_SIZE = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", choices=("reach", "push", "push-pose", "pick-place"), required=True)
    parser.add_argument("--robot", help="robot file: a name or a path (default: the task's)")
    parser.add_argument(
        "--episodes", type=int, help="how many (default: what the task's shipped bundle takes)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the play (default: 0)")
    parser.add_argument(
        "--same",
        action="append",
        choices=tuple(GROUPS),
        default=[],
        help="what is to be the same in all of it, as for a camera that nobody moves; may be repeated",
    )
    add_worker_arguments(parser, os.cpu_count() or 1, "processes (default: as many as there are cores)")
    parser.add_argument("--out", type=Path, required=True, help="folder; one that was begun is gone on with")


def run(args: argparse.Namespace) -> int:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from hardware.robot import load_robot
    from perception.dataset import (
        DatasetInfo,
        read_shard,
        remove_partial_files,
        shard_path,
        write_description,
    )
    from sim.control import DECISION_S
    from sim.errors import SimulationError
    from sim.recording import record_shard
    from sim.tasks import check_robot, make_task

    if args.episodes is not None and args.episodes < 1:
        raise SimulationError(f"--episodes {args.episodes}: ask for at least one")
    if args.seed < 0:
        raise SimulationError(f"--seed {args.seed}: seeds are not negative")
    task = make_task(args.task)
    robot = load_robot(args.robot or task.robot)
    check_robot(task, robot)
    info = DatasetInfo(
        task=task.name,
        robot=robot.name,
        image_size=IMAGE_SIZE,
        axes=task.axes,
        fixed=task.fixed,
        action_limit_m=task.action_limit_m,
        period_s=DECISION_S,
        camera=robot.camera.model_dump(mode="json"),
        seed=args.seed,
        steps=task.play_steps,
        episodes=args.episodes or task.play_episodes,
        episodes_per_shard=EPISODES_PER_SHARD,
        session=EPISODES_PER_SESSION,
        same=tuple(sorted(set(args.same))),
    )
    write_description(args.out, info)
    missing = [index for index in range(info.shards) if not shard_path(args.out, index).exists()]
    for index in set(range(info.shards)) - set(missing):
        read_shard(args.out, index, info)
    remove_partial_files(args.out)
    jobs = [(str(args.out.absolute()), index, args.robot or task.robot) for index in missing]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress, open_workers(args.workers, args.ray) as workers:
        bar = progress.add_task("shards", total=info.shards, completed=info.shards - len(missing))
        for _ in workers.map(record_shard, jobs):
            progress.advance(bar)
    print(f"{info.episodes} episodes of {info.task} ({info.episodes * info.steps} actions) in {args.out}")
    return 0
