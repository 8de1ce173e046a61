"""`jepa-arm demo` and `jepa-arm eval --ros` over the real graph, as a user starts them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from jepa_arm_bringup.demo import even_frames
from jepa_arm_bringup.evaluate import ros_figures
from jepa_arm_ros.episode_client import RosEpisode

ROOT = Path(__file__).parents[2]
SHARED_MEMORY = Path("/dev/shm")
ENDS_WITHIN_S = 30.0

pytestmark = [pytest.mark.ros, pytest.mark.timeout(300)]


@dataclass
class Run:
    """A started command, what it printed, and what it and its processes held while it ran."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    pids: set[int] = field(default_factory=set)
    segments: set[str] = field(default_factory=set)
    older: frozenset[str] = field(default_factory=lambda: frozenset(os.listdir(SHARED_MEMORY)))

    def until(self, text: str) -> None:
        """Read on until a line has `text`; fails with all that was printed if none has."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if text in line:
                self.look()
                return
        pytest.fail(f"{text!r} was never printed, but\n{self.printed}")

    def look(self) -> None:
        """Note the processes and the shared memory of the running command."""
        self.pids |= {self.process.pid, *children_of(self.process.pid)}
        self.segments |= {segment for pid in self.pids for segment in mapped_by(pid)}

    def end(self) -> int:
        """Wait for the end; the exit code."""
        rest, _ = self.process.communicate(timeout=ENDS_WITHIN_S * 4)
        self.lines += rest.splitlines(keepends=True)
        return self.process.returncode

    @property
    def printed(self) -> str:
        return "".join(self.lines)

    def left_behind(self) -> list[str]:
        """Processes that still run, and segments of the run that still exist although nobody uses them."""
        left = [f"process {pid}" for pid in self.pids if Path(f"/proc/{pid}").exists()]
        used = {segment for folder in Path("/proc").glob("[0-9]*") for segment in mapped_by(int(folder.name))}
        return left + [name for name in self.segments - self.older - used if (SHARED_MEMORY / name).exists()]


def children_of(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for children in found for child in children.read_text().split()]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def mapped_by(pid: int) -> set[str]:
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return set()
    return set(re.findall(r"/dev/shm/(fastrtps_\S+)", maps))


@pytest.fixture
def start(bundle):
    """Starts `jepa-arm ARGUMENTS --bundle ...`; whatever still runs at the end of the test is killed."""
    runs: list[Run] = []

    def start(*arguments: object) -> Run:
        command = [sys.executable, "cli.py", *map(str, arguments), "--bundle", str(bundle)]
        pipe = subprocess.PIPE
        run = Run(subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=subprocess.STDOUT, text=True))
        runs.append(run)
        return run

    yield start
    for run in runs:
        if run.process.poll() is None:
            run.process.send_signal(signal.SIGINT)
            run.process.wait(ENDS_WITHIN_S)


class Elements(HTMLParser):
    """Counts the elements of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: Iterable[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1


def test_the_demo_runs_every_episode_reports_them_and_leaves_nothing_behind(start, tmp_path):
    run = start("demo", "--episodes", 2, "--seed", 3, "--out", tmp_path)
    run.until("episode 2 of 2")
    assert run.end() == 0, run.printed
    assert len(run.pids) >= 5 and run.segments, (
        "the demo did not run as separate processes over shared memory"
    )

    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["task"], results["planner"], results["episodes"]) == ("push", "mode2", 2)
    assert [episode["seed"] for episode in results["results"]] == [3_000_000, 3_000_001]
    for figure in (
        "success_rate",
        "held_success_rate",
        "plan_ms_p50",
        "plan_ms_p99",
        "camera_hz",
        "command_hz",
    ):
        assert results[figure] >= 0, figure
    assert results["frames_sent"] > results["frames_dropped"] >= 0
    assert {"frame_to_command_ms_p50", "frame_to_command_ms_p99"} <= results.keys()

    counts = Elements((tmp_path / "report.html").read_text()).counts
    assert (counts["article"], counts["video"], counts["img"]) == (2, 2, 2)
    for headline in ("held success", "frame → command", "plan time", "frames dropped"):
        assert headline in run.printed
    assert f"report: {tmp_path / 'report.html'}" in run.printed
    assert run.left_behind() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_an_interrupted_demo_stops_every_process_and_leaves_nothing_behind(start, tmp_path, number):
    run = start("demo", "--episodes", 5, "--out", tmp_path)
    run.until("episode 1 of 5")
    run.process.send_signal(number)
    assert run.end() == 130, run.printed
    assert len(run.pids) >= 5 and run.left_behind() == []
    assert "Traceback" not in run.printed
    assert not (tmp_path / "report.html").exists()


def test_a_demo_whose_simulator_dies_ends_with_one_line_that_names_its_log(start, tmp_path):
    run = start("demo", "--episodes", 5, "--planner", "hold", "--out", tmp_path)
    run.until("episode 1 of 5")
    (simulator,) = [pid for pid in run.pids if "sim_node" in command_of(pid)]
    os.kill(simulator, signal.SIGKILL)
    assert run.end() == 2, run.printed
    assert run.lines[-1] == f"jepa-arm: error: sim ended during an episode: see {tmp_path}/logs/sim.log\n"
    assert [left for left in run.left_behind() if left.startswith("process")] == []


def test_the_demo_refuses_a_wrong_request_in_one_line_before_it_starts_anything(start, tmp_path):
    run = start("demo", "--episodes", 0, "--out", tmp_path / "out")
    assert run.end() == 2
    assert run.lines[-1] == "jepa-arm: error: --episodes 0: ask for at least one\n"
    assert not (tmp_path / "out").exists()


def test_eval_over_ros_has_the_figures_of_eval_and_those_of_the_graph(start, tmp_path):
    file = tmp_path / "figures.json"
    run = start(
        "eval", "--ros", "--task", "push", "--episodes", 1, "--seed", 4, "--planner", "mode1", "--json", file
    )
    assert run.end() == 0, run.printed
    figures = json.loads(file.read_text())
    assert figures.keys() >= {
        *("task", "episodes", "seed", "success_rate", "wilson_low", "wilson_high", "held_success_rate"),
        *("distance_cm_median", "plan_ms_p50", "plan_ms_p99", "planner", "bundle"),
        *("frame_to_command_ms_p50", "frame_to_command_ms_p99", "camera_hz", "command_hz", "frames_dropped"),
    }
    assert [episode["seed"] for episode in figures["results"]] == [4_000_000]
    assert figures["camera_hz"] > 0


def test_eval_over_ros_refuses_the_pilot_that_sees_the_truth(start):
    run = start("eval", "--ros", "--task", "push", "--episodes", 1, "--planner", "scripted")
    assert run.end() == 2
    assert "jepa-arm: error:" in run.lines[-1] and "without --ros" in run.lines[-1]


def test_the_figures_of_the_graph_are_taken_over_all_episodes():
    first, second = an_episode(elapsed_s=4.0), an_episode(elapsed_s=6.0)
    first.frames_sent, first.frames_encoded, first.commands = 120, 118, 60
    second.frames_sent, second.frames_encoded, second.commands = 180, 180, 85
    second.stops = ["command_stale", "command_stale"]
    first.frame_to_command_ms, second.frame_to_command_ms = [10.0] * 50, [30.0] * 50 + [90.0]
    figures = ros_figures([first, second])
    assert (figures["frame_to_command_ms_p50"], figures["frame_to_command_ms_p99"]) == (30.0, 30.0)
    assert (figures["camera_hz"], figures["command_hz"]) == (30.0, 14.5)
    assert (figures["frames_sent"], figures["frames_dropped"]) == (300, 2)
    assert (figures["episodes_stopped"], figures["stop_reasons"]) == (1, ["command_stale"])


def test_without_a_command_there_is_no_latency_rather_than_a_good_one():
    figures = ros_figures([an_episode(elapsed_s=4.0)])
    assert figures["frame_to_command_ms_p50"] is figures["frame_to_command_ms_p99"] is None


def test_pictures_that_came_at_uneven_times_make_a_film_of_even_ones():
    came = [(0.02, 0), (0.11, 1), (0.45, 2), (0.52, 3)]
    video = [(time_s, np.full((2, 2, 3), shade, np.uint8)) for time_s, shade in came]
    film = even_frames(video, until_s=0.7)
    assert film[:, 0, 0, 0].tolist() == [0, 0, 1, 1, 1, 2, 3]
    assert even_frames([], until_s=1.0).shape == (0, 1, 1, 3)


def an_episode(elapsed_s: float) -> RosEpisode:
    picture = np.zeros((2, 2, 3), np.uint8)
    return RosEpisode(1, picture, picture, start_distance_m=0.1, budget_s=8.0, elapsed_s=elapsed_s)
