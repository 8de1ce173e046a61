"""One shard of play, recorded: frames as the encoder will see them, actions, tool and object."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hardware.robot import load_robot
from perception.dataset import DatasetInfo, Episodes, read_description, write_shard
from perception.preprocessing import prepare
from sim.conditions import Conditions, randomised
from sim.control import ControlLoop
from sim.play import Play
from sim.tasks import Task, make_loop, make_task, place_at_random

# Play and evaluation draw from seed sequences that cannot meet, whatever seeds the user gives.
PLAY_STREAM, SESSION_STREAM = 0x50, 0x5E


def record_shard(job: tuple[str, int, str]) -> int:
    """Make and write the shard `job` = (folder, index, robot file); gives back its index.

    Each episode has a seed of its own, so the data does not depend on who makes which shard.
    """
    folder, index, robot = Path(job[0]), job[1], job[2]
    info = read_description(folder)
    task = make_task(info.task)
    loop = make_loop(task, load_robot(robot))
    first = index * info.episodes_per_shard
    count = min(info.episodes_per_shard, info.episodes - first)
    shard = Episodes(
        np.empty((count, info.steps + 1, info.image_size, info.image_size, 3), np.uint8),
        np.empty((count, info.steps, len(info.axes)), np.float32),
        np.empty((count, info.steps + 1, info.tool_dim), np.float32),
        np.empty((count, info.steps + 1, 4), np.float32),
    )
    for episode in range(count):
        session = np.random.default_rng([info.seed, SESSION_STREAM, (first + episode) // info.session])
        rng = np.random.default_rng([info.seed, PLAY_STREAM, first + episode])
        _record_episode(task, loop, randomised(session, info.same), rng, shard, episode, info)
    loop.world.close()
    write_shard(folder, index, shard)
    return index


def _record_episode(
    task: Task,
    loop: ControlLoop,
    conditions: Conditions,
    rng: np.random.Generator,
    shard: Episodes,
    episode: int,
    info: DatasetInfo,
) -> None:
    world = loop.world
    world.restart(int(rng.integers(2**63)), conditions)
    place_at_random(task, loop, rng)
    play = Play(task, rng)
    for step in range(info.steps + 1):
        shard.frames[episode, step] = prepare(world.render(), info.image_size)
        shard.tool[episode, step] = loop.tool_state()
        shard.object[episode, step] = world.object_pose()
        if step < info.steps:
            action = play(loop)
            shard.actions[episode, step] = action
            loop.execute(action)
