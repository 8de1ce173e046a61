from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perception.dataset import (
    DESCRIPTION,
    DatasetInfo,
    Episodes,
    load_dataset,
    read_description,
    read_shard,
    remove_partial_files,
    shard_path,
    write_description,
    write_shard,
)
from perception.errors import DatasetError

ARRAYS = ("frames", "actions", "tool", "object")


@pytest.fixture
def info() -> DatasetInfo:
    """Small enough to damage many times: one shard of two episodes of three actions, at 8 px."""
    return DatasetInfo(
        task="push",
        robot="panda",
        image_size=8,
        axes=("x", "y"),
        fixed={"z": 0.025},
        action_limit_m=0.02,
        period_s=0.1,
        camera={"width": 128, "position": [1.05, 0.0, 0.62]},
        seed=3,
        steps=3,
        session=1,
        episodes=2,
        episodes_per_shard=2,
    )


@pytest.fixture
def episodes() -> Episodes:
    rng = np.random.default_rng(0)
    tool = rng.random((2, 4, 3), np.float32)
    return Episodes(
        rng.integers(0, 256, (2, 4, 8, 8, 3), dtype=np.uint8),
        rng.random((2, 3, 2), np.float32),
        tool,
        rng.random((2, 4, 4), np.float32),
    )


@pytest.fixture
def folder(tmp_path: Path, info: DatasetInfo, episodes: Episodes) -> Path:
    write_description(tmp_path / "data", info)
    write_shard(tmp_path / "data", 0, episodes)
    return tmp_path / "data"


def same(one: Episodes, other: Episodes) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True) for name in ARRAYS[1:]
    ) and (np.array_equal(one.frames, other.frames))


def test_what_is_written_is_what_is_read(folder: Path, info: DatasetInfo, episodes: Episodes) -> None:
    found_info, found = load_dataset(folder)
    assert found_info == info
    assert same(found, episodes)
    assert [getattr(found, name).dtype for name in ARRAYS] == [np.uint8, np.float32, np.float32, np.float32]


def test_a_gripper_is_part_of_the_tool_where_the_actions_move_one(
    tmp_path: Path, info: DatasetInfo, episodes: Episodes
) -> None:
    grasping = info.model_copy(update={"axes": ("x", "y", "z", "gripper"), "fixed": {}})
    assert (info.tool_dim, grasping.tool_dim) == (3, 4)
    rng = np.random.default_rng(1)
    shard = Episodes(
        episodes.frames, rng.random((2, 3, 4), np.float32), rng.random((2, 4, 4), np.float32), episodes.object
    )
    write_description(tmp_path, grasping)
    write_shard(tmp_path, 0, shard)
    assert same(load_dataset(tmp_path)[1], shard)
    write_shard(tmp_path, 0, Episodes(shard.frames, shard.actions, episodes.tool, shard.object))
    with pytest.raises(DatasetError, match=r"tool is float32 \(2, 4, 3\), expected float32 \(2, 4, 4\)"):
        load_dataset(tmp_path)


def test_shards_come_back_in_order_the_last_one_short(
    tmp_path: Path, make_dataset: Callable[..., Any]
) -> None:
    drawn = Episodes(
        np.arange(5, dtype=np.uint8)[:, None, None, None, None] * np.ones((1, 41, 16, 16, 3), np.uint8),
        np.zeros((5, 40, 2), np.float32),
        np.zeros((5, 41, 3), np.float32),
        np.full((5, 41, 4), np.nan, np.float32),
    )
    make_dataset(tmp_path, drawn, episodes=5, episodes_per_shard=2, image_size=16)
    info, episodes = load_dataset(tmp_path)
    assert info.shards == 3
    assert same(episodes, drawn)


def test_a_dataset_begun_with_other_options_is_not_gone_on_with(folder: Path, info: DatasetInfo) -> None:
    write_description(folder, info)
    with pytest.raises(
        DatasetError, match=r"dataset\.yaml was begun with another seed, episodes: .*same options"
    ):
        write_description(folder, info.model_copy(update={"seed": 4, "episodes": 9}))
    assert read_description(folder) == info


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text + "colour: red\n", "colour: Extra inputs are not permitted"),
        (lambda text: text.replace("steps: 3", "steps: three"), "steps: Input should be a valid integer"),
        (lambda text: text.replace("episodes_per_shard: 2", "episodes_per_shard: 0"), "episodes_per_shard"),
        (lambda text: text.replace("robot: panda\n", ""), "robot: Field required"),
        (lambda text: text.replace("schema_version: 2", "schema_version: 1"), "schema_version"),
        (lambda text: "steps: [", "while parsing"),
        (lambda text: "", "dictionary"),
    ],
)
def test_a_damaged_description_is_named_with_the_bad_key(
    folder: Path, damage: Callable[[str], str], says: str
) -> None:
    path = folder / DESCRIPTION
    path.write_text(damage(path.read_text()))
    with pytest.raises(
        DatasetError, match=f"(?s)dataset\\.yaml is not a description.*{says}.*jepa-arm collect"
    ):
        load_dataset(folder)


def test_a_description_of_raw_bytes_is_named(folder: Path) -> None:
    (folder / DESCRIPTION).write_bytes(bytes(range(128, 256)))
    with pytest.raises(DatasetError, match=r"dataset\.yaml is not a description"):
        load_dataset(folder)


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_that_holds_no_dataset_is_named(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "pictures"
    if there:
        folder.mkdir()
    with pytest.raises(DatasetError, match=r"pictures holds no dataset\.yaml: name a folder made by"):
        load_dataset(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    shard_path(folder, 0).unlink()
    with pytest.raises(DatasetError, match=r"shard-00000\.npz is missing: run `jepa-arm collect` again"):
        load_dataset(folder)


@given(data=st.data())
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_to_its_bytes_a_shard_reads_as_written_or_is_named(
    data: st.DataObject, folder: Path, info: DatasetInfo, episodes: Episodes
) -> None:
    write_shard(folder, 0, episodes)
    path = shard_path(folder, 0)
    whole = path.read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(whole[:position])
    else:
        flipped = whole[position] ^ (1 << data.draw(st.integers(0, 7)))
        path.write_bytes(whole[:position] + bytes([flipped]) + whole[position + 1 :])
    try:
        found = read_shard(folder, 0, info)
    except DatasetError as error:
        assert "shard-00000.npz" in str(error) and "delete it" in str(error)
    else:
        assert same(found, episodes)


def test_a_file_of_another_kind_under_a_shard_s_name_is_named(folder: Path, info: DatasetInfo) -> None:
    with shard_path(folder, 0).open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DatasetError, match=r"shard-00000\.npz is damaged"):
        read_shard(folder, 0, info)


@pytest.mark.parametrize(
    ("name", "foreign"),
    [
        ("frames", np.zeros((2, 4, 16, 16, 3), np.uint8)),
        ("frames", np.zeros((2, 4, 8, 8, 3), np.float32)),
        ("actions", np.zeros((2, 3, 3), np.float32)),
        ("tool", np.zeros((2, 4, 3), np.float64)),
        ("tool", np.zeros((2, 4, 4), np.float32)),
        ("object", np.zeros((1, 4, 4), np.float32)),
        ("object", np.zeros((2, 4, 3), np.float32)),
    ],
)
def test_a_shard_of_another_dataset_is_refused(
    folder: Path, info: DatasetInfo, episodes: Episodes, name: str, foreign: np.ndarray
) -> None:
    write_shard(folder, 0, Episodes(**{**{key: getattr(episodes, key) for key in ARRAYS}, name: foreign}))
    with pytest.raises(
        DatasetError, match=rf"shard-00000\.npz does not belong to .* {name} is {foreign.dtype}"
    ):
        read_shard(folder, 0, info)


def test_a_full_disk_keeps_the_shard_that_was_there(
    folder: Path, info: DatasetInfo, episodes: Episodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    brighter = Episodes(episodes.frames // 2, episodes.actions, episodes.tool, episodes.object)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DatasetError, match=r"cannot write .*shard-00000\.npz: No space left on device"):
        write_shard(folder, 0, brighter)
    assert same(read_shard(folder, 0, info), episodes)
    assert sorted(path.name for path in folder.iterdir()) == [DESCRIPTION, "shard-00000.npz"]


def test_an_out_folder_that_is_a_file_is_named(tmp_path: Path, info: DatasetInfo) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(DatasetError, match=r"cannot write .*data/dataset\.yaml"):
        write_description(tmp_path / "data", info)


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
import numpy as np
from perception.dataset import Episodes, write_shard

def die(descriptor):
    os.kill(os.getpid(), signal.SIGKILL)

os.fsync = die
array = np.zeros((2, 4, 3), np.float32)
write_shard(Path(sys.argv[1]), 1, Episodes(array, array, array, array))
"""


def test_a_writer_killed_while_writing_leaves_no_shard_and_what_it_leaves_is_cleared_away(
    folder: Path, info: DatasetInfo
) -> None:
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(folder)], cwd=root, timeout=120)
    assert killed.returncode == -9
    assert not shard_path(folder, 1).exists()
    assert len(list(folder.iterdir())) == 3, "the half-written file that the next line is about"
    remove_partial_files(folder)
    assert sorted(path.name for path in folder.iterdir()) == [DESCRIPTION, "shard-00000.npz"]


def test_half_written_files_of_a_running_writer_are_left_alone(folder: Path) -> None:
    partial = folder / f".shard-00007.npz.{os.getpid()}.partial"
    partial.write_bytes(b"so far")
    remove_partial_files(folder)
    assert partial.exists()


def test_a_description_is_yaml_that_people_can_read(folder: Path) -> None:
    content = yaml.safe_load((folder / DESCRIPTION).read_text())
    assert content["task"] == "push"
    assert content["axes"] == ["x", "y"]
