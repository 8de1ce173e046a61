"""The live view, on episodes that no graph runs."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import pytest
from jepa_arm_bringup import view as view_module
from jepa_arm_bringup.view import View, sparkline
from jepa_arm_ros.episode_client import RosEpisode
from rich.console import Console

NAMES = ("sim", "encoder", "planner", "gate")


@dataclass
class Safety:
    state: int = 1
    reason: str = ""
    caution: int = 0


@pytest.fixture
def clock(monkeypatch):
    """Time for the view: `clock.now` in seconds."""

    class Clock:
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(view_module, "time", clock)
    return clock


def make_view(terminal: bool, phase: str = "active") -> tuple[View, io.StringIO]:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=100)
    return View(NAMES, lambda name: phase, total=3, console=console), output


def an_episode() -> RosEpisode:
    """An episode that has just begun."""
    picture = np.zeros((4, 4, 3), np.uint8)
    return RosEpisode(seed=42, goal_image=picture, start_image=picture, start_distance_m=0.1, budget_s=8.0)


def grow(episode: RosEpisode, seconds: float) -> RosEpisode:
    """The episode `seconds` after its start: 30 frames, 29 latents and 15 commands a second."""
    episode.elapsed_s = seconds
    episode.distances = [(0.0, 0.1), (seconds, 0.047)]
    episode.energies = [(0.0, 25.0), (seconds, 12.25)]
    episode.frame_to_command_ms, episode.plan_ms = [31.0, 35.0], [21.0, 23.0]
    episode.encode_ms = [1.0] * round(29 * seconds)
    episode.frames_sent, episode.commands = round(30 * seconds), round(15 * seconds)
    return episode


def test_where_nobody_watches_it_prints_one_plain_line_a_second(clock):
    view, output = make_view(terminal=False)
    episode = an_episode()
    with view:
        for tenth in range(31):
            clock.now = 100.0 + tenth / 10
            view.show(grow(episode, tenth / 10), Safety())
    lines = output.getvalue().splitlines()
    assert len(lines) == 4  # at 0, 1, 2 and 3 s
    assert "\x1b" not in output.getvalue()
    for words in (
        "[  3.0 s] episode 1 of 3, seed 42: distance 4.7 cm, energy 12.25, safety ACTIVE,",
        "camera 30 Hz, latents 29 Hz, commands 15 Hz",
        "frame→command p50 33 ms, p99 35 ms, plan p50 22 ms, p99 23 ms; 0 held, 0 reached, 0 missed",
    ):
        assert words in lines[-1]


def test_the_rates_are_those_of_the_last_two_seconds(clock):
    view, output = make_view(terminal=False)
    episode = an_episode()
    with view:
        for tenth in range(61):
            clock.now = 100.0 + tenth / 10
            view.show(grow(episode, min(tenth / 10, 3.0)), Safety())  # after 3 s nothing comes any more
    assert "camera 0 Hz, latents 0 Hz, commands 0 Hz" in output.getvalue().splitlines()[-1]


def test_news_and_outcomes_are_printed_as_they_come(clock):
    view, output = make_view(terminal=False)
    with view:
        view.tell("encoder: active")
        for held, success in ((True, True), (False, True), (False, False)):
            episode = grow(an_episode(), 1.0)
            episode.held, episode.success = held, success
            view.finished(episode)
        view.show(an_episode(), Safety(3, "command_stale"))
    lines = output.getvalue().splitlines()
    assert lines[0].endswith("encoder: active")
    assert [line.split("seed 42: ")[1] for line in lines[1:4]] == [
        "held, 4.7 cm",
        "reached, 4.7 cm",
        "missed, 4.7 cm",
    ]
    assert "safety STOPPED (command_stale)" in lines[4] and "1 held, 1 reached, 1 missed" in lines[4]


def test_in_a_terminal_it_draws_at_most_four_times_a_second_and_tidies_up(clock, monkeypatch):
    view, output = make_view(terminal=True)
    drawn: list[float] = []
    draw = view._draw
    monkeypatch.setattr(view, "_draw", lambda: (drawn.append(clock.now), draw()))
    episode = an_episode()
    with view:
        for tenth in range(21):
            clock.now = 100.0 + tenth / 10
            view.show(grow(episode, tenth / 10), Safety())
    assert 5 <= len(drawn) <= 9
    shown = output.getvalue()
    for words in (
        "sim active",
        "ACTIVE",
        "1 of 3, seed 42",
        "4.7 cm",
        "12.25",
        "p50 33 ms, p99 35 ms",
        "30.0 Hz",
    ):
        assert words in shown
    assert shown.rindex("\x1b[?25h") > shown.index("\x1b[?25l"), "the cursor stays hidden"


@pytest.mark.parametrize(("phase", "shown"), [("", "gate not started"), ("ended", "gate ended")])
def test_a_process_that_is_not_active_is_named_with_what_it_is(clock, phase, shown):
    view, output = make_view(terminal=True, phase=phase)
    with view:
        view.tell("")
    assert shown in output.getvalue()


def test_a_sparkline_rises_with_its_values_and_leaves_gaps_where_there_are_none():
    assert sparkline([0.0, 1.0, 2.0, np.nan, 7.0]) == "▁▂▃ █"
    assert len(sparkline(list(range(1000)), width=40)) == 40
    assert sparkline([]) == sparkline([np.nan]) == ""
    assert sparkline([0.0, 0.0]) == "▁▁"
