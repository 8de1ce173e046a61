"""Recorded episodes on disk: shards of equal-length episodes beside one `dataset.yaml` that describes them.

A shard appears under its final name only when it is whole, so what can be read can be trusted.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from perception.errors import DatasetError

DESCRIPTION = "dataset.yaml"


class DatasetInfo(BaseModel):
    """What a dataset holds. Lengths in metres, times in seconds; `steps` actions an episode.

    Each run of `session` episodes was recorded under the same conditions: camera, light, colours, physics.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[2] = 2
    task: str
    robot: str
    image_size: PositiveInt
    axes: tuple[str, ...]
    fixed: dict[str, float]
    action_limit_m: PositiveFloat
    period_s: PositiveFloat
    camera: dict[str, Any]
    seed: NonNegativeInt
    steps: PositiveInt
    episodes: PositiveInt
    episodes_per_shard: PositiveInt
    session: PositiveInt
    # What of the conditions was the same in all sessions.
    same: tuple[str, ...] = ()
    # The simulator can show its own again; what was recorded, only the arm that it was recorded on.
    source: Literal["simulator", "recorded"] = "simulator"

    @property
    def tool_dim(self) -> int:
        """P: the tool's position, and the gripper's joint where the actions move one."""
        return 4 if "gripper" in self.axes else 3

    @property
    def shards(self) -> int:
        return -(-self.episodes // self.episodes_per_shard)


@dataclass(frozen=True)
class Episodes:
    """E episodes of T actions.

    `frames` uint8 (E, T+1, S, S, 3) RGB; `actions` float32 (E, T, A) metres; `tool` float32 (E, T+1, P)
    metres: its position from the joints, and the gripper's joint where there is one; `object` float32
    (E, T+1, 4): its true place in metres and its yaw in rad (NaN where there is none).
    """

    frames: NDArray[np.uint8]
    actions: NDArray[np.float32]
    tool: NDArray[np.float32]
    object: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.frames)


def shard_path(folder: Path, index: int) -> Path:
    return folder / f"shard-{index:05d}.npz"


def write_description(folder: Path, info: DatasetInfo) -> None:
    """Begin a dataset in `folder`, or check that the one there was begun the same way."""
    path = folder / DESCRIPTION
    if path.exists():
        found = read_description(folder)
        differing = [key for key in DatasetInfo.model_fields if getattr(found, key) != getattr(info, key)]
        if differing:
            raise DatasetError(
                f"{path} was begun with another {', '.join(differing)}: go on with the same options, "
                "or choose an empty --out folder"
            )
        return
    write_whole(
        path,
        lambda partial: partial.write_text(yaml.safe_dump(info.model_dump(mode="json"), sort_keys=False)),
    )


def read_description(folder: Path) -> DatasetInfo:
    """Raises DatasetError if `folder` holds no dataset of ours."""
    path = folder / DESCRIPTION
    if not path.is_file():
        raise DatasetError(f"{folder} holds no {DESCRIPTION}: name a folder made by `jepa-arm collect`")
    try:
        return DatasetInfo.model_validate(yaml.safe_load(path.read_text()))
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        reason = error.errors()[0] if isinstance(error, ValidationError) else error
        detail = (
            f"{'.'.join(map(str, reason['loc']))}: {reason['msg']}"
            if isinstance(reason, dict)
            else str(reason)
        )
        raise DatasetError(
            f"{path} is not a description of a jepa-arm dataset ({detail}): "
            "name a folder made by `jepa-arm collect`"
        ) from error


def write_shard(folder: Path, index: int, episodes: Episodes) -> None:
    """Write one shard under a temporary name and rename it. Raises DatasetError when the disk is full."""

    def save(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez(
                file,
                frames=episodes.frames,
                actions=episodes.actions,
                tool=episodes.tool,
                object=episodes.object,
            )
            file.flush()
            os.fsync(file.fileno())

    write_whole(shard_path(folder, index), save)


def write_whole(path: Path, write: Any) -> None:
    """Let `write` write to a file of another name, then rename it to `path`. Raises DatasetError."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        os.replace(partial, path)
    except OSError as error:
        raise DatasetError(
            f"cannot write {path}: {error.strerror or error}; what was written before is kept, "
            "mend this and run the same command again"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def remove_partial_files(folder: Path) -> None:
    """Delete what writers that were killed left half written; those that still run keep theirs."""
    for partial in folder.glob(".*.partial"):
        writer = int(partial.name.split(".")[-2])
        try:
            os.kill(writer, 0)
        except ProcessLookupError:
            partial.unlink(missing_ok=True)
        except PermissionError:
            pass  # somebody else's, and it runs


def read_shard(folder: Path, index: int, info: DatasetInfo) -> Episodes:
    """Raises DatasetError if the shard is missing, truncated or does not fit `info`."""
    path = shard_path(folder, index)
    try:
        with np.load(path, allow_pickle=False) as file:
            episodes = Episodes(file["frames"], file["actions"], file["tool"], file["object"])
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing: run `jepa-arm collect` again to make it") from error
    except Exception as error:  # whatever the parsers of zip, header and array make of damaged bytes
        raise DatasetError(
            f"{path} is damaged ({error}): delete it and run `jepa-arm collect` again to remake it"
        ) from error
    count = min(info.episodes_per_shard, info.episodes - index * info.episodes_per_shard)
    size = info.image_size
    expected = {
        "frames": (np.uint8, (count, info.steps + 1, size, size, 3)),
        "actions": (np.float32, (count, info.steps, len(info.axes))),
        "tool": (np.float32, (count, info.steps + 1, info.tool_dim)),
        "object": (np.float32, (count, info.steps + 1, 4)),
    }
    for name, (dtype, shape) in expected.items():
        array = getattr(episodes, name)
        if array.dtype != dtype or array.shape != shape:
            raise DatasetError(
                f"{path} does not belong to {DESCRIPTION} beside it: {name} is {array.dtype} {array.shape}, "
                f"expected {np.dtype(dtype)} {shape}; delete it and run `jepa-arm collect` again to remake it"
            )
    return episodes


def load_dataset(folder: Path) -> tuple[DatasetInfo, Episodes]:
    """Read a whole dataset into memory, every shard checked."""
    info = read_description(folder)
    frames = np.empty((info.episodes, info.steps + 1, info.image_size, info.image_size, 3), np.uint8)
    parts: list[Episodes] = []
    for index in range(info.shards):
        part = read_shard(folder, index, info)
        begin = index * info.episodes_per_shard
        frames[begin : begin + len(part)] = part.frames
        parts.append(Episodes(part.frames[:0], part.actions, part.tool, part.object))
    return info, Episodes(
        frames,
        np.concatenate([part.actions for part in parts]),
        np.concatenate([part.tool for part in parts]),
        np.concatenate([part.object for part in parts]),
    )
