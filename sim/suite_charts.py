"""The charts of `eval --suite full`, in the style of `sim.report_charts`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from sim.report_charts import BLUE, GREEN, INK, ORANGE, RED, STYLE, inline_svg
from sim.results import TOLERANCE_M

PURPLE = "#9b6ef3"
# Tasks in the order of the page; told apart by shape too.
LOOKS = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (RED, "D"), (PURPLE, "v"))
MOST_POINTS = 800


def success_against_plan_time(cells: Sequence[dict[str, Any]]) -> str:
    """One point per task and planner, with the interval of its held success; `cells` as in results.json."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "plan-time"}):
        figure = Figure(figsize=(6.4, 4.0))
        axes = figure.subplots()
        figure.subplots_adjust(left=0.1, right=0.975, top=0.91, bottom=0.13)
        tasks = list(dict.fromkeys(cell["task"] for cell in cells))
        for task, (colour, marker) in zip(tasks, LOOKS):
            mine = [cell for cell in cells if cell["task"] == task]
            times = [cell["plan_ms_p50"] for cell in mine]
            rates, low, high = (
                100 * np.array([cell[name] for cell in mine])
                for name in ("held_success_rate", "held_wilson_low", "held_wilson_high")
            )
            axes.errorbar(
                times, rates, (rates - low, high - rates), color=colour, marker=marker, linestyle="",
                markersize=5, elinewidth=1.2, capsize=2.5, label=task,
            )  # fmt: skip
            for cell, time, rate in zip(mine, times, rates):
                axes.annotate(
                    cell["planner"], (time, rate), (6, 0), textcoords="offset points", fontsize=8, va="center"
                )
        axes.set(
            xscale="log", xlabel="time of a plan, median [ms]", ylabel="held success [%]", ylim=(-3, 103),
            title="success against plan time",
        )  # fmt: skip
        axes.margins(x=0.18)
        _plain_decades(axes.xaxis, *axes.get_xlim())
        _legend_above(axes)
        return inline_svg(figure)


def open_loop_error(errors: Mapping[str, dict[str, Any]]) -> str:
    """Prediction error over the horizon, by task, as a share of that of "nothing changes"."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "open-loop"}):
        figure = Figure(figsize=(6.4, 4.0))
        axes = figure.subplots()
        figure.subplots_adjust(left=0.1, right=0.975, top=0.91, bottom=0.13)
        axes.axhline(100, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.text(
            0.985,
            92,
            "nothing changes",
            va="top",
            ha="right",
            fontsize=8,
            transform=axes.get_yaxis_transform(),
        )
        for (task, figures), (colour, marker) in zip(errors.items(), LOOKS):
            shares = 100 * np.array(figures["relative"])
            axes.plot(figures["horizon_s"], shares, color=colour, marker=marker, markersize=4, label=task)
        all_shares = 100 * np.concatenate([figures["relative"] for figures in errors.values()])
        axes.set(
            xlabel="imagined ahead [s]", ylabel="squared latent error [%]", title="open-loop error",
            xlim=(0, None), yscale="log", ylim=(min(1.0, *all_shares) / 1.2, max(120.0, *all_shares) * 1.2),
        )  # fmt: skip
        _plain_decades(axes.yaxis, *axes.get_ylim())
        _legend_above(axes)
        return inline_svg(figure)


def energy_against_distance(
    task: str, energies: NDArray[np.float64], distances_m: NDArray[np.float64], correlation: float | None
) -> str:
    """A scatter of at most MOST_POINTS steps, with the rank correlation of all of them in its title."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": f"energy-{task}"}):
        figure = Figure(figsize=(6.4, 3.4))
        axes = figure.subplots()
        figure.subplots_adjust(left=0.1, right=0.975, top=0.9, bottom=0.15)
        axes.axvspan(0, TOLERANCE_M * 100, color=GREEN, alpha=0.18, linewidth=0)
        shown = np.linspace(0, len(energies) - 1, min(len(energies), MOST_POINTS)).astype(int)
        axes.scatter(distances_m[shown] * 100, energies[shown], s=5, color=BLUE, alpha=0.5, linewidths=0)
        told = "no correlation" if correlation is None else f"Spearman {correlation:.2f}"
        axes.set(
            xlabel="true distance [cm]", ylabel="energy", xlim=(0, None),
            title=f"energy against true distance: {told} over {len(energies)} steps",
        )  # fmt: skip
        return inline_svg(figure)


def _legend_above(axes: Axes) -> None:
    axes.legend(
        frameon=False, fontsize=8, ncols=len(LOOKS), loc="lower right", bbox_to_anchor=(1.01, 0.985),
        handlelength=1.2, handletextpad=0.4, columnspacing=0.9,
    )  # fmt: skip


def _plain_decades(axis: Axis, low: float, high: float) -> None:
    """0.1, 1, 10 instead of powers, whose raised exponents need mathematical type."""
    decades = [10.0**i for i in range(-6, 7) if low <= 10.0**i <= high]
    axis.set_ticks(decades, labels=[f"{decade:g}" for decade in decades])
    axis.set_minor_locator(NullLocator())
