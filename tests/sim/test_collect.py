"""`jepa-arm collect`, by its real command, with episodes of 6 steps and shards of 2 episodes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cli
import sim.collect
from perception.dataset import load_dataset, read_description, read_shard, shard_path
from sim.tasks import TASKS, TRAINED, make_task

ROOT = Path(__file__).parents[2]
STEPS, EPISODES_PER_SHARD = 6, 2
COMMAND = f"""
import sys, cli, sim.collect, sim.tasks
from dataclasses import replace
sim.collect.EPISODES_PER_SHARD = {EPISODES_PER_SHARD}
sim.tasks.TASKS["push"] = replace(sim.tasks.TASKS["push"], play_steps={STEPS})
sys.exit(cli.main(sys.argv[1:]))
"""


def options(out: Path, episodes: int = 5, workers: int = 1, seed: int = 1, task: str = "push") -> list[str]:
    numbers = {"--episodes": episodes, "--workers": workers, "--seed": seed}
    return [
        "collect",
        "--task",
        task,
        "--out",
        str(out),
        *(str(x) for pair in numbers.items() for x in pair),
    ]


@pytest.fixture
def short_play(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, task in TASKS.items():
        monkeypatch.setitem(TASKS, name, replace(task, play_steps=STEPS))
    monkeypatch.setattr(sim.collect, "EPISODES_PER_SHARD", EPISODES_PER_SHARD)


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five episodes, collected by one worker, undisturbed. Read it only."""
    out = tmp_path_factory.mktemp("collected") / "push"
    subprocess.run([sys.executable, "-c", COMMAND, *options(out)], cwd=ROOT, check=True, timeout=170)
    return out


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command in a process group of its own, and sees to it that none is left."""
    started: list[subprocess.Popen[str]] = []

    def start(arguments: list[str]) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        command = [sys.executable, "-c", COMMAND, *arguments]
        started.append(subprocess.Popen(command, cwd=ROOT, text=True, start_new_session=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


@pytest.mark.usefixtures("short_play")
def test_with_a_camera_that_is_to_be_the_same_play_is_seen_otherwise(tmp_path: Path) -> None:
    assert cli.main(options(tmp_path / "moved", episodes=1, seed=3)) == 0
    assert cli.main([*options(tmp_path / "still", episodes=1, seed=3), "--same", "camera"]) == 0
    (moved_info, moved), (still_info, still) = (load_dataset(tmp_path / name) for name in ("moved", "still"))
    assert (moved_info.same, still_info.same) == ((), ("camera",))
    assert (moved.frames != still.frames).any()


def wait_until(happened: Callable[[], bool], what: str, within_s: float = 150.0) -> None:
    deadline, pause = time.monotonic() + within_s, threading.Event()
    while not happened():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        pause.wait(0.01)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Those that run now."""
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # what ended meanwhile
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def whole_shards(out: Path) -> list[str]:
    """The names of the shards that are there; every one of them must read well."""
    info = read_description(out)
    there = [index for index in range(info.shards) if shard_path(out, index).exists()]
    for index in there:
        read_shard(out, index, info)
    return [shard_path(out, index).name for index in there]


def assert_same_bytes(out: Path, other: Path) -> None:
    names = sorted(path.name for path in other.iterdir())
    assert sorted(path.name for path in out.iterdir()) == names
    for name in names:
        assert (out / name).read_bytes() == (other / name).read_bytes(), name


def test_a_dataset_holds_what_it_says(collected: Path) -> None:
    info, episodes = load_dataset(collected)
    assert (info.task, info.robot, info.axes, info.fixed) == ("push", "panda", ("x", "y"), {"z": 0.025})
    assert len(episodes) == info.episodes == 5
    assert np.isfinite(episodes.actions).all() and np.isfinite(episodes.tool).all()
    assert np.abs(episodes.actions).max() <= info.action_limit_m * (1 + 1e-6)
    np.testing.assert_allclose(episodes.tool[:, 1:, 2], 0.025, atol=0.005)
    np.testing.assert_allclose(episodes.object[:, :, 2], 0.03, atol=0.01)
    assert len({episode.tobytes() for episode in episodes.frames[:, 0]}) == 5, "no episode twice"


def test_play_with_a_gripper_is_recorded_with_its_opening_and_the_cube_s_place_and_yaw(
    tmp_path: Path, short_play: None
) -> None:
    assert cli.main(options(tmp_path / "data", episodes=2, task="pick-place")) == 0
    info, episodes = load_dataset(tmp_path / "data")
    task = make_task("pick-place")
    assert (info.robot, info.axes, info.tool_dim) == ("panda_hand", ("x", "y", "z", "gripper"), 4)
    assert episodes.actions.shape == (2, STEPS, 4) and episodes.tool.shape == (2, STEPS + 1, 4)
    assert np.abs(episodes.actions).max() <= task.action_limit_m * (1 + 1e-6)
    np.testing.assert_allclose(episodes.tool[:, 0, 3], 0.04, atol=1e-4)  # play begins with the hand open
    assert (episodes.tool[..., 3] > -1e-3).all() and (episodes.tool[..., 3] < 0.041).all()
    cube = episodes.object[:, 0]
    assert (np.abs(cube[:, 3]) <= task.object_yaw).all() and cube[:, 3].all()
    assert (cube[:, :2] >= task.object_low).all() and (cube[:, :2] <= task.object_high).all()


def test_the_scene_is_the_same_within_a_session_and_differs_between_them(
    tmp_path: Path, short_play: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sim.collect, "EPISODES_PER_SESSION", 3)
    assert cli.main(options(tmp_path / "data", episodes=6)) == 0
    info, episodes = load_dataset(tmp_path / "data")
    assert info.session == 3 and info.episodes_per_shard == 2, "a session goes on in the next shard"
    heights = episodes.object[:, 0, 2]  # half of the cube's size
    np.testing.assert_allclose(heights, np.repeat(heights[[0, 3]], 3), atol=1e-6)
    assert abs(heights[0] - heights[3]) > 1e-4
    assert len({place.tobytes() for place in episodes.object[:, 0, :2]}) == 6, "but no episode twice"


def test_a_robot_without_a_gripper_is_refused_for_pick_place_before_anything_is_written(
    tmp_path: Path, short_play: None, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*options(tmp_path / "data", episodes=2, task="pick-place"), "--robot", "panda"]
    assert cli.main(command) == 2
    assert "task pick-place needs a gripper, robot panda has none" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_a_gripper_that_has_no_part_in_the_task_is_not_recorded(tmp_path: Path, short_play: None) -> None:
    assert cli.main([*options(tmp_path / "data", episodes=2, task="reach"), "--robot", "panda_hand"]) == 0
    info, episodes = load_dataset(tmp_path / "data")
    assert info.robot == "panda_hand" and episodes.tool.shape == (2, STEPS + 1, 3)


def test_play_is_collected_for_the_tasks_that_bundles_are_trained_for(tmp_path: Path) -> None:
    for name in TRAINED:
        command = options(tmp_path, task=name)
        assert cli.make_parser(command).parse_args(command).task == name
    with pytest.raises(SystemExit):
        cli.make_parser(["collect"]).parse_args(options(tmp_path, task="push-far"))


def test_the_tool_moves_as_the_action_recorded_with_it_says(collected: Path) -> None:
    _, episodes = load_dataset(collected)
    moved, actions = np.diff(episodes.tool[:, :, :2], axis=1), episodes.actions

    def agreement(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

    assert agreement(moved, actions) > 0.9
    assert agreement(moved, actions) > agreement(moved[:, 1:], actions[:, :-1])


def test_the_number_of_workers_does_not_change_a_byte(
    collected: Path, tmp_path: Path, short_play: None
) -> None:
    assert cli.main(options(tmp_path / "push", workers=2)) == 0
    assert_same_bytes(tmp_path / "push", collected)


def test_killed_in_the_middle_it_leaves_whole_shards_only_and_goes_on_from_them(
    tmp_path: Path, collected: Path, running: Callable[..., subprocess.Popen[str]], short_play: None
) -> None:
    out = tmp_path / "push"
    process = running(options(out, episodes=12))
    wait_until(lambda: shard_path(out, 0).exists(), "the first shard")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    left = whole_shards(out)
    assert 1 <= len(left) < 6
    kept = {name: (out / name).stat().st_mtime_ns for name in left}
    assert cli.main(options(out, episodes=12)) == 0
    assert len(whole_shards(out)) == 6
    assert {name: (out / name).stat().st_mtime_ns for name in left} == kept, (
        "what was there is not made again"
    )
    assert not list(out.glob(".*")), "nothing half-written stays"
    for index in (0, 1):
        assert shard_path(out, index).read_bytes() == shard_path(collected, index).read_bytes()


def test_a_finished_dataset_is_left_as_it_is(
    collected: Path, short_play: None, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in collected.iterdir()}
    assert cli.main(options(collected)) == 0
    assert {path.name: path.stat().st_mtime_ns for path in collected.iterdir()} == before
    assert "5 episodes of push (30 actions)" in capsys.readouterr().out


def test_workers_end_when_the_command_is_killed(
    tmp_path: Path, running: Callable[..., subprocess.Popen[str]]
) -> None:
    process = running(options(tmp_path / "push", episodes=40, workers=2))
    wait_until(lambda: shard_path(tmp_path / "push", 0).exists(), "the first shard")
    workers = workers_of(process)
    assert len(workers) == 2
    process.kill()
    wait_until(lambda: not any(is_running(worker) for worker in workers), "the worker ends")


def test_workers_that_die_again_and_again_end_the_command_with_what_to_do(
    tmp_path: Path, running: Callable[..., subprocess.Popen[str]]
) -> None:
    process = running(options(tmp_path / "push", episodes=40, workers=2))
    wait_until(lambda: shard_path(tmp_path / "push", 0).exists(), "the first shard")

    def ended() -> bool:
        for worker in workers_of(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        return process.poll() is not None

    wait_until(ended, "the command ends")
    _, said = process.communicate(timeout=150)
    assert process.returncode == 2
    assert "workers died again and again" in said and "fewer --workers" in said
    assert "Traceback" not in said
    assert whole_shards(tmp_path / "push")


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_it_at_once_without_a_traceback(
    tmp_path: Path, running: Callable[..., subprocess.Popen[str]], workers: int
) -> None:
    process = running(options(tmp_path / "push", episodes=40, workers=workers))
    wait_until(lambda: shard_path(tmp_path / "push", 0).exists(), "the first shard")
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=150)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert len(whole_shards(tmp_path / "push")) < 20


@pytest.fixture
def dataset(collected: Path, tmp_path: Path) -> Path:
    """A copy, to damage."""
    shutil.copytree(collected, tmp_path / "push")
    return tmp_path / "push"


def test_a_damaged_shard_is_named(
    dataset: Path, short_play: None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shard_path(dataset, 1)
    path.write_bytes(path.read_bytes()[:-1000])
    assert cli.main(options(dataset)) == 2
    said = capsys.readouterr().err
    assert f"{path} is damaged" in said and "delete it" in said and len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "key"), [({"seed": 2}, "seed"), ({"episodes": 6}, "episodes")], ids=["seed", "episodes"]
)
def test_a_dataset_begun_with_other_options_is_refused(
    dataset: Path,
    collected: Path,
    short_play: None,
    capsys: pytest.CaptureFixture[str],
    change: dict,
    key: str,
) -> None:
    assert cli.main(options(dataset, **change)) == 2
    said = capsys.readouterr().err
    assert f"dataset.yaml was begun with another {key}: go on with the same options" in said
    assert_same_bytes(dataset, collected)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"episodes": 0}, "--episodes 0: ask for"), ({"seed": -1}, "--seed -1: seeds are not")],
)
def test_options_that_make_no_sense_are_refused(
    tmp_path: Path, short_play: None, capsys: pytest.CaptureFixture[str], change: dict, says: str
) -> None:
    assert cli.main(options(tmp_path / "push", **change)) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "push").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 kB, room for one shard of 170 kB and not for two."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk; tests/perception/test_dataset.py fakes a full one")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_ends_it_with_what_to_do_and_loses_nothing(
    small_disk: Path, collected: Path, short_play: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = small_disk / "push"
    assert cli.main(options(out)) == 2
    said = capsys.readouterr().err
    assert "cannot write" in said and "No space left on device" in said and "same command again" in said
    assert "Traceback" not in said
    assert whole_shards(out)
    assert not list(out.glob(".*"))
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert cli.main(options(out)) == 0
    assert_same_bytes(out, collected)
