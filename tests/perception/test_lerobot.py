"""LeRobotDataset v3.0: what is written is what the format says, and survives being cut."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perception.errors import DatasetError
from perception.lerobot.assembly import Assembler
from perception.lerobot.layout import Recording
from perception.lerobot.reader import LeRobotDataset
from perception.lerobot.running import Row
from perception.lerobot.writer import DatasetWriter, recover

from .lerobot_format import read_whole

ROOT = Path(__file__).parents[2]
RECORDING = Recording("so101", ("pan", "lift"), "front", 64, 48, 30)
KEY = "observation.images.front"
SHADE_OFF = 4  # what video makes of an even grey


def row(i: int) -> Row:
    numbers = np.array([i, -i], np.float32)
    tool = np.array([i, 0, 1], np.float32)
    return Row(np.full((48, 64, 3), 2 * i + 10, np.uint8), numbers, numbers + 1, tool, tool + 1)


def record(folder: Path, *lengths: int, recording: Recording = RECORDING, task: str = "push") -> None:
    writer = DatasetWriter.open(folder, recording)
    for length in lengths:
        episode = writer.begin(task)
        for i in range(length):
            episode.add(row(i))
        writer.finish(episode)


def test_what_is_written_is_what_the_format_says(tmp_path: Path) -> None:
    record(tmp_path, 50, 31)
    record(tmp_path, 1, task="pull")
    rows = read_whole(tmp_path)
    assert [r["frame_index"] for r in rows] == [*range(50), *range(31), 0]
    for r in rows:
        i = r["frame_index"]
        assert r["observation.state"] == [i, -i] and r["action"] == [i + 1, 1 - i]
        assert r["observation.tool"] == [i, 0, 1] and r["action.tool"] == [i + 1, 1, 2]
        assert np.abs(r[KEY].astype(int) - (2 * i + 10)).max() <= SHADE_OFF
    assert [r["task_index"] for r in rows] == [0] * 81 + [1]


def test_statistics_of_all_are_those_of_the_rows(tmp_path: Path) -> None:
    record(tmp_path, 40, 10, 25)
    rows = read_whole(tmp_path)
    found = json.loads((tmp_path / "meta/stats.json").read_text())
    state = np.array([r["observation.state"] for r in rows])
    for name, value in (
        ("min", state.min(0)),
        ("max", state.max(0)),
        ("mean", state.mean(0)),
        ("std", state.std(0)),
    ):
        np.testing.assert_allclose(found["observation.state"][name], value, rtol=1e-6)
    assert 0.02 < found[KEY]["mean"][0][0][0] < 0.4


def test_our_reader_gives_numbers_and_frames_back(tmp_path: Path) -> None:
    record(tmp_path, 20, 45)
    dataset = LeRobotDataset(tmp_path)
    assert [dataset.length(i) for i in range(len(dataset))] == [20, 45]
    np.testing.assert_array_equal(dataset.numbers(1, "action")[:, 0], np.arange(45) + 1)
    wanted = np.array([0, 7, 8, 44])
    shades = [float(image.mean()) for image in dataset.frames(1, KEY, wanted)]
    np.testing.assert_allclose(shades, 2 * wanted + 10, atol=SHADE_OFF)
    with pytest.raises(DatasetError, match="no episode 2: it has 2"):
        dataset.length(2)
    with pytest.raises(DatasetError, match="lacks frame 45"):
        list(dataset.frames(1, KEY, np.array([45])))


def test_the_lerobot_package_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip(
        "lerobot.datasets.lerobot_dataset",
        reason="lerobot pins an older torch than ours; where it is installed, it reads what we write",
        exc_type=ImportError,
    )
    record(tmp_path, 20, 45)
    theirs = datasets.LeRobotDataset("own/data", root=tmp_path)
    assert len(theirs) == 65 and theirs.meta.total_episodes == 2
    last = theirs[64]
    assert last["task"] == "push" and last["action"].tolist() == [45.0, -43.0]
    assert tuple(last[KEY].shape) == (3, 48, 64)


def test_a_killed_recorder_loses_at_most_a_second(tmp_path: Path) -> None:
    record(tmp_path, 5, recording=Recording("so101", ("a", "b"), "front", 64, 48, 30))
    command = [sys.executable, "-m", "tests.perception.record_forever", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        added = next(int(line) for line in process.stdout if int(line) >= 75)
        assert recover(tmp_path) == [], "an episode that is being recorded is left alone"
        process.kill()
    (line,) = recover(tmp_path)
    rows = LeRobotDataset(tmp_path).length(1)
    assert added - 30 <= rows and line == f"recovered {rows / 30:.1f} s of episode 1, which was cut"
    found = [r for r in read_whole(tmp_path) if r["episode_index"] == 1]
    assert [r["action"][0] for r in found] == [i + 1 for i in range(rows)]
    assert recover(tmp_path) == [] and not any((tmp_path / ".recording").iterdir())


@pytest.mark.parametrize(("file", "left"), [("video.mp4", 0.6), ("rows.arrows", 0.6)])
def test_numbers_and_pictures_that_were_cut_apart_end_together(
    tmp_path: Path, file: str, left: float
) -> None:
    episode = DatasetWriter.open(tmp_path, RECORDING).begin("push")
    for i in range(90):
        episode.add(row(i))
    episode.close()
    path = episode.folder / file
    del episode  # and with it its lock, as when the recorder dies
    with path.open("r+b") as cut:
        cut.truncate(int(left * path.stat().st_size))
    (line,) = recover(tmp_path)
    rows = len(read_whole(tmp_path))
    assert 30 <= rows < 80 and line.startswith(f"recovered {rows / 30:.1f} s")


def test_an_episode_cut_at_its_very_beginning_is_told_and_cleared_away(tmp_path: Path) -> None:
    record(tmp_path, 5)
    (tmp_path / ".recording/episode-000001").mkdir(parents=True)
    (line,) = recover(tmp_path)
    assert line.startswith("nothing to recover")
    record(tmp_path, 6)
    assert LeRobotDataset(tmp_path).length(1) == 6


def test_an_episode_that_was_taken_is_not_taken_twice(tmp_path: Path) -> None:
    writer = DatasetWriter.open(tmp_path, RECORDING)
    episode = writer.begin("push")
    for i in range(20):
        episode.add(row(i))
    episode.close()
    shutil.copytree(episode.folder, tmp_path / "copy")
    writer.finish(episode)
    shutil.move(tmp_path / "copy", episode.folder)  # as if killed before the folder was removed
    assert recover(tmp_path) == ["recovered 0.7 s of episode 0, which was cut"]
    assert len(read_whole(tmp_path)) == 20


def test_a_discarded_episode_leaves_nothing(tmp_path: Path) -> None:
    record(tmp_path, 5)
    writer = DatasetWriter.open(tmp_path, RECORDING)
    episode = writer.begin("push")
    episode.add(row(0))
    writer.discard(episode)
    assert len(read_whole(tmp_path)) == 5 and recover(tmp_path) == []


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (Recording("koch", ("pan", "lift"), "front", 64, 48, 30), r"robot \(so101\)"),
        (Recording("so101", ("pan", "elbow"), "front", 64, 48, 30), "observation.state"),
        (Recording("so101", ("pan", "lift"), "wrist", 64, 48, 30), "observation.images.wrist"),
        (Recording("so101", ("pan", "lift"), "front", 64, 48, 15), r"fps \(30\)"),
    ],
)
def test_another_recording_does_not_go_into_the_same_dataset(
    tmp_path: Path, other: Recording, named: str
) -> None:
    record(tmp_path, 5)
    with pytest.raises(DatasetError, match=f"was recorded with another {named}"):
        DatasetWriter.open(tmp_path, other)


def test_what_cannot_be_recorded_or_read_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="63x48: video needs even numbers"):
        DatasetWriter.open(tmp_path / "odd", Recording("so101", ("a",), "front", 63, 48, 30))
    with pytest.raises(DatasetError, match=r"holds no meta/info.json"):
        LeRobotDataset(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="holds other files already"):
        DatasetWriter.open(tmp_path, RECORDING)
    record(tmp_path / "new", 5)
    info = tmp_path / "new/meta/info.json"
    info.write_text(info.read_text().replace('"v3.0"', '"v2.1"'))
    with pytest.raises(DatasetError, match=r"is of version v2.1, v3.0 is needed"):
        LeRobotDataset(tmp_path / "new")


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    writer = DatasetWriter.open(tmp_path, RECORDING)
    episode = writer.begin("push")
    episode.add(row(0)._replace(action=np.array([np.nan, 0], np.float32)))
    writer.finish(episode)
    with pytest.raises(DatasetError, match="action of episode 0 has numbers that are not finite"):
        LeRobotDataset(tmp_path).numbers(0, "action")


def several_in_one_file(folder: Path, lengths: tuple[int, ...], fps: int = 30) -> None:
    """As LeRobot itself writes: all episodes in one data file and one video, key frames where they come."""
    record(folder, *lengths)
    rows = read_whole(folder)
    for path in [*folder.glob("data/*/*"), *folder.glob("videos/*/*/*")]:
        path.unlink()
    columns = {name: [r[name] for r in rows] for name in rows[0] if name != KEY and not name.endswith("tool")}
    pq.write_table(pa.table(columns), folder / "data/chunk-000/file-000.parquet")
    video = folder / f"videos/{KEY}/chunk-000/file-000.mp4"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for r in rows:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(r[KEY], format="rgb24")))
        container.mux(stream.encode())
    table = folder / "meta/episodes/chunk-000/file-000.parquet"
    episodes = pq.read_table(table).to_pylist()
    begin = 0
    for episode in episodes:
        episode |= {"data/file_index": 0, f"videos/{KEY}/file_index": 0}
        episode[f"videos/{KEY}/from_timestamp"] = begin / fps
        begin += episode["length"]
        episode[f"videos/{KEY}/to_timestamp"] = begin / fps
    pq.write_table(pa.Table.from_pylist(episodes), table)


def test_episodes_that_share_files_are_read_each_for_itself(tmp_path: Path) -> None:
    several_in_one_file(tmp_path, (40, 25, 33))
    dataset = LeRobotDataset(tmp_path)
    for episode, length in enumerate((40, 25, 33)):
        np.testing.assert_array_equal(dataset.numbers(episode, "action")[:, 0], np.arange(length) + 1)
        wanted = np.array([0, 11, length - 1])
        shades = [float(image.mean()) for image in dataset.frames(episode, KEY, wanted)]
        np.testing.assert_allclose(shades, 2 * wanted + 10, atol=SHADE_OFF)


# --- rows out of what comes at its own time ---

PERIOD_NS = round(1e9 / 30)


def fed(stamps: list[float]) -> tuple[list[Row], Assembler]:
    """Rows of pictures at `stamps` (in periods), numbered in their grey, joints and setpoints every 10 ms."""
    rows = Assembler(("pan",), 30, lambda q: np.full(3, q[0]))
    found: list[Row] = []
    events: list[tuple[float, str, int]] = [(stamp * PERIOD_NS, "frame", i) for i, stamp in enumerate(stamps)]
    last_ns = int(stamps[-1] * PERIOD_NS)
    events += [(at, "both", 0) for at in range(-20_000_000, last_ns, 10_000_000)]
    for at_ns, what, i in sorted(events):
        if what == "frame":
            found += rows.frame(np.full((2, 2, 3), i, np.uint8), int(at_ns))
        else:
            rows.state(("lift", "pan"), np.array([9.0, at_ns * 1e-9]), int(at_ns))
            rows.setpoint(("pan", "lift"), np.array([at_ns * 1e-9 + 1.0, 9.0]), int(at_ns))
    return found, rows


def test_a_row_holds_its_picture_the_joints_of_then_and_the_last_setpoint_of_its_period() -> None:
    found, rows = fed([0, 1, 2, 3])
    assert [int(r.image[0, 0, 0]) for r in found] == [0, 1, 2] and rows.repeated == 0
    for i, r in enumerate(found):
        at_s = i / 30
        assert abs(r.state[0] - at_s) <= 0.0051 and r.tool[0] == r.state[0]
        assert at_s + 1 / 30 - 0.0101 <= r.action[0] - 1.0 <= at_s + 1 / 30 and r.sent_tool[0] == r.action[0]


def test_pictures_a_little_early_or_late_are_rows_as_they_come() -> None:
    found, rows = fed([0, 1.6, 2.1, 2.9, 4.4, 5.0])
    assert [int(r.image[0, 0, 0]) for r in found] == [0, 1, 2, 3, 4] and rows.repeated == 0


def test_a_lost_picture_is_made_up_for_and_counted() -> None:
    found, rows = fed([0, 1, 4, 5])
    assert [int(r.image[0, 0, 0]) for r in found] == [0, 1, 1, 1, 2] and rows.repeated == 2
    assert abs(found[3].state[0] - 3 / 30) <= 0.0051, "the joints go on while pictures are lost"


def test_a_camera_that_was_silent_for_long_and_a_joint_that_is_missing_are_errors() -> None:
    with pytest.raises(DatasetError, match=r"no picture came for 1\.\d s"):
        fed([0, 1, 40])
    with pytest.raises(DatasetError, match="joint pan is missing"):
        Assembler(("pan",), 30, lambda q: q).state(("lift",), np.zeros(1), 0)
