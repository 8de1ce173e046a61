"""A LeRobot dataset, ours or another's, as the trainer takes it: pieces of equal length, actions of the tool.

An action is what the planner will decide: how far from where the tool is measured it is sent within a period.
Datasets recorded here hold the tool's positions; of others they are computed from the joints, which takes the
arm's robot file and joint positions whose zeros are its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hardware.kinematics import AXES, Kinematics
from hardware.robot import Robot, load_robot
from perception.dataset import (
    DatasetInfo,
    Episodes,
    read_shard,
    remove_partial_files,
    shard_path,
    write_description,
    write_shard,
)
from perception.errors import DatasetError
from perception.lerobot.layout import ACTION, SENT_TOOL, STATE, TOOL
from perception.lerobot.reader import LeRobotDataset
from perception.lerobot.writer import recover
from perception.preprocessing import prepare
from sim.collect import EPISODES_PER_SESSION, EPISODES_PER_SHARD, IMAGE_SIZE

Array = NDArray[np.float64]
# About how long an action takes; exactly, it is as many frames as come next to that.
PERIOD_S = 0.1
# An axis along which the tool went less than this is one that the actions do not move.
LEAST_MOTION_M = 0.02
# Of the actions, this share is within the limit; the others are cut to it.
WITHIN_LIMIT = 0.99
MOST_RADIANS = 2 * np.pi


@dataclass(frozen=True)
class Source:
    """A LeRobot dataset, and what it may leave open: robot file, which video, the joints' units."""

    folder: Path
    robot: str | None = None
    camera_key: str | None = None
    joint_units: str = "rad"


@dataclass(frozen=True)
class Piece:
    """A stretch of a recorded episode: T actions from row `first` on, a row every `stride`."""

    episode: int
    first: int


def import_dataset(source: Source, out: Path, steps: int, tell: Callable[[str], None]) -> DatasetInfo:
    """Write `source` to `out` as episodes of `steps` actions; goes on where it was cut.

    Raises DatasetError or RobotError naming what is missing, or does not fit.
    """
    for line in recover(source.folder):
        tell(line)
    dataset = LeRobotDataset(source.folder)
    robot = robot_of(dataset, source.robot)
    key = video_key(dataset, source.camera_key)
    stride = max(1, round(dataset.info.fps * PERIOD_S))
    tools = [tool_of(dataset, episode, robot, source.joint_units) for episode in range(len(dataset))]
    pieces = cut(dataset, stride, steps)
    if len(pieces) < 2:
        longest_s = max(map(dataset.length, range(len(dataset)))) / dataset.info.fps
        raise DatasetError(
            f"{source.folder} has too little in one piece: training needs at least two episodes of "
            f"{(steps * stride + 1) / dataset.info.fps:.1f} s, its longest is {longest_s:.1f} s"
        )
    low = np.min([tool.min(0) for tool, _ in tools], axis=0)
    high = np.max([tool.max(0) for tool, _ in tools], axis=0)
    moving = high - low >= LEAST_MOTION_M
    if not moving.any():
        raise DatasetError(f"{source.folder}: the tool hardly moves in it: record episodes in which it does")
    actions = [piece_actions(*tools[piece.episode], piece, stride, steps)[:, moving] for piece in pieces]
    largest = float(np.quantile(np.abs(actions), WITHIN_LIMIT))
    middle = np.median(np.concatenate([tool for tool, _ in tools]), axis=0)
    info = DatasetInfo(
        task=re.sub(r"[^a-z0-9]+", "-", dataset.task(0).lower()).strip("-") or "own",
        robot=robot.name,
        image_size=IMAGE_SIZE,
        axes=tuple(axis for axis, moves in zip(AXES, moving) if moves),
        fixed={axis: round(float(middle[i]), 3) for i, axis in enumerate(AXES) if not moving[i]},
        action_limit_m=max(0.001, float(np.ceil(largest * 1e3)) / 1e3),
        period_s=stride / dataset.info.fps,
        camera=robot.camera.model_dump(mode="json"),
        seed=0,
        steps=steps,
        episodes=len(pieces),
        episodes_per_shard=EPISODES_PER_SHARD,
        # All of it is one session; the trainer takes it in groups, the last of which it holds out.
        session=max(1, min(EPISODES_PER_SESSION, len(pieces) // 2)),
        source="recorded",
    )
    write_description(out, info)
    remove_partial_files(out)
    for index in range(info.shards):
        if shard_path(out, index).exists():
            read_shard(out, index, info)
            continue
        chosen = slice(index * EPISODES_PER_SHARD, (index + 1) * EPISODES_PER_SHARD)
        shard = shard_of(dataset, key, tools, pieces[chosen], actions[chosen], info, stride)
        write_shard(out, index, shard)
    used_s = len(pieces) * steps * info.period_s
    all_s = sum(map(dataset.length, range(len(dataset)))) / dataset.info.fps
    tell(
        f"{len(pieces)} pieces of {steps * info.period_s:.1f} s, {used_s:.0f} of {all_s:.0f} s recorded; "
        f"actions move the tool along {', '.join(info.axes)} by up to {info.action_limit_m * 100:.1f} cm in "
        f"{info.period_s:.2f} s"
    )
    return info


def robot_of(dataset: LeRobotDataset, named: str | None) -> Robot:
    name = named or dataset.info.robot_type
    if not name:
        raise DatasetError(
            f"{dataset.folder} does not say which robot it is of: name its robot file, --robot"
        )
    try:
        return load_robot(name)
    except ValueError as error:
        if named:
            raise
        raise DatasetError(
            f"{dataset.folder} is of robot {name}, of which there is no robot file: name one with --robot "
            "(`jepa-arm new` writes one from a URDF)"
        ) from error


def video_key(dataset: LeRobotDataset, named: str | None) -> str:
    keys = dataset.info.video_keys
    if not keys:
        raise DatasetError(f"{dataset.folder} has no videos: pictures kept in another way are not read")
    if named is None and len(keys) > 1:
        raise DatasetError(
            f"{dataset.folder} has several videos: choose one, --camera-key {' or '.join(keys)}"
        )
    if named is not None and named not in keys:
        raise DatasetError(f"{dataset.folder} has no video {named}; it has {', '.join(keys)}")
    return named or keys[0]


def tool_of(dataset: LeRobotDataset, episode: int, robot: Robot, units: str) -> tuple[Array, Array]:
    """(N, 3) and (N, 3): where the tool was measured at each row, and where it was sent, m."""
    if TOOL in dataset.info.features and SENT_TOOL in dataset.info.features:
        return dataset.numbers(episode, TOOL), dataset.numbers(episode, SENT_TOOL)
    kinematics = Kinematics(robot)
    measured, sent = (
        np.array([kinematics.tool_position(q) for q in joints_of(dataset, episode, feature, robot, units)])
        for feature in (STATE, ACTION)
    )
    return measured, sent


def joints_of(dataset: LeRobotDataset, episode: int, feature: str, robot: Robot, units: str) -> Array:
    """(N, J) rad, in the order of the robot's joints, which the feature's names tell."""
    values = dataset.numbers(episode, feature)
    names = dataset.info.features[feature].axis_names
    missing = [name for name in robot.joint_names if name not in names]
    if missing or len(names) != values.shape[1]:
        raise DatasetError(
            f"{dataset.folder}: {feature} is of {', '.join(names) or 'unnamed numbers'}, robot {robot.name} "
            f"has {', '.join(robot.joint_names)}: name the robot file whose joints these are with --robot"
        )
    values = values[:, [names.index(name) for name in robot.joint_names]]
    if units == "deg":
        values = np.deg2rad(values)
    elif units == "percent":
        values = from_percent(values, robot)
    if np.abs(values).max() > MOST_RADIANS:
        raise DatasetError(
            f"{dataset.folder}: {feature} goes up to {np.abs(values).max():.0f}, which is not in radians: "
            "say what it is in with --joint-units deg or percent"
        )
    return values


def from_percent(values: Array, robot: Robot) -> Array:
    """−100…100 of each joint's range, and 0…100 of the gripper's, in rad."""
    lower, upper = robot.position_lower, robot.position_upper
    joints = lower + (values + 100.0) / 200.0 * (upper - lower)
    if robot.gripper is not None:
        joints[:, -1] = lower[-1] + values[:, -1] / 100.0 * (upper[-1] - lower[-1])
    return joints


def cut(dataset: LeRobotDataset, stride: int, steps: int) -> list[Piece]:
    """As many pieces of `steps` actions as fit into each episode, one after the other."""
    return [
        Piece(episode, number * steps * stride)
        for episode in range(len(dataset))
        for number in range((dataset.length(episode) - 1) // (steps * stride))
    ]


def piece_actions(measured: Array, sent: Array, piece: Piece, stride: int, steps: int) -> Array:
    """(T, 3) m: from where the tool is measured at a step to where it is sent by the next."""
    begins = piece.first + stride * np.arange(steps)
    return sent[begins + stride - 1] - measured[begins]


def shard_of(
    dataset: LeRobotDataset,
    key: str,
    tools: list[tuple[Array, Array]],
    pieces: list[Piece],
    actions: list[Array],
    info: DatasetInfo,
    stride: int,
) -> Episodes:
    frames = np.empty((len(pieces), info.steps + 1, info.image_size, info.image_size, 3), np.uint8)
    tool = np.empty((len(pieces), info.steps + 1, 3), np.float32)
    for i, piece in enumerate(pieces):
        rows = piece.first + stride * np.arange(info.steps + 1)
        tool[i] = tools[piece.episode][0][rows]
        for step, image in enumerate(dataset.frames(piece.episode, key, rows)):
            frames[i, step] = prepare(image, info.image_size)
    limited = np.clip(np.array(actions), -info.action_limit_m, info.action_limit_m).astype(np.float32)
    unknown = np.full((*tool.shape[:2], 4), np.nan, np.float32)
    return Episodes(frames, limited, tool, unknown)
