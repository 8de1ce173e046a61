"""How far the world is from what the model expects, at run time, and which caution that asks for.

monitor = SurpriseMonitor(bundle, world_model)
surprise, caution = monitor.judge(latents, tools, actions)     # the last model steps, oldest first
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from perception.surprise import LONGEST, SCORES, SHORTEST, Experience, surprise
from planner.bundle import Bundle, Surprise
from planner.contract import Array
from planner.world_model import WorldModel

__all__ = ["LONGEST", "SHORTEST", "Caution", "SurpriseMonitor"]


PREDICTING = [SCORES.index("latent"), SCORES.index("tool")]


class Caution(IntEnum):
    """What the surprise asks of whoever moves the arm; the same numbers as the safety gate's levels."""

    CALM = 0
    SLOW = 1
    HOLD = 2
    STOP = 3


class SurpriseMonitor:
    """Judges the last model steps by the calibration in a bundle. Without one, nothing surprises."""

    def __init__(self, bundle: Bundle, world_model: WorldModel) -> None:
        calibration: Surprise | None = bundle.info.surprise
        self._calibrated = calibration is not None
        if calibration is None:
            return
        self._world_model = world_model
        # The last step along with the first of the open loop, then one at a time.
        world_model.prepare(predict=[1, 2])
        self._yardstick = bundle.yardstick()
        self._scales = np.array([calibration.scales[score] for score in SCORES], np.float32)
        self._levels = (calibration.slow, calibration.hold, calibration.stop)

    def judge(self, latents: Array, tools: Array, actions: Array | None) -> tuple[float, Caution]:
        """Surprise, in units of what one held-out episode of ten reaches, and the caution it asks for.

        `latents` (L, D) and `tools` (L, P) metres of SHORTEST to LONGEST model steps, now last; `actions`
        (L−1, block·A) in −1…1 between them, as they reached the arm; None where that is not known, and then
        no score counts that predicts. A surprise that is not finite asks for a stop. NaN and no caution from
        a bundle without a calibration.
        """
        if not self._calibrated:
            return float("nan"), Caution.CALM
        told = actions if actions is not None else np.zeros((len(latents) - 1, self._world_model.block_dim))
        experience = Experience(
            latents[None], self._world_model.normalise(tools)[None], told[None].astype(np.float32)
        )
        scores = self._yardstick.scores(experience, self._world_model.predict)
        if actions is None:
            scores[:, PREDICTING] = 0.0
        found = float(surprise(scores, self._scales)[0])
        if not np.isfinite(found):
            return found, Caution.STOP
        return found, Caution(sum(found > level for level in self._levels))
