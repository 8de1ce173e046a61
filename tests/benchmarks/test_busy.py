"""`bench --busy`: each step alone and beside neighbours that keep the other cores busy."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cli
from benchmarks import cases, timing
from benchmarks.errors import BenchmarkError
from benchmarks.neighbours import busy_neighbours, own_threads, siblings
from benchmarks.timing import ROUNDS, Case, Timing, measure

needs_two_cores = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="this process may use one core only"
)


def spin(milliseconds: float) -> None:
    until = time.perf_counter() + milliseconds * 1e-3
    while time.perf_counter() < until:
        pass


@pytest.fixture
def spinning(monkeypatch):
    """Of all steps, one that takes a millisecond."""
    monkeypatch.setattr(cases, "all_cases", lambda bundle: [Case("spin", "1 ms", lambda: spin(1.0))])


@needs_two_cores
def test_busy_adds_to_each_step_how_many_times_as_long_it_took(
    tiny_bundle, tmp_path, spinning, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "160")
    file = tmp_path / "bench.json"
    cores = os.sched_getaffinity(0)
    command = ["bench", "--bundle", str(tiny_bundle), "--seconds", "0.1", "--busy", "--json", str(file)]
    assert cli.main(command) == 0
    report = json.loads(file.read_text())
    assert {report["busy"]["core"], *report["busy"]["busy_cores"]} == cores
    assert report["busy"]["core"] not in report["busy"]["busy_cores"]
    measured = report["timings"]["spin"]
    busy = measured["busy"]
    assert busy["calls"] >= ROUNDS and 1.0 <= busy["median_ms"] <= busy["p99_ms"]
    assert busy["times_median"] == pytest.approx(busy["median_ms"] / measured["median_ms"], abs=0.01)
    assert busy["times_p99"] == pytest.approx(busy["p99_ms"] / measured["p99_ms"], abs=0.01)
    printed = capsys.readouterr().out
    assert "busy median" in printed and "busy p99" in printed and f"{busy['times_median']:.2f}" in printed


def test_without_busy_there_is_nothing_of_it(tiny_bundle, tmp_path, spinning, capsys):
    file = tmp_path / "bench.json"
    assert cli.main(["bench", "--bundle", str(tiny_bundle), "--seconds", "0.01", "--json", str(file)]) == 0
    assert "busy" not in file.read_text() and "busy" not in capsys.readouterr().out


class Told:
    """Neighbours that only remember what they were told."""

    def __init__(self) -> None:
        self.working = False
        self.words: list[str] = []

    def work(self) -> None:
        self.working = True
        self.words.append("work")

    def rest(self) -> None:
        self.working = False
        self.words.append("rest")


def test_each_slice_alone_has_one_beside_neighbours_next_to_it():
    told, seen = Told(), []

    def step(name: str) -> Case:
        def run() -> None:
            seen.append((name, told.working))
            spin(2.0 if told.working else 0.5)

        return Case(name, "", run)

    *_, (a, b) = measure([step("a"), step("b")], seconds=0.02, neighbours=told)
    for timed in (a, b):
        assert max(timed.milliseconds) > 0.5 and min(timed.beside) >= 2.0, "each with its own kind"
        assert min(timed.milliseconds) < 2.0
    assert told.words.count("work") == told.words.count("rest") == 2 * ROUNDS
    after_warm_up = seen[2 * timing.WARM_UP_CALLS :]
    slices = [now for now, before in zip(after_warm_up, [None, *after_warm_up]) if now != before]
    pairs = list(zip(slices[::2], slices[1::2], strict=True))
    assert len(pairs) == 2 * ROUNDS
    assert all(one[0] == other[0] and one[1] != other[1] for one, other in pairs)
    first_alone = [not one[1] for one, _ in pairs if one[0] == "a"]
    assert first_alone.count(True) == first_alone.count(False), "each comes first as often"


def test_ratios_are_of_medians_and_of_99th_percentiles():
    alone, beside = [1.0] * 98 + [4.0] * 2, [3.0] * 98 + [8.0] * 2
    busy = Timing("a", "", alone, beside).figures()["busy"]
    assert busy["times_median"] == 3.0 and busy["times_p99"] == pytest.approx(8 / 4, rel=0.02)


@needs_two_cores
def test_neighbours_work_on_the_other_cores_and_only_when_told():
    whole = {thread: os.sched_getaffinity(thread) for thread in own_threads()}
    with busy_neighbours() as neighbours:
        assert {frozenset(os.sched_getaffinity(thread)) for thread in own_threads()} == {
            frozenset({neighbours.core})
        }
        processes = children()
        assert sorted(core for process in processes for core in os.sched_getaffinity(process)) == sorted(
            neighbours.cores
        )
        resting = used_ms(processes)
        spin(100)
        assert used_ms(processes) - resting < 5, "at rest until told"
        neighbours.work()
        wait_until(lambda: min(used_ms([process]) for process in processes) > resting + 20)
        neighbours.rest()
        resting = used_ms(processes)
        spin(100)
        assert used_ms(processes) - resting < 5, "at rest again"
    assert not any(alive(process) for process in processes)
    assert {thread: os.sched_getaffinity(thread) for thread in whole if alive(thread)} == whole


@needs_two_cores
def test_a_neighbour_that_has_ended_ends_the_measurement():
    with busy_neighbours() as neighbours:
        for process in children():
            os.kill(process, signal.SIGKILL)
        with pytest.raises(BenchmarkError, match=f"on core {neighbours.cores[0]} has ended"):
            neighbours.work()


@needs_two_cores
def test_neighbours_end_with_a_bench_that_is_killed():
    program = """
from benchmarks.neighbours import busy_neighbours
with busy_neighbours() as neighbours:
    neighbours.work()
    print("working", flush=True)
    input()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    bench = subprocess.Popen([sys.executable, "-c", program], text=True, **pipes)
    try:
        assert bench.stdout.readline() == "working\n"
        processes = children(bench.pid)
        assert processes
    finally:
        bench.kill()
        bench.communicate()
    wait_until(lambda: not any(alive(process) for process in processes))


def test_on_one_core_there_is_no_neighbour_and_it_is_said_at_once(monkeypatch, capsys):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3})
    monkeypatch.setattr(cases, "all_cases", lambda bundle: pytest.fail("the steps were prepared before"))
    assert cli.main(["bench", "--busy"]) == 2
    assert "--busy needs a core for the neighbour" in capsys.readouterr().err


@pytest.mark.parametrize(("listed", "others"), [("3", set()), ("1,3", {1}), ("2-4\n", {2, 4})])
def test_threads_of_one_core_are_found(tmp_path, listed, others):
    folder = tmp_path / "cpu3" / "topology"
    folder.mkdir(parents=True)
    (folder / "thread_siblings_list").write_text(listed)
    assert siblings(3, tmp_path) == others
    assert siblings(5, tmp_path) == set()


def children(parent: int | None = None) -> list[int]:
    """The neighbours that a process has."""
    process = os.getpid() if parent is None else parent
    tasks = Path(f"/proc/{process}/task")
    started = [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]
    return [
        child for child in started if b"benchmarks.neighbours" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def used_ms(processes: list[int]) -> float:
    """The processors' time that `processes` have had."""
    return sum(time.clock_gettime_ns((~process << 3) | 2) for process in processes) * 1e-6


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until(true, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"not within {seconds:g} s"
