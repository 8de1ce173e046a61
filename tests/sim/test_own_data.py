"""LeRobot datasets as the trainer takes them: ours, and others' that hold joints alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hardware.errors import RobotError
from hardware.kinematics import Kinematics
from hardware.robot import load_robot
from perception.dataset import load_dataset
from perception.errors import DatasetError
from perception.lerobot.layout import Recording
from perception.lerobot.running import Row
from perception.lerobot.writer import DatasetWriter
from sim.own_data import Source, from_percent, import_dataset

ROBOT = load_robot("so101")
KINEMATICS = Kinematics(ROBOT)
FPS = 30
STEPS = 10
SHADE_OFF = 4


def joints(i: int) -> np.ndarray:
    """The joints at row i: the arm swings about its base."""
    q = ROBOT.home.copy()
    q[0], q[1] = 0.5 * np.sin(i / 25), 0.1 * np.sin(i / 40)
    return q


def record(folder: Path, *lengths: int, robot: str = "so101", seen: np.ndarray | None = None) -> None:
    writer = DatasetWriter.open(folder, Recording(robot, ROBOT.joint_names, "front", 64, 64, FPS))
    for length in lengths:
        episode = writer.begin("Push the cube!")
        for i in range(length):
            q, sent = joints(i), joints(i + 1)
            tools = (KINEMATICS.tool_position(q), KINEMATICS.tool_position(sent))
            numbers = (np.asarray(values, np.float32) for values in (q, sent, *tools))
            episode.add(Row(np.full((64, 64, 3), 40 + i % 100, np.uint8), *numbers))
        writer.finish(episode)


def as_others_write(folder: Path, **changes: object) -> None:
    """Without the tool's positions, which only we record, and with `changes` in info.json."""
    path = folder / "meta/info.json"
    info = json.loads(path.read_text()) | changes
    for name in ("observation.tool", "action.tool"):
        del info["features"][name]
    for name in ("observation.state", "action"):
        info["features"][name]["names"] = [f"{joint}.pos" for joint in ROBOT.joint_names]
    path.write_text(json.dumps(info))


def no_news(line: str) -> None:
    pass


def test_pieces_hold_the_pictures_the_tool_and_how_far_it_was_sent(tmp_path: Path) -> None:
    record(tmp_path / "own", 62, 95)
    info = import_dataset(Source(tmp_path / "own"), tmp_path / "data", STEPS, no_news)
    found, episodes = load_dataset(tmp_path / "data")
    assert found == info and (info.robot, info.task, info.source) == ("so101", "push-the-cube", "recorded")
    assert (info.episodes, info.steps, info.period_s, info.session) == (5, STEPS, 0.1, 2)
    assert info.axes == ("x", "y", "z")[: len(info.axes)] and "y" in info.axes
    # The third piece is the second one of ... rows 0, 3, … of the second episode.
    for piece, first in ((0, 0), (1, 30), (2, 0), (3, 30), (4, 60)):
        for step in (0, 1, STEPS):
            i = first + 3 * step
            assert abs(episodes.frames[piece, step].mean() - (40 + i % 100)) < SHADE_OFF
            np.testing.assert_allclose(
                episodes.tool[piece, step], KINEMATICS.tool_position(joints(i)), atol=1e-6
            )
        i = first + 3
        way = KINEMATICS.tool_position(joints(i + 3)) - KINEMATICS.tool_position(joints(i))
        axes = ["xyz".index(axis) for axis in info.axes]
        limited = np.clip(way[axes], -info.action_limit_m, info.action_limit_m)
        np.testing.assert_allclose(episodes.actions[piece, 1], limited, atol=1e-6)
    assert np.isnan(episodes.object).all()


def test_joints_alone_give_the_same_with_the_robot_file(tmp_path: Path) -> None:
    record(tmp_path / "own", 62, 95)
    import_dataset(Source(tmp_path / "own"), tmp_path / "data", STEPS, no_news)
    as_others_write(tmp_path / "own", robot_type="so101_follower")
    theirs = Source(tmp_path / "own", robot="so101", camera_key="observation.images.front")
    import_dataset(theirs, tmp_path / "theirs", STEPS, no_news)
    (info, ours), (same, found) = load_dataset(tmp_path / "data"), load_dataset(tmp_path / "theirs")
    assert same == info
    np.testing.assert_allclose(found.tool, ours.tool, atol=1e-5)
    np.testing.assert_allclose(found.actions, ours.actions, atol=1e-5)
    np.testing.assert_array_equal(found.frames, ours.frames)


def test_what_is_missing_in_others_datasets_is_named(tmp_path: Path) -> None:
    own = tmp_path / "own"
    record(own, 62, 95)
    as_others_write(own, robot_type="so101_follower")
    for source, words in (
        (Source(own), "of robot so101_follower, of which there is no robot file: name one with --robot"),
        (Source(own, robot="panda"), "robot panda has .*: name the robot file whose joints these are"),
        (Source(own, robot="so101", camera_key="observation.images.wrist"), "has no video .*wrist; it has"),
    ):
        with pytest.raises(DatasetError, match=words):
            import_dataset(source, tmp_path / "data", STEPS, no_news)
    with pytest.raises(RobotError, match="no robot named 'nobody'"):
        import_dataset(Source(own, robot="nobody"), tmp_path / "data", STEPS, no_news)
    as_others = json.loads((own / "meta/info.json").read_text())
    as_others["features"]["observation.images.top"] = as_others["features"]["observation.images.front"]
    (own / "meta/info.json").write_text(json.dumps(as_others))
    with pytest.raises(DatasetError, match="several videos: choose one, --camera-key"):
        import_dataset(Source(own, robot="so101"), tmp_path / "data", STEPS, no_news)


def test_units_that_are_not_radians_are_seen_and_can_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path / "rad", 62, 62)
    as_others_write(tmp_path / "rad")
    monkeypatch.setitem(globals(), "joints", lambda i, q=joints: np.rad2deg(q(i)))
    monkeypatch.setattr(KINEMATICS, "tool_position", lambda q: np.zeros(3))
    record(tmp_path / "deg", 62, 62)
    monkeypatch.undo()
    as_others_write(tmp_path / "deg")
    import_dataset(Source(tmp_path / "rad"), tmp_path / "of_rad", STEPS, no_news)
    with pytest.raises(DatasetError, match="goes up to 90, which is not in radians"):
        import_dataset(Source(tmp_path / "deg"), tmp_path / "of_deg", STEPS, no_news)
    import_dataset(Source(tmp_path / "deg", joint_units="deg"), tmp_path / "of_deg", STEPS, no_news)
    _, wanted = load_dataset(tmp_path / "of_rad")
    _, found = load_dataset(tmp_path / "of_deg")
    np.testing.assert_allclose(found.tool, wanted.tool, atol=1e-5)


def test_percent_are_of_each_joints_range() -> None:
    ends = np.array([[-100.0] * 5 + [0.0], [100.0] * 6])
    found = from_percent(ends, ROBOT)
    np.testing.assert_allclose(found, [ROBOT.position_lower, ROBOT.position_upper])


def test_too_little_and_no_motion_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(tmp_path / "short", 25, 40)
    with pytest.raises(DatasetError, match=r"at least two episodes of 1\.0 s, its longest is 1\.3 s"):
        import_dataset(Source(tmp_path / "short"), tmp_path / "data", STEPS, no_news)
    monkeypatch.setitem(globals(), "joints", lambda i: ROBOT.home)
    record(tmp_path / "still", 62, 62)
    with pytest.raises(DatasetError, match="the tool hardly moves in it"):
        import_dataset(Source(tmp_path / "still"), tmp_path / "data", STEPS, no_news)


def test_an_import_that_is_there_is_kept_and_another_is_not_mixed_with_it(tmp_path: Path) -> None:
    record(tmp_path / "own", 62, 62)
    import_dataset(Source(tmp_path / "own"), tmp_path / "data", STEPS, no_news)
    shard = tmp_path / "data/shard-00000.npz"
    written = shard.stat().st_mtime_ns
    import_dataset(Source(tmp_path / "own"), tmp_path / "data", STEPS, no_news)
    assert shard.stat().st_mtime_ns == written
    record(tmp_path / "own", 62)
    with pytest.raises(DatasetError, match="was begun with another episodes"):
        import_dataset(Source(tmp_path / "own"), tmp_path / "data", STEPS, no_news)


def test_an_import_finishes_what_was_cut(tmp_path: Path) -> None:
    record(tmp_path / "own", 62)
    writer = DatasetWriter.open(tmp_path / "own", Recording("so101", ROBOT.joint_names, "front", 64, 64, FPS))
    episode = writer.begin("Push the cube!")
    numbers = np.zeros(6, np.float32)
    for i in range(62):
        tool = np.full(3, i * 1e-3, np.float32)
        episode.add(Row(np.zeros((64, 64, 3), np.uint8), numbers, numbers, tool, tool))
    episode.close()
    del episode  # and with it its lock, as when the recorder dies
    news: list[str] = []
    import_dataset(Source(tmp_path / "own"), tmp_path / "data", STEPS, news.append)
    assert news[0] == "recovered 2.1 s of episode 1, which was cut"
    assert len(load_dataset(tmp_path / "data")[1]) == 4
