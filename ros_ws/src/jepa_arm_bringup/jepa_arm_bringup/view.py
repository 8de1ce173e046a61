"""The live view of a run in the terminal: processes, safety, episode, energy, rates and latency.

    with View(graph.names, graph.phase, total=10) as view:
        client.run_episode(seed, lambda episode: view.show(episode, client.safety))
        view.finished(episode)

Where nobody watches (a pipe, CI) it prints a plain line a second instead. Drawing costs a few milliseconds,
a few times a second: the graph needs the cores.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from hardware.safety.status import Caution, SafetyState
from sim.results import TOLERANCE_M

if TYPE_CHECKING:
    from jepa_arm_interfaces.msg import SafetyStatus
    from jepa_arm_ros.episode_client import RosEpisode

DRAW_PERIOD_S = 0.25
PLAIN_PERIOD_S = 1.0
RATE_WINDOW_S = 2.0
CURVE_WIDTH = 40
BARS = "▁▂▃▄▅▆▇█"
PHASE_STYLES = {"active": "green", "ended": "bold red", "failed": "bold red"}
SAFETY_STYLES = {
    SafetyState.IDLE: "cyan",
    SafetyState.ACTIVE: "green",
    SafetyState.STOPPING: "yellow",
    SafetyState.STOPPED: "bold red",
}
SIGNS = {"held": ("✓", "green"), "reached": ("○", "yellow"), "missed": ("✗", "red")}


class View:
    """Shows the run. `tell` may come from any thread, the rest from the one that runs the episodes."""

    def __init__(
        self,
        processes: Sequence[str],
        phase: Callable[[str], str],
        total: int,
        console: Console | None = None,
    ) -> None:
        self._processes, self._phase, self._total = processes, phase, total
        self._console = console or Console()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._due = 0.0
        self._news = ""
        self._outcomes: list[str] = []
        self._episode: RosEpisode | None = None
        self._safety: SafetyStatus | None = None
        self._rates = Rates()

    @property
    def watched(self) -> bool:
        return self._console.is_terminal

    def __enter__(self) -> View:
        self._started = time.monotonic()
        if self.watched:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.watched:
            self._live.stop()

    def tell(self, line: str) -> None:
        """One line of news, such as a process that changed."""
        with self._lock:
            self._news = line
            if self.watched:
                self._draw()
            else:
                self._print(line)

    def show(self, episode: RosEpisode, safety: SafetyStatus | None) -> None:
        """The episode as it stands; drawn if it is time to."""
        with self._lock:
            self._news = ""
            if episode is not self._episode:
                self._rates = Rates()
            self._episode, self._safety = episode, safety
            now = time.monotonic()
            self._rates.add(now, (episode.frames_sent, len(episode.encode_ms), episode.commands))
            if now < self._due:
                return
            self._due = now + (DRAW_PERIOD_S if self.watched else PLAIN_PERIOD_S)
            if self.watched:
                self._draw()
            else:
                self._print(self._line(episode))

    def finished(self, episode: RosEpisode) -> None:
        """The episode is over: its outcome joins the list."""
        with self._lock:
            self._episode = episode
            self._outcomes.append(outcome(episode))
            if self.watched:
                self._draw()
            else:
                self._print(f"seed {episode.seed}: {self._outcomes[-1]}, {_cm(episode.final_distance_m)}")

    # Drawing

    def _print(self, line: str) -> None:
        elapsed_s = time.monotonic() - self._started
        self._console.print(f"[{elapsed_s:5.1f} s] {line}", markup=False, highlight=False, soft_wrap=True)

    def _line(self, episode: RosEpisode) -> str:
        state, reason = _safety_words(self._safety)
        sent, latents, commands = self._rates.hz()
        return (
            f"episode {len(self._outcomes) + 1} of {self._total}, seed {episode.seed}: "
            f"distance {_cm(episode.final_distance_m)}, energy {_newest(episode.energies)}, "
            f"safety {state}{f' ({reason})' if reason else ''}, "
            f"camera {sent:.0f} Hz, latents {latents:.0f} Hz, commands {commands:.0f} Hz, "
            f"frame→command {_quantiles(episode.frame_to_command_ms)}, plan {_quantiles(episode.plan_ms)}; "
            f"{self._score()}"
        )

    def _score(self) -> str:
        return ", ".join(f"{self._outcomes.count(name)} {name}" for name in SIGNS)

    def _draw(self) -> None:
        self._live.update(Panel(self._grid(), title="jepa-arm", title_align="left"), refresh=True)

    def _grid(self) -> RenderableType:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column()
        phases = {name: self._phase(name) or "not started" for name in self._processes}
        words = ((f"{name} {phase}", PHASE_STYLES.get(phase, "yellow")) for name, phase in phases.items())
        grid.add_row("processes", _words(words))
        state, reason = _safety_words(self._safety)
        style = SAFETY_STYLES[SafetyState(self._safety.state)] if self._safety else "dim"
        grid.add_row("safety", _words([(state, style), (reason, "red")]))
        outcomes = _words(SIGNS[name] for name in self._outcomes)
        episode = self._episode
        if episode is None:
            grid.add_row("episodes", f"{self._total} to come")
        else:
            number = min(len(self._outcomes) + 1, self._total)
            spent = f"{episode.elapsed_s:4.1f} of {episode.budget_s:.1f} s"
            grid.add_row("episode", f"{number} of {self._total}, seed {episode.seed}, {spent}")
            grid.add_row("outcomes", outcomes)
            self._add_curves(grid, episode)
        grid.add_row("", Text(self._news, style="dim"))
        return grid

    def _add_curves(self, grid: Table, episode: RosEpisode) -> None:
        distances = [value for _, value in episode.distances]
        colour = "green" if episode.final_distance_m <= TOLERANCE_M else "white"
        grid.add_row("distance", _curve(_cm(episode.final_distance_m), distances, colour))
        energies = [value for _, value in episode.energies]
        grid.add_row("energy", _curve(_newest(episode.energies), energies, "yellow"))
        sent, latents, commands = self._rates.hz()
        grid.add_row(
            "rates", f"camera {sent:4.1f} Hz   latents {latents:4.1f} Hz   commands {commands:4.1f} Hz"
        )
        grid.add_row("frame→command", _quantiles(episode.frame_to_command_ms))
        grid.add_row("plan", _quantiles(episode.plan_ms))


class Rates:
    """Counts that grow, and how fast they grew over the last two seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, tuple[int, ...]]] = deque()

    def add(self, now_s: float, counts: tuple[int, ...]) -> None:
        self._samples.append((now_s, counts))
        while now_s - self._samples[0][0] > RATE_WINDOW_S:
            self._samples.popleft()

    def hz(self) -> tuple[float, float, float]:
        """Of frames, latents and commands; zeros until there are two samples."""
        if len(self._samples) < 2:
            return 0.0, 0.0, 0.0
        (since, first), (until, last) = self._samples[0], self._samples[-1]
        sent, latents, commands = ((b - a) / max(until - since, 1e-3) for a, b in zip(first, last))
        return sent, latents, commands


def outcome(episode: RosEpisode) -> str:
    """ "held", "reached" or "missed"."""
    return "held" if episode.held else "reached" if episode.success else "missed"


def sparkline(values: Sequence[float], width: int = CURVE_WIDTH) -> str:
    """`values` as one line of bars from zero to their largest, the newest on the right; NaN is a gap."""
    array = np.asarray(values, dtype=float)
    if not array.size or not np.isfinite(array).any():
        return ""
    if array.size > width:
        array = array[np.linspace(0, array.size - 1, width).round().astype(int)]
    top = max(float(np.nanmax(array)), 1e-9)
    bars = np.nan_to_num(np.clip(array, 0, None) / top * (len(BARS) - 1)).round().astype(int)
    return "".join(BARS[bar] if np.isfinite(value) else " " for bar, value in zip(bars, array))


def _curve(value: str, values: Sequence[float], style: str) -> Text:
    return Text.assemble((f"{value:>8}  ", "bold"), (sparkline(values), style))


def _words(words: Iterable[tuple[str, str]]) -> Text:
    return Text("   ").join(Text(word, style=style) for word, style in words)


def _safety_words(safety: SafetyStatus | None) -> tuple[str, str]:
    """The gate's state, and why it stopped or holds back."""
    if safety is None:
        return "unknown", ""
    held_back = Caution(safety.caution).name.lower() if safety.caution != Caution.CALM else ""
    return SafetyState(safety.state).name, safety.reason or held_back


def _cm(distance_m: float) -> str:
    return f"{distance_m * 100:.1f} cm"


def _newest(series: Sequence[tuple[float, float]]) -> str:
    return f"{series[-1][1]:.2f}" if series else "none"


def _quantiles(milliseconds: Sequence[float]) -> str:
    if not milliseconds:
        return "none"
    median, p99 = np.percentile(milliseconds, (50, 99))
    return f"p50 {median:.0f} ms, p99 {p99:.0f} ms"
