"""One self-contained HTML file of a run: figures, then every episode's goal beside its video and curves.

    write_report(Path("out/demo/report.html"), "push, mode2", [Row("success", "9 of 10")], records)

Nothing in it is fetched from anywhere; it can be mailed. The page around the content is `report.html`.
"""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import cv2
import numpy as np
from numpy.typing import NDArray

from sim.report_charts import CURVES_SPAN, episode_curves, latency_histogram
from sim.report_video import PICTURE_PX, encode_mp4, enlarge
from sim.results import HOLD_S, TOLERANCE_M

PAGE = Path(__file__).with_suffix(".html")
OUTCOMES = {
    "held": f"held for {HOLD_S:g} s",
    "reached": "reached, not held",
    "missed": "missed",
}
SIGNS = {"held": "✓", "reached": "○", "missed": "✗"}


@dataclass(frozen=True)
class Row:
    """One figure of the headline table, as it is to be read; `note` says more in small print."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class EpisodeRecord:
    """What one episode's card shows.

    `goal_image` is uint8 (H, W, 3) RGB, `frames` uint8 (N, H, W, 3) at `fps` from time zero. Times are in
    seconds since the start, each array as long as its values; an energy may be NaN. `note` is free text.
    """

    seed: int
    goal_image: NDArray[np.uint8]
    frames: NDArray[np.uint8]
    fps: int
    distance_times_s: NDArray[np.float64]
    distances_m: NDArray[np.float64]
    energy_times_s: NDArray[np.float64]
    energies: NDArray[np.float64]
    success: bool
    held: bool
    latencies_ms: NDArray[np.float64]
    note: str = ""

    @property
    def outcome(self) -> str:
        """ "held", "reached" (within tolerance, but not held) or "missed"."""
        return "held" if self.held else "reached" if self.success else "missed"


def write_report(path: Path, title: str, table: Sequence[Row], episodes: Sequence[EpisodeRecord]) -> None:
    """Write the report to `path`, whole or not at all."""
    page = Template(PAGE.read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        figures="\n".join(map(_figure, table)),
        overview="\n".join(map(_link, episodes)),
        latency=_latency(episodes),
        episodes="\n".join(map(_card, episodes)),
    )
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
    return f'<a class="badge {episode.outcome}" href="#seed-{episode.seed}" title="{what}">{text}</a>'


def _latency(episodes: Sequence[EpisodeRecord]) -> str:
    latencies = np.concatenate([episode.latencies_ms for episode in episodes] or [np.zeros(0)])
    return latency_histogram(latencies) if latencies.size else "<p>No command was measured.</p>"


def _card(episode: EpisodeRecord) -> str:
    left, right = CURVES_SPAN
    duration_s = max(
        1e-3, *episode.distance_times_s, *episode.energy_times_s, len(episode.frames) / episode.fps
    )
    curves = episode_curves(episode, duration_s)
    last = f"{episode.distances_m[-1] * 100:.1f} cm" if len(episode.distances_m) else "not measured"
    inside = f"goal within {TOLERANCE_M * 100:g} cm; ended at {last} after {duration_s:.1f} s"
    note = f"<p>{html.escape(episode.note)}</p>" if episode.note else ""
    badge = f"{SIGNS[episode.outcome]} {OUTCOMES[episode.outcome]}"
    return f"""<article id="seed-{episode.seed}">
<header><h3>seed {episode.seed}</h3><span class="badge {episode.outcome}">{badge}</span>
<span class="note">{inside}</span></header>
<div class="row">
<figure><img alt="goal picture of seed {episode.seed}" src="{_png(episode.goal_image)}">
<figcaption>goal picture</figcaption></figure>
<figure>{_video(episode)}<figcaption>what the camera saw</figcaption></figure>
<figure class="curves" data-left="{left}" data-right="{right}" data-seconds="{duration_s:.3f}">
{curves}</figure>
</div>{note}
</article>"""


def _png(image: NDArray[np.uint8]) -> str:
    encoded = cv2.imencode(".png", cv2.cvtColor(enlarge(image), cv2.COLOR_RGB2BGR))[1]
    return "data:image/png;base64," + base64.b64encode(encoded.tobytes()).decode()


def _video(episode: EpisodeRecord) -> str:
    if not len(episode.frames):
        return f'<div class="nothing" style="width:{PICTURE_PX}px">no picture came</div>'
    film = base64.b64encode(encode_mp4(episode.frames, episode.fps)).decode()
    return f'<video controls loop muted playsinline src="data:video/mp4;base64,{film}"></video>'
