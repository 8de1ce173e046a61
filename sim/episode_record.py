"""What a report shows of an episode."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class EpisodeRecord:
    """What one episode's card shows.

    `goal_image` is uint8 (H, W, 3) RGB, `frames` uint8 (N, H, W, 3) at `fps` from time zero. Times are in
    seconds since the start, each array as long as its values; an energy may be NaN. `note` is free text,
    `label` the card's heading instead of the seed.
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
    label: str = ""

    @property
    def outcome(self) -> str:
        """ "held", "reached" (within tolerance, but not held) or "missed"."""
        return "held" if self.held else "reached" if self.success else "missed"

    @property
    def heading(self) -> str:
        return self.label or f"seed {self.seed}"

    @property
    def anchor(self) -> str:
        """What the card is called in links; the label's words, else the seed."""
        return "-".join(re.findall(r"[\w.]+", self.heading))
