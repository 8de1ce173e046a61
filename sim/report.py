"""One self-contained HTML file of a run: figures, then every episode's goal beside its video and curves.

    write_report(Path("out/demo/report.html"), "push, mode2", [Row("success", "9 of 10")], records)

Nothing in it is fetched from anywhere; it can be mailed. The page around the content is `report.html`.
"""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np

from sim.episode_record import EpisodeRecord
from sim.report_card import OUTCOMES, SIGNS, episode_card
from sim.report_charts import latency_histogram

__all__ = ["EpisodeRecord", "Row", "write_report"]

PAGE = Path(__file__).with_suffix(".html")
# What every page shares.
STYLE, FILMS = (PAGE.with_name(f"report_{name}.html") for name in ("style", "films"))


@dataclass(frozen=True)
class Row:
    """One figure of the headline table, as it is to be read; `note` says more in small print."""

    name: str
    value: str
    note: str = ""


def write_report(path: Path, title: str, table: Sequence[Row], episodes: Sequence[EpisodeRecord]) -> None:
    """Write the report to `path`, whole or not at all."""
    write_page(
        path,
        PAGE,
        title=html.escape(title),
        figures="\n".join(map(_figure, table)),
        overview="\n".join(map(_link, episodes)),
        latency=_latency(episodes),
        episodes="\n".join(map(episode_card, episodes)),
    )


def write_page(path: Path, template: Path, **parts: str) -> None:
    """Fill `template` with HTML and write it to `path`, whole or not at all."""
    shared = {"style": STYLE.read_text(encoding="utf-8"), "films": FILMS.read_text(encoding="utf-8")}
    page = Template(template.read_text(encoding="utf-8")).substitute(shared, **parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(page, encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _figure(row: Row) -> str:
    name, value, note = map(html.escape, (row.name, row.value, row.note))
    more = f'<span class="note">{note}</span>' if note else ""
    return f'<tr><th scope="row">{name}</th><td>{value}{more}</td></tr>'


def _link(episode: EpisodeRecord) -> str:
    text = f"{SIGNS[episode.outcome]} {episode.seed}"
    what = f"seed {episode.seed}: {OUTCOMES[episode.outcome]}"
    return f'<a class="badge {episode.outcome}" href="#{episode.anchor}" title="{what}">{text}</a>'


def _latency(episodes: Sequence[EpisodeRecord]) -> str:
    latencies = np.concatenate([episode.latencies_ms for episode in episodes] or [np.zeros(0)])
    return latency_histogram(latencies) if latencies.size else "<p>No command was measured.</p>"
