"""A loop that keeps its time: its deadlines, its figures, and what it does where it may not come first."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator

import pytest

from hardware.arm.priority import PRIORITY
from hardware.control_loop import ControlLoop

WITHIN_S = 20.0


@pytest.fixture
def run_loop() -> Iterator[Callable[..., ControlLoop]]:
    """Starts a loop at 200 Hz; it is stopped with the test."""
    started: list[ControlLoop] = []

    def run(step: Callable[[float], None], rate_hz: float = 200.0, **options: int) -> ControlLoop:
        started.append(ControlLoop("test", rate_hz, step, **options))
        started[-1].start()
        return started[-1]

    yield run
    for loop in started:
        loop.stop()


class Steps:
    """Counts steps, and lets a test wait until there were so many."""

    def __init__(self) -> None:
        self.count = 0
        self._changed = threading.Condition()

    def __call__(self, late_s: float) -> None:
        with self._changed:
            self.count += 1
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.count >= count, WITHIN_S), f"{self.count} of {count}"


class Enough(Exception):
    pass


class Clock:
    """Time that passes only while someone sleeps or steps, for as long as the test says; in seconds."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.oversleep_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds + self.oversleep_s


def deadlines(
    clock: Clock, durations_s: list[float], oversleep_s: float = 0.0
) -> tuple[ControlLoop, list[tuple[float, float]]]:
    """(when, how late) of each step at 100 Hz, of which each takes as long as said."""
    seen: list[tuple[float, float]] = []
    over = threading.Event()
    clock.oversleep_s = oversleep_s

    def step(late_s: float) -> None:
        seen.append((clock.now_s - 100.0, late_s))
        if len(seen) > len(durations_s):
            over.set()
            raise Enough
        clock.now_s += durations_s[len(seen) - 1]

    loop = ControlLoop("test", 100.0, step)
    loop.start()
    assert over.wait(WITHIN_S), f"{len(seen)} steps of {len(durations_s) + 1}"
    loop.stop()
    return loop, seen


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("hardware.control_loop.time", clock)
    return clock


def test_late_steps_do_not_delay_the_ones_after_them(clock: Clock) -> None:
    loop, seen = deadlines(clock, durations_s=[0.002, 0.009, 0.0, 0.005] * 25, oversleep_s=0.0005)
    assert [at_s for at_s, _ in seen] == pytest.approx([0.01 * (i + 1) + 0.0005 for i in range(101)])
    assert [late_s for _, late_s in seen] == pytest.approx([0.0005] * 101)
    timing = loop.timing()
    assert timing is not None and (timing.deadlines, timing.missed) == (101, 0)
    assert (timing.p50_ms, timing.p99_ms, timing.max_ms) == pytest.approx((0.5, 0.5, 0.5))


def test_deadlines_missed_are_told_and_counted_and_not_made_up_for(clock: Clock) -> None:
    loop, seen = deadlines(clock, durations_s=[0.0, 0.0, 0.034, 0.0])
    assert [at_s for at_s, _ in seen] == pytest.approx([0.01, 0.02, 0.03, 0.064, 0.07])
    assert [late_s for _, late_s in seen] == pytest.approx([0.0, 0.0, 0.0, 0.024, 0.0])
    timing = loop.timing()
    assert timing is not None and (timing.deadlines, timing.missed) == (7, 2)
    assert (timing.p50_ms, timing.max_ms) == pytest.approx((0.0, 24.0))
    assert str(timing).startswith(
        "100 Hz, late by 0.00 ms (median), 23.04 ms (p99), 24.00 ms at most; 2 of 7"
    )


def test_figures_are_of_the_last_ten_seconds(clock: Clock) -> None:
    loop, _ = deadlines(clock, durations_s=[0.013] + [0.0] * 1001)
    timing = loop.timing()
    assert timing is not None and timing.max_ms == pytest.approx(0.0, abs=1e-6)


def test_a_step_that_raises_ends_the_loop_and_is_told(
    run_loop: Callable[..., ControlLoop], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(late_s: float) -> None:
        raise ZeroDivisionError("in the step")

    loop = run_loop(fail)
    loop.stop()
    assert not loop.running
    with pytest.raises(ZeroDivisionError, match="in the step"):
        loop.check()
    assert "in the test loop, which ends" in caplog.text


def test_a_stopped_loop_steps_no_more_and_can_be_started_again(run_loop: Callable[..., ControlLoop]) -> None:
    steps = Steps()
    loop = run_loop(steps)
    steps.wait_for(3)
    loop.stop()
    done = steps.count
    assert not loop.running
    loop.start()
    loop.start()
    steps.wait_for(done + 3)
    assert loop.running
    loop.check()


def test_it_takes_real_time_priority_and_a_core_of_its_own(
    run_loop: Callable[..., ControlLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(
        os, "sched_setscheduler", lambda _, policy, p: asked.append((policy, p.sched_priority))
    )
    core = max(os.sched_getaffinity(0))
    found: list[set[int]] = []
    done = threading.Event()

    def look(late_s: float) -> None:
        found.append(os.sched_getaffinity(0))
        done.set()

    loop = run_loop(look, core=core)
    assert done.wait(WITHIN_S)
    timing = loop.timing()
    assert asked == [(os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, PRIORITY)]
    assert found[0] == {core}
    assert timing is not None and str(timing).endswith("; real-time priority")


def test_without_permission_it_runs_and_says_once_how_to_permit_it(
    run_loop: Callable[..., ControlLoop], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    steps = Steps()
    with caplog.at_level(logging.WARNING):
        loop = run_loop(steps)
        steps.wait_for(5)
    timing = loop.timing()
    assert timing is not None and str(timing).endswith("; no real-time priority")
    assert [record.getMessage().count("/etc/security/limits.conf") for record in caplog.records] == [1]


def test_a_core_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"core 4096 is not there for the gate loop; there are \[0"):
        ControlLoop("gate", 100.0, lambda late_s: None, core=4096)


def test_a_loop_that_has_not_begun_has_no_figures() -> None:
    assert ControlLoop("gate", 100.0, lambda late_s: None).timing() is None
