"""Writing a LeRobotDataset v3.0, an episode at a time; each is there whole, or still in `.recording`.

    for line in recover(folder): print(line)
    writer = DatasetWriter.open(folder, recording)
    episode = writer.begin("push the cube")
    episode.add(row)                                # each frame
    writer.finish(episode)                          # or writer.discard(episode)

Every episode has a data and a video file of its own, which the format allows: nothing that is finished is
ever opened for writing again. The tables that list them are replaced whole, `meta/info.json` last.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from perception.dataset import write_whole
from perception.errors import DatasetError
from perception.lerobot import layout
from perception.lerobot.layout import Recording, read_info
from perception.lerobot.reader import read_episodes
from perception.lerobot.running import (
    RECORDING,
    RunningEpisode,
    cut_episodes,
    episode_number,
    read_about,
    whole_rows,
)
from perception.lerobot.statistics import of_numbers, of_pictures, together
from perception.lerobot.video import copy_frames, key_frames

# Pictures that the statistics look at.
MOST_PICTURES = 32


class DatasetWriter:
    """Adds episodes to the dataset in `folder`; `open` makes one."""

    def __init__(self, folder: Path, recording: Recording) -> None:
        self.folder, self.recording = folder, recording

    @classmethod
    def open(cls, folder: Path, recording: Recording) -> DatasetWriter:
        """Begin a dataset in `folder`, or go on with the one there. Raises DatasetError if they differ."""
        recording.check()
        writer = cls(folder, recording)
        if layout.is_lerobot(folder):
            writer._check_same()
        elif folder.exists() and any(path.name != RECORDING for path in folder.iterdir()):
            raise DatasetError(f"{folder} holds other files already: choose an empty --out folder")
        else:
            writer._write_info([])
        return writer

    def begin(self, task: str) -> RunningEpisode:
        number = len(read_episodes(self.folder))
        folder = self.folder / RECORDING / f"episode-{number:06d}"
        if folder.exists():
            raise DatasetError(f"{folder} is there: another `jepa-arm record` records to {self.folder}")
        return RunningEpisode(folder, self.recording, task)

    def finish(self, episode: RunningEpisode) -> int:
        """The episode becomes part of the dataset. Returns its number."""
        episode.close()
        number = self._take(episode.folder, episode.task)[0]
        episode.remove()
        return number

    def discard(self, episode: RunningEpisode) -> None:
        episode.close()
        episode.remove()

    def _check_same(self) -> None:
        info = read_info(self.folder)
        wanted = json.loads(json.dumps(self.recording.features()))
        found = {
            name: {"dtype": feature.dtype, "shape": list(feature.shape), "names": feature.names}
            for name, feature in info.features.items()
        }
        differing = [name for name in wanted if _essence(wanted[name]) != found.get(name)]
        differing += [name for name in found if name not in wanted]
        if info.robot_type != self.recording.robot:
            differing.insert(0, f"robot ({info.robot_type})")
        if info.fps != self.recording.fps:
            differing.insert(0, f"fps ({info.fps:g})")
        if differing:
            raise DatasetError(
                f"{self.folder} was recorded with another {differing[0]}: go on with the same robot, camera "
                "and --fps, or choose another --out folder"
            )

    def _take(self, running: Path, task: str) -> tuple[int, int]:
        """Make an episode of what is in `running`: its number and its length in rows."""
        episodes = read_episodes(self.folder)
        number = episode_number(running)
        if number < len(episodes):  # it was taken, and only its clearing away was cut
            self._write_tables(episodes)
            return number, episodes[number]["length"]
        numbers, rows = whole_rows(running)
        chunk, file = divmod(_next_file(episodes), layout.FILES_PER_CHUNK)
        place = {"chunk_index": chunk, "file_index": file}
        first = episodes[-1]["dataset_to_index"] if episodes else 0
        tasks = _tasks(episodes)
        data = self._data(numbers, number, first, tasks.setdefault(task, len(tasks)))
        key = self.recording.video_key
        video = self.folder / layout.VIDEO.format(video_key=key, **place)
        write_whole(self.folder / layout.DATA.format(**place), lambda partial: pq.write_table(data, partial))
        write_whole(video, lambda partial: copy_frames(running / "video.mp4", partial, rows))
        statistics = {name: of_numbers(_array(data[name])) for name in data.column_names}
        statistics[key] = of_pictures(key_frames(video, MOST_PICTURES))
        episodes.append(
            {
                "episode_index": number,
                "tasks": [task],
                "length": rows,
                "data/chunk_index": chunk,
                "data/file_index": file,
                "dataset_from_index": first,
                "dataset_to_index": first + rows,
                f"videos/{key}/chunk_index": chunk,
                f"videos/{key}/file_index": file,
                f"videos/{key}/from_timestamp": 0.0,
                f"videos/{key}/to_timestamp": rows / self.recording.fps,
                **{
                    f"stats/{feature}/{name}": value.tolist()
                    for feature, found in statistics.items()
                    for name, value in found.items()
                },
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
            }
        )
        self._write_tables(episodes)
        return number, rows

    def _data(self, numbers: pa.Table, number: int, first: int, task: int) -> pa.Table:
        rows = len(numbers)
        counters = {
            "timestamp": np.arange(rows) / self.recording.fps,
            "frame_index": np.arange(rows),
            "episode_index": np.full(rows, number),
            "index": np.arange(first, first + rows),
            "task_index": np.full(rows, task),
        }
        table = numbers.combine_chunks()
        for name, dtype in layout.COUNTERS.items():
            table = table.append_column(name, pa.array(counters[name].astype(dtype)))
        return table

    def _write_tables(self, episodes: list[dict[str, Any]]) -> None:
        """Everything that is written about `episodes`, info.json last."""
        path = self.folder / layout.EPISODES.format(chunk_index=0, file_index=0)
        table = pa.Table.from_pylist(episodes)
        write_whole(path, lambda partial: pq.write_table(table, partial))
        tasks = _tasks(episodes)
        write_whole(self.folder / layout.TASKS, lambda partial: pq.write_table(_tasks_table(tasks), partial))
        names = (*(name for name in self.recording.features()),)
        statistics = {name: together([_statistics(row, name) for row in episodes]) for name in names}
        content = {
            feature: {name: value.tolist() for name, value in found.items()}
            for feature, found in statistics.items()
        }
        write_whole(
            self.folder / layout.STATS, lambda partial: partial.write_text(json.dumps(content, indent=4))
        )
        self._write_info(episodes)

    def _write_info(self, episodes: list[dict[str, Any]]) -> None:
        content = {
            "codebase_version": layout.VERSION,
            "robot_type": self.recording.robot,
            "total_episodes": len(episodes),
            "total_frames": sum(row["length"] for row in episodes),
            "total_tasks": len(_tasks(episodes)),
            "chunks_size": layout.FILES_PER_CHUNK,
            "data_files_size_in_mb": layout.DATA_FILE_MB,
            "video_files_size_in_mb": layout.VIDEO_FILE_MB,
            "fps": self.recording.fps,
            "splits": {"train": f"0:{len(episodes)}"} if episodes else {},
            "data_path": layout.DATA,
            "video_path": layout.VIDEO,
            "features": self.recording.features(),
        }
        write_whole(
            self.folder / layout.INFO, lambda partial: partial.write_text(json.dumps(content, indent=4))
        )


def recover(folder: Path) -> list[str]:
    """Finish what recorders that were killed left in `folder`: a line for each episode of theirs."""
    lines = []
    for running, lock in cut_episodes(folder):
        number = episode_number(running)
        try:
            recording, task = read_about(running)
            rows = DatasetWriter.open(folder, recording)._take(running, task)[1]
            lines.append(f"recovered {rows / recording.fps:.1f} s of episode {number}, which was cut")
        except DatasetError as error:
            lines.append(f"nothing to recover: {error}")
        shutil.rmtree(running)
        lock.close()
    return lines


def _essence(feature: dict[str, Any]) -> dict[str, Any]:
    return {name: feature[name] for name in ("dtype", "shape", "names")}


def _next_file(episodes: list[dict[str, Any]]) -> int:
    """Counted through all chunks."""
    places = [row["data/chunk_index"] * layout.FILES_PER_CHUNK + row["data/file_index"] for row in episodes]
    return max(places, default=-1) + 1


def _tasks(episodes: list[dict[str, Any]]) -> dict[str, int]:
    """Number of each task, in the order in which they came."""
    return {task: i for i, task in enumerate(dict.fromkeys(t for row in episodes for t in row["tasks"]))}


def _tasks_table(tasks: dict[str, int]) -> pa.Table:
    """With the task as pandas' index, as LeRobot reads it."""
    index = "__index_level_0__"
    about = {
        "index_columns": [index],
        "column_indexes": [],
        "columns": [
            _pandas_column("task_index", "task_index", "int64", "int64"),
            _pandas_column(None, index, "unicode", "object"),
        ],
        "pandas_version": "2.0.0",
    }
    table = pa.table({"task_index": pa.array(list(tasks.values()), pa.int64()), index: list(tasks)})
    return table.replace_schema_metadata({"pandas": json.dumps(about)})


def _pandas_column(name: str | None, field: str, pandas: str, numpy: str) -> dict[str, Any]:
    return {"name": name, "field_name": field, "pandas_type": pandas, "numpy_type": numpy, "metadata": None}


def _array(column: pa.ChunkedArray) -> np.ndarray:
    values = column.combine_chunks()
    if pa.types.is_fixed_size_list(values.type):
        return values.flatten().to_numpy().reshape(-1, values.type.list_size)
    return values.to_numpy()


def _statistics(row: dict[str, Any], feature: str) -> dict[str, np.ndarray]:
    begin = f"stats/{feature}/"
    return {name.removeprefix(begin): np.array(row[name]) for name in row if name.startswith(begin)}
