"""A reader of LeRobotDataset v3.0, written against its public description alone; none of our code is used.

https://huggingface.co/docs/lerobot/lerobot-dataset-v3
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq

ARROW = {"float32": "float", "int64": "int64"}
STATISTICS = {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}
LATE_S = 1e-4


def read_whole(root: Path) -> list[dict[str, Any]]:
    """Every row of every episode with its picture. AssertionError where the format's promises are broken."""
    info = json.loads((root / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    episodes = [
        row
        for path in sorted((root / "meta/episodes").glob("*/*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]
    tasks = _tasks(root)
    assert len(episodes) == info["total_episodes"] and info["total_tasks"] == len(tasks)
    assert info["splits"] == {"train": f"0:{len(episodes)}"}
    assert sum(row["length"] for row in episodes) == info["total_frames"]
    _check_statistics(root, info)
    rows = []
    for number, episode in enumerate(episodes):
        assert episode["episode_index"] == number
        rows += _read_episode(root, info, episode, tasks, begin=len(rows))
    return rows


def _tasks(root: Path) -> dict[int, str]:
    table = pq.read_table(root / "meta/tasks.parquet")
    index = json.loads(table.schema.metadata[b"pandas"])["index_columns"]
    return dict(zip(table["task_index"].to_pylist(), table[index[0]].to_pylist()))


def _read_episode(
    root: Path, info: dict[str, Any], episode: dict[str, Any], tasks: dict[int, str], begin: int
) -> list[dict[str, Any]]:
    assert episode["dataset_from_index"] == begin
    assert episode["dataset_to_index"] == begin + episode["length"]
    place = {name: episode[f"data/{name}"] for name in ("chunk_index", "file_index")}
    table = pq.read_table(root / info["data_path"].format(**place))
    videos = [name for name, feature in info["features"].items() if feature["dtype"] == "video"]
    for name, feature in info["features"].items():
        if name in videos:
            continue
        kind = str(table.schema.field(name).type)
        inner = ARROW[feature["dtype"]]
        if feature["shape"] == [1]:
            assert kind == inner, (name, kind)
        else:
            assert kind == f"fixed_size_list<element: {inner}>[{feature['shape'][0]}]", (name, kind)
            assert len(feature["names"]) == feature["shape"][0]
    rows = [row for row in table.to_pylist() if row["episode_index"] == episode["episode_index"]]
    assert [row["frame_index"] for row in rows] == list(range(episode["length"]))
    assert [row["index"] for row in rows] == list(range(begin, begin + episode["length"]))
    times_s = np.array([row["timestamp"] for row in rows])
    assert np.abs(times_s - np.arange(len(rows)) / info["fps"]).max() < LATE_S
    for row in rows:
        assert tasks[row["task_index"]] in episode["tasks"]
    for key in videos:
        for row, picture in zip(rows, _pictures(root, info, episode, key, times_s)):
            row[key] = picture
    return rows


def _pictures(
    root: Path, info: dict[str, Any], episode: dict[str, Any], key: str, times_s: np.ndarray
) -> list[np.ndarray]:
    place = {name: episode[f"videos/{key}/{name}"] for name in ("chunk_index", "file_index")}
    path = root / info["video_path"].format(video_key=key, **place)
    feature = info["features"][key]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert feature["shape"] == [stream.height, stream.width, 3]
        about = feature["info"]
        assert (about["video.codec"], about["video.pix_fmt"]) == (stream.codec.canonical_name, stream.pix_fmt)
        assert about["video.fps"] == stream.average_rate == info["fps"]
        frames = {float(frame.pts * stream.time_base): frame for frame in container.decode(stream)}
    shown_s = np.array(sorted(frames))
    found = []
    for time_s in times_s + episode[f"videos/{key}/from_timestamp"]:
        nearest = shown_s[np.abs(shown_s - time_s).argmin()]
        assert abs(nearest - time_s) < LATE_S, f"no frame at {time_s} s of {path}"
        found.append(frames[nearest].to_ndarray(format="rgb24"))
    length_s = episode[f"videos/{key}/to_timestamp"] - episode[f"videos/{key}/from_timestamp"]
    assert abs(length_s - len(times_s) / info["fps"]) < LATE_S
    return found


def _check_statistics(root: Path, info: dict[str, Any]) -> None:
    statistics = json.loads((root / "meta/stats.json").read_text())
    assert set(statistics) == set(info["features"])
    for name, feature in info["features"].items():
        found = statistics[name]
        assert set(found) == STATISTICS
        shape = (3, 1, 1) if feature["dtype"] == "video" else tuple(feature["shape"])
        for key, value in found.items():
            assert np.shape(value) == ((1,) if key == "count" else shape), (name, key)
            assert np.isfinite(value).all()
        if feature["dtype"] == "video":
            assert 0.0 <= np.min(found["min"]) <= np.max(found["max"]) <= 1.0
        else:
            assert found["count"] == [info["total_frames"]]
