"""`jepa-arm collect`: play data in parallel, shard by shard, resumable.

Every shard is made from its own seed, so the data does not depend on the number of workers, and a run that
was cut goes on with the shards that are missing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

EXAMPLE = "jepa-arm collect --task push --out data/panda-push"

EPISODES_PER_SHARD = 24
# Enough of them to tell what moves from what merely differs between sessions; so few that there are many.
EPISODES_PER_SESSION = 8
IMAGE_SIZE = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", choices=("reach", "push", "push-pose", "pick-place"), required=True)
    parser.add_argument("--robot", help="robot file: a name or a path (default: the task's)")
    parser.add_argument(
        "--episodes", type=int, help="how many (default: what the task's shipped bundle takes)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the play (default: 0)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: all cores)")
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
    )
    write_description(args.out, info)
    missing = [index for index in range(info.shards) if not shard_path(args.out, index).exists()]
    for index in set(range(info.shards)) - set(missing):
        read_shard(args.out, index, info)
    remove_partial_files(args.out)
    jobs = [(str(args.out), index, args.robot or task.robot) for index in missing]
    spawn = multiprocessing.get_context("spawn")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        Progress(*columns) as progress,
        ProcessPoolExecutor(max(1, min(args.workers, len(jobs))), spawn, end_with_the_command) as pool,
    ):
        bar = progress.add_task("shards", total=info.shards, completed=info.shards - len(missing))
        try:
            for shard in as_completed([pool.submit(record_shard, job) for job in jobs]):
                shard.result()
                progress.advance(bar)
        except BrokenProcessPool as error:
            raise SimulationError(
                f"a worker died, perhaps for want of memory; the shards in {args.out} are kept: "
                "run the same command again, with fewer --workers"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    print(f"{info.episodes} episodes of {info.task} ({info.episodes * info.steps} actions) in {args.out}")
    return 0


def end_with_the_command() -> None:
    """For workers: end quietly on Ctrl-C, which the command speaks to, and when the command was killed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    command = multiprocessing.parent_process()
    assert command is not None

    def follow() -> None:
        command.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
