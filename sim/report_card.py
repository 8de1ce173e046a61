"""One episode on a page: its goal beside its film and curves."""

from __future__ import annotations

import base64
import html

import cv2
import numpy as np
from numpy.typing import NDArray

from sim.episode_record import EpisodeRecord
from sim.report_charts import CURVES_SPAN, episode_curves
from sim.report_video import PICTURE_PX, encode_mp4, enlarge
from sim.results import HOLD_S, TOLERANCE_M

OUTCOMES = {
    "held": f"held for {HOLD_S:g} s",
    "reached": "reached, not held",
    "missed": "missed",
}
SIGNS = {"held": "✓", "reached": "○", "missed": "✗"}


# Most of a film is the camera's noise; at this quality it is a tenth as large as at the usual one.
COMPACT_QUALITY = 28


def episode_card(episode: EpisodeRecord, *, compact: bool = False) -> str:
    """An `<article>` that needs the page's style and film script; a `compact` one is a sixth as large."""
    left, right = CURVES_SPAN
    duration_s = max(
        1e-3, *episode.distance_times_s, *episode.energy_times_s, len(episode.frames) / episode.fps
    )
    curves = episode_curves(episode, duration_s)
    last = f"{episode.distances_m[-1] * 100:.1f} cm" if len(episode.distances_m) else "not measured"
    inside = f"goal within {TOLERANCE_M * 100:g} cm; ended at {last} after {duration_s:.1f} s"
    note = f"<p>{html.escape(episode.note)}</p>" if episode.note else ""
    goal = episode.goal_image if compact else enlarge(episode.goal_image)
    badge = f"{SIGNS[episode.outcome]} {OUTCOMES[episode.outcome]}"
    return f"""<article id="{episode.anchor}">
<header><h3>{html.escape(episode.heading)}</h3><span class="badge {episode.outcome}">{badge}</span>
<span class="note">{inside}</span></header>
<div class="row">
<figure><img alt="goal picture of seed {episode.seed}" src="{_png(goal)}">
<figcaption>goal picture</figcaption></figure>
<figure>{_video(episode, compact)}<figcaption>what the camera saw</figcaption></figure>
<figure class="curves" data-left="{left}" data-right="{right}" data-seconds="{duration_s:.3f}">
{curves}</figure>
</div>{note}
</article>"""


def _png(image: NDArray[np.uint8]) -> str:
    encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    return "data:image/png;base64," + base64.b64encode(encoded.tobytes()).decode()


def _video(episode: EpisodeRecord, compact: bool) -> str:
    if not len(episode.frames):
        return f'<div class="nothing" style="width:{PICTURE_PX}px">no picture came</div>'
    quality = {"quality": COMPACT_QUALITY} if compact else {}
    film = base64.b64encode(encode_mp4(episode.frames, episode.fps, **quality)).decode()
    return f'<video controls loop muted playsinline src="data:video/mp4;base64,{film}"></video>'
