"""LeRobotDataset v3.0 on disk: which file is where, and what `meta/info.json` says of them.

    meta/info.json  meta/stats.json  meta/tasks.parquet
    meta/episodes/chunk-000/file-000.parquet          a row for each episode: where its data and video are
    data/chunk-000/file-000.parquet                   a row for each frame
    videos/observation.images.front/chunk-000/file-000.mp4

The format is Hugging Face's (LeRobot 0.4, https://github.com/huggingface/lerobot); only its facts are here.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveFloat, ValidationError

from perception.errors import DatasetError

VERSION = "v3.0"
INFO = "meta/info.json"
STATS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
FILES_PER_CHUNK = 1000
# The sizes (MB) from which on LeRobot begins another file.
DATA_FILE_MB, VIDEO_FILE_MB = 100, 200

STATE, ACTION = "observation.state", "action"
# Ours: the tool's tip (3,) in metres, base frame, where the joints were measured and where they were sent.
TOOL, SENT_TOOL = "observation.tool", "action.tool"
IMAGES = "observation.images."
COUNTERS = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}


class Feature(BaseModel):
    """One column of the data, or one video."""

    model_config = ConfigDict(extra="allow", frozen=True)

    dtype: str
    shape: tuple[int, ...]
    names: Any = None

    @property
    def axis_names(self) -> tuple[str, ...]:
        """What its numbers are called, without the ".pos" that LeRobot's own robots add; () if unnamed."""
        names = next(iter(self.names.values())) if isinstance(self.names, dict) else self.names
        return tuple(str(name).removesuffix(".pos") for name in names or ())


class Info(BaseModel):
    """`meta/info.json`. What others add to it stays as it is."""

    model_config = ConfigDict(extra="allow", frozen=True)

    codebase_version: str
    robot_type: str | None = None
    total_episodes: int
    total_frames: int
    fps: PositiveFloat
    data_path: str
    video_path: str | None
    features: dict[str, Feature]

    @property
    def video_keys(self) -> tuple[str, ...]:
        return tuple(name for name, feature in self.features.items() if feature.dtype == "video")


@dataclass(frozen=True)
class Recording:
    """What all episodes of a dataset recorded here have in common."""

    robot: str
    joints: tuple[str, ...]
    camera: str
    width: int
    height: int
    fps: int

    @property
    def video_key(self) -> str:
        return IMAGES + self.camera

    def check(self) -> None:
        """Raises DatasetError for what cannot be recorded."""
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", self.camera):
            raise DatasetError(f"camera name {self.camera!r}: use letters, digits, dots, _ and - only")
        if self.width % 2 or self.height % 2:
            raise DatasetError(
                f"the camera's pictures are {self.width}x{self.height}: video needs even numbers; change "
                "the camera's size in the robot file"
            )

    def features(self) -> dict[str, dict[str, Any]]:
        """As info.json has them."""

        def numbers(names: list[str]) -> dict[str, Any]:
            return {"dtype": "float32", "shape": [len(names)], "names": names}

        video = {
            "video.height": self.height,
            "video.width": self.width,
            "video.codec": "h264",
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": self.fps,
            "video.channels": 3,
            "has_audio": False,
        }
        return {
            self.video_key: {
                "dtype": "video",
                "shape": [self.height, self.width, 3],
                "names": ["height", "width", "channels"],
                "info": video,
            },
            STATE: numbers(list(self.joints)),
            ACTION: numbers(list(self.joints)),
            TOOL: numbers(["x", "y", "z"]),
            SENT_TOOL: numbers(["x", "y", "z"]),
            **{name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in COUNTERS.items()},
        }

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Recording:
        return cls(**{**content, "joints": tuple(content["joints"])})


def is_lerobot(folder: Path) -> bool:
    """Whether `folder` is, or is becoming, a LeRobot dataset of any version."""
    return (folder / INFO).is_file()


def read_info(folder: Path) -> Info:
    """Raises DatasetError if `folder` holds no LeRobotDataset of this version."""
    path = folder / INFO
    try:
        info = Info.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise DatasetError(f"{folder} holds no {INFO}: name the folder of a LeRobot dataset") from error
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        raise DatasetError(
            f"{path}: {key}: {problem['msg']}; it is not a LeRobotDataset {VERSION}"
        ) from error
    except ValueError as error:
        raise DatasetError(f"{path} cannot be read ({error}): it is damaged") from error
    if info.codebase_version.split(".")[0] != VERSION.split(".")[0]:
        raise DatasetError(
            f"{path}: is of version {info.codebase_version}, {VERSION} is needed: convert it with LeRobot's "
            "own converter from v2.1 to v3.0"
        )
    return info
