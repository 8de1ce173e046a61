"""Reading a LeRobotDataset v3.0, ours or another's: an episode's numbers, and frames of its video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from perception.errors import DatasetError
from perception.lerobot.layout import read_info
from perception.lerobot.video import read_frames


class LeRobotDataset:
    """The dataset in `folder`. Raises DatasetError saying what is missing, damaged or of another version."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.info = read_info(folder)
        self.episodes = read_episodes(folder)
        if not self.episodes:
            raise DatasetError(f"{folder} holds no finished episode: record one with `jepa-arm record`")

    def __len__(self) -> int:
        return len(self.episodes)

    def length(self, episode: int) -> int:
        """Rows of an episode."""
        return int(self._row(episode)["length"])

    def task(self, episode: int) -> str:
        tasks = self._row(episode).get("tasks") or [""]
        return str(tasks[0])

    def numbers(self, episode: int, feature: str) -> NDArray[np.float64]:
        """(N, D): a feature of an episode's rows, in their order; every number is finite."""
        if feature not in self.info.features:
            raise DatasetError(
                f"{self.folder} has no feature {feature}; it has {', '.join(self.info.features)}"
            )
        row = self._row(episode)
        place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        path = self.folder / self.info.data_path.format(**place)
        try:
            table = pq.read_table(
                path,
                columns=["frame_index", feature],
                filters=[("episode_index", "=", int(row["episode_index"]))],
            )
        except (OSError, pa.ArrowException, KeyError) as error:
            raise DatasetError(f"{path} cannot be read ({error})") from error
        values = np.array(table.sort_by("frame_index")[feature].to_pylist(), dtype=np.float64)
        if len(values) != row["length"]:
            raise DatasetError(
                f"{path} holds {len(values)} rows of episode {episode}, {row['length']} were promised"
            )
        if not np.isfinite(values).all():
            raise DatasetError(f"{path}: {feature} of episode {episode} has numbers that are not finite")
        return values.reshape(len(values), -1)

    def frames(self, episode: int, key: str, wanted: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        """The frames number `wanted`, which grow, of an episode's video `key`, each uint8 (H, W, 3) RGB."""
        row = self._row(episode)
        if self.info.video_path is None or f"videos/{key}/file_index" not in row:
            raise DatasetError(f"{self.folder} has no video {key} of episode {episode}")
        path = self.folder / self.info.video_path.format(
            video_key=key,
            chunk_index=row[f"videos/{key}/chunk_index"],
            file_index=row[f"videos/{key}/file_index"],
        )
        return read_frames(path, float(row[f"videos/{key}/from_timestamp"]), self.info.fps, wanted)

    def _row(self, episode: int) -> dict[str, Any]:
        if not 0 <= episode < len(self.episodes):
            raise DatasetError(
                f"{self.folder} has no episode {episode}: it has {len(self.episodes)}, the first is 0"
            )
        return self.episodes[episode]


def read_episodes(folder: Path) -> list[dict[str, Any]]:
    """The table of finished episodes, in order. Raises DatasetError if it is damaged."""
    rows: list[dict[str, Any]] = []
    for path in sorted((folder / "meta/episodes").glob("chunk-*/file-*.parquet")):
        try:
            rows += pq.read_table(path).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"{path} cannot be read ({error})") from error
    rows.sort(key=lambda row: row["episode_index"])
    if [row["episode_index"] for row in rows] != list(range(len(rows))):
        raise DatasetError(f"{folder / 'meta/episodes'}: episodes are missing or there twice")
    return rows
