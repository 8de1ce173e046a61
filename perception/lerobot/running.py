"""The episode that is being recorded: on disk from its first half second on, whatever ends the recorder.

    DATASET/.recording/episode-000004/
        episode.json      what is being recorded, and its task
        rows.arrows       the numbers, an Arrow stream that a batch is added to twice a second
        video.mp4         a fragmented video: the same

A lock that the recorder holds tells an episode that is being recorded from one that was cut.
"""

from __future__ import annotations

import fcntl
import json
import os
import queue
import shutil
import threading
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perception.errors import DatasetError
from perception.lerobot.layout import ACTION, SENT_TOOL, STATE, TOOL, Recording
from perception.lerobot.video import FragmentedVideo, count_frames

RECORDING = ".recording"
BATCHES_A_SECOND = 2
# Rows that wait for the disk; more than this, and it is too slow.
MOST_WAITING_S = 10


class Row(NamedTuple):
    """What one frame shows, and what was done: `state` and `action` (J,) rad, tools (3,) m."""

    image: NDArray[np.uint8]
    state: NDArray[np.float32]
    action: NDArray[np.float32]
    tool: NDArray[np.float32]
    sent_tool: NDArray[np.float32]


class RunningEpisode:
    """Takes rows and writes them on a thread of its own: whoever moves the arm never waits for a disk.

    An error of writing comes out of the next `add`, or of `close`.
    """

    def __init__(self, folder: Path, recording: Recording, task: str) -> None:
        self.folder, self.recording, self.task = folder, recording, task
        self.rows = 0
        folder.mkdir(parents=True)
        self._lock = _locked(folder)
        about = json.dumps({"recording": recording.to_json(), "task": task})
        (folder / "episode.json").write_text(about)
        self._waiting: queue.Queue[Row | None] = queue.Queue(MOST_WAITING_S * recording.fps)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._write, name="recording", daemon=True)
        self._thread.start()

    @property
    def number(self) -> int:
        """The episode's, once it is finished."""
        return episode_number(self.folder)

    @property
    def seconds(self) -> float:
        return self.rows / self.recording.fps

    def add(self, row: Row, wait: bool = False) -> None:
        """One that comes faster than the disk is an error, unless the row can `wait`."""
        self._raise()
        try:
            self._waiting.put(row, block=wait)
        except queue.Full:
            raise DatasetError(
                f"{self.folder} cannot be written as fast as the camera delivers: record on a faster disk, "
                "or with a lower --fps"
            ) from None
        self.rows += 1

    def close(self) -> None:
        """All of it on disk, the lock still held."""
        self._waiting.put(None)
        self._thread.join()
        self._raise()

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def _raise(self) -> None:
        if self._error is not None:
            raise DatasetError(
                f"cannot write {self.folder}: {self._error}; what was written before is kept, and "
                "finished by the next `jepa-arm record` or `train`"
            ) from self._error

    def _write(self) -> None:
        try:
            self._write_rows()
        except Exception as error:  # told to whoever adds rows
            self._error = error
            while self._waiting.get() is not None:
                pass

    def _write_rows(self) -> None:
        recording = self.recording
        video = FragmentedVideo(self.folder / "video.mp4", recording.width, recording.height, recording.fps)
        schema = numbers_schema(len(recording.joints))
        batch: list[Row] = []
        with (self.folder / "rows.arrows").open("wb") as file:
            with pa.ipc.new_stream(file, schema) as stream:
                while (row := self._waiting.get()) is not None:
                    video.add(row.image)
                    batch.append(row)
                    if len(batch) >= max(1, recording.fps // BATCHES_A_SECOND):
                        _write_batch(stream, file, batch, schema)
                        batch = []
                if batch:
                    _write_batch(stream, file, batch, schema)
            video.close()


def episode_number(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def numbers_schema(joints: int) -> pa.Schema:
    sizes = {STATE: joints, ACTION: joints, TOOL: 3, SENT_TOOL: 3}
    return pa.schema([(name, pa.list_(pa.float32(), size)) for name, size in sizes.items()])


def _write_batch(stream: pa.RecordBatchWriter, file: IO[bytes], batch: list[Row], schema: pa.Schema) -> None:
    columns = []
    for field, values in zip(schema, zip(*(row[1:] for row in batch))):
        flat = pa.array(np.concatenate(values).astype(np.float32))
        columns.append(pa.FixedSizeListArray.from_arrays(flat, field.type.list_size))
    stream.write_batch(pa.record_batch(columns, schema=schema))
    file.flush()
    os.fsync(file.fileno())


def read_numbers(folder: Path) -> pa.Table:
    """What can be read of an episode's numbers. Raises DatasetError if it is nothing."""
    batches = []
    try:
        with (folder / "rows.arrows").open("rb") as file, pa.ipc.open_stream(file) as stream:
            for batch in stream:
                batches.append(batch)
    except (OSError, pa.ArrowException):
        pass  # the cut
    if not batches:
        raise DatasetError(f"{folder} was cut before anything was recorded")
    return pa.Table.from_batches(batches)


def read_about(folder: Path) -> tuple[Recording, str]:
    try:
        about = json.loads((folder / "episode.json").read_text())
        return Recording.from_json(about["recording"]), about["task"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{folder} was cut before anything was recorded") from error


def whole_rows(folder: Path) -> tuple[pa.Table, int]:
    """The numbers, and of how many rows both they and their frames are there."""
    numbers = read_numbers(folder)
    rows = min(len(numbers), count_frames(folder / "video.mp4"))
    if rows == 0:
        raise DatasetError(f"{folder} was cut before anything was recorded")
    return numbers.slice(0, rows), rows


def cut_episodes(dataset: Path) -> list[tuple[Path, IO[bytes]]]:
    """Folders of episodes whose recorder is gone, in their order, each with its lock, which is held now."""
    found = []
    for folder in sorted((dataset / RECORDING).glob("episode-*")):
        try:
            found.append((folder, _locked(folder)))
        except DatasetError:
            continue
    return found


def _locked(folder: Path) -> IO[bytes]:
    """The lock of `folder`, held until it is closed or this process ends, however that comes about."""
    lock = (folder / "lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise DatasetError(f"{folder} is being recorded by another process") from None
    return lock
