"""How an episode failed, told from what is known of it: true distances, energies, where the object went.

    sort_failure(result, grasps=task.grasps)      # None if the goal was held

The kinds shut each other out; the first that fits counts, in the order of `Failure`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from sim.results import EpisodeResult

# Less than this is noise, of an object that was only touched and of a distance that goes nowhere.
MOVED_M = 0.01
MOVED_RAD = float(np.radians(5.0))
LIFTED_M = 0.015
# An energy goes down if it does by this share of its range in the episode.
FALLING_SHARE = 0.1
# The last part of an episode, which tells whether it was still getting anywhere.
ENDING_SHARE = 1 / 3


class Failure(str, Enum):
    """Its value is how a report names it."""

    STOPPED = "stopped by the gate"
    NOT_HELD = "reached but did not hold"
    NEVER_GRASPED = "never grasped"
    DROPPED = "dropped, or put down elsewhere"
    NEVER_MOVED = "never moved the object"
    WRONG_WAY = "moved it the wrong way"
    OUT_OF_TIME = "ran out of time while getting nearer"
    PLATEAU = "stuck at a plateau"


def sort_failure(result: EpisodeResult, *, grasps: bool = False) -> Failure | None:
    """The kind of failure, None if the goal was held. `grasps`: the object is to be carried by a gripper.

    "The object" is what the goal is about: in a task without one, the tool.
    """
    if result.held:
        return None
    if result.stopped_for:
        return Failure.STOPPED
    if result.success:
        return Failure.NOT_HELD
    places = np.array(result.achieved).reshape(-1, 4)
    if grasps:
        if not _is_lifted(places).any():
            return Failure.NEVER_GRASPED
        if not _is_lifted(places)[-1]:
            return Failure.DROPPED
    elif not _has_moved(places):
        return Failure.NEVER_MOVED
    if result.final_distance_m > result.start_distance_m + MOVED_M:
        return Failure.WRONG_WAY
    return Failure.OUT_OF_TIME if _was_getting_nearer(result) else Failure.PLATEAU


def _is_lifted(places: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(places[:, 2] > places[:1, 2] + LIFTED_M)


def _has_moved(places: NDArray[np.float64]) -> bool:
    shifts = np.linalg.norm(places[:, :3] - places[:1, :3], axis=1)
    turns = np.abs((places[:, 3] - places[:1, 3] + np.pi) % (2 * np.pi) - np.pi)
    return bool((shifts > MOVED_M).any() or (turns > MOVED_RAD).any())


def _was_getting_nearer(result: EpisodeResult) -> bool:
    """In truth, or as far as the planner could tell."""
    energies = np.array(result.energies)
    known = energies[np.isfinite(energies)]
    enough = FALLING_SHARE * float(np.ptp(known)) if known.size else 0.0
    return _fall(result.distances_m) > MOVED_M or (enough > 0.0 and _fall(known.tolist()) > enough)


def _fall(values: Sequence[float]) -> float:
    """By how much the values went down in the ending: the median of its first third less that of its last."""
    ending = np.array(values[-max(3, round(len(values) * ENDING_SHARE)) :])
    third = max(1, len(ending) // 3)
    return float(np.median(ending[:third]) - np.median(ending[-third:])) if len(ending) else 0.0
