"""The report's charts as inline SVG whose lines and words take the page's own colour, light or dark."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sim.episode_record import EpisodeRecord
from sim.results import TOLERANCE_M

# Drawn in this colour, written as `currentColor`: it appears nowhere else in a chart.
INK = "#010203"
# Readable on white and on black.
BLUE, ORANGE, GREEN, RED = "#3b82f6", "#e8890c", "#22a559", "#e5484d"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # words stay words, in the page's font
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.8,
}
# Where the time axes of `episode_curves` begin and end, in shares of the chart's width.
CURVES_SPAN = (0.115, 0.975)


def episode_curves(episode: EpisodeRecord, duration_s: float) -> str:
    """Distance to the goal and the plan's energy over time, one above the other."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": f"curves-{episode.anchor}"}):
        figure = Figure(figsize=(5.6, 4.4))
        distance, energy = figure.subplots(2, 1, sharex=True)
        figure.subplots_adjust(left=CURVES_SPAN[0], right=CURVES_SPAN[1], top=0.94, bottom=0.11, hspace=0.28)
        distance.axhspan(0, TOLERANCE_M * 100, color=GREEN, alpha=0.18, linewidth=0)
        distance.plot(episode.distance_times_s, episode.distances_m * 100, color=BLUE)
        highest = max([TOLERANCE_M * 100, *episode.distances_m * 100])
        distance.set(
            title="distance to the goal", ylabel="cm", xlim=(0, duration_s), ylim=(0, highest * 1.08)
        )
        energy.plot(episode.energy_times_s, episode.energies, color=ORANGE)
        energy.set(title="energy of the plan", ylabel="energy", xlabel="time since the start [s]")
        finite = episode.energies[np.isfinite(episode.energies)]
        energy.set_ylim(min(0.0, *finite, 0.0), max(1e-3, *finite, 0.0) * 1.08)
        figure.align_ylabels([distance, energy])
        return inline_svg(figure)


def latency_histogram(latencies_ms: NDArray[np.float64]) -> str:
    """How long commands took from the picture that they were decided from; p50 and p99 are marked."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "latency"}):
        figure = Figure(figsize=(7.2, 3.2))
        axes = figure.subplots()
        figure.subplots_adjust(left=0.085, right=0.985, top=0.84, bottom=0.16)
        median, p99 = np.percentile(latencies_ms, (50, 99))
        longest = float(latencies_ms.max())
        end = max(longest, 1.0) * 1.02
        axes.hist(latencies_ms, bins=np.linspace(0, end, 61).tolist(), color=BLUE, alpha=0.85)
        _mark(axes, median, f"p50 {median:.1f} ms", GREEN, "right")
        _mark(axes, p99, f"p99 {p99:.1f} ms", RED, "left" if p99 < 0.8 * end else "right")
        axes.set(xlim=(0, end), xlabel="frame → command [ms]", ylabel="commands")
        axes.set_title(f"{len(latencies_ms)} commands, the slowest took {longest:.1f} ms", pad=18)
        return inline_svg(figure)


def _mark(axes: Axes, x: float, text: str, colour: str, side: str) -> None:
    axes.axvline(x, color=colour, linewidth=1.4)
    top = axes.get_xaxis_transform()
    axes.text(
        x, 1.02, text, color=colour, transform=top, horizontalalignment=side, verticalalignment="bottom"
    )


def inline_svg(figure: Figure) -> str:
    """The figure as an SVG element that can share a page with others: as wide as its place, no global ids."""
    written = io.StringIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :].strip().replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"font: (\S+) [^;\"]*", r"font-size: \1", svg)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", svg))
    return re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", svg)
