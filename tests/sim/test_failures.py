from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.failures import Failure, sort_failure
from sim.results import EpisodeResult

START_M = 0.10
STEPS = 60


def episode(
    distances_m=None, energies=None, *, moved_m=0.05, lift_m=(0.0, 0.0), turn=0.0, **ends
) -> EpisodeResult:
    """By default an object that is shoved along, gets no nearer, under an energy that stays as it is.

    `lift_m` is its height half way through, and at the end.
    """
    shares = np.linspace(0, 1, STEPS)
    heights = np.interp(shares, [0, 0.5, 1], [0.0, *lift_m])
    places = np.stack([0.4 + moved_m * shares, 0 * shares, 0.03 + heights, turn * shares], 1)
    return EpisodeResult(
        seed=1,
        start_distance_m=START_M,
        budget_steps=STEPS,
        distances_m=list(np.full(STEPS, START_M) if distances_m is None else distances_m),
        energies=list(np.full(STEPS, 9.0) if energies is None else energies),
        achieved=places.tolist(),
        **ends,
    )  # fmt: skip


def test_a_held_goal_is_no_failure():
    assert sort_failure(episode(success=True, held=True)) is None


def test_what_the_gate_stopped_is_told_before_all_else():
    assert sort_failure(episode(success=True, stopped_for="tracking")) is Failure.STOPPED


def test_a_goal_that_was_reached_and_left_again():
    assert sort_failure(episode(success=True)) is Failure.NOT_HELD


def test_an_object_that_stayed_where_it_was():
    assert sort_failure(episode(moved_m=0.005)) is Failure.NEVER_MOVED


def test_an_object_that_only_turned_was_moved():
    assert sort_failure(episode(moved_m=0.0, turn=0.3)) is Failure.PLATEAU


def test_an_object_that_ended_further_away():
    assert sort_failure(episode(np.linspace(START_M, START_M + 0.03, STEPS))) is Failure.WRONG_WAY


def test_an_object_that_was_still_coming_nearer():
    assert sort_failure(episode(np.linspace(START_M, 0.04, STEPS))) is Failure.OUT_OF_TIME


def test_an_energy_that_was_still_falling_counts_as_getting_nearer():
    assert sort_failure(episode(energies=np.linspace(9, 3, STEPS))) is Failure.OUT_OF_TIME


def test_what_got_nearer_and_then_no_further_is_a_plateau():
    near = np.interp(np.arange(STEPS), [0, 20, STEPS], [START_M, 0.05, 0.05])
    assert sort_failure(episode(near, np.interp(near, [0, 1], [0, 90]))) is Failure.PLATEAU


@pytest.mark.parametrize(
    ("lift_m", "kind"),
    [
        ((0.0, 0.0), Failure.NEVER_GRASPED),
        ((0.05, 0.0), Failure.DROPPED),
        ((0.05, 0.05), Failure.PLATEAU),
    ],
)
def test_a_gripper_fails_in_its_own_ways(lift_m, kind):
    assert sort_failure(episode(lift_m=lift_m), grasps=True) is kind


def test_energies_that_are_not_known_are_left_out():
    energies = np.where(np.arange(STEPS) % 2, np.nan, np.linspace(9, 3, STEPS))
    assert sort_failure(episode(energies=energies)) is Failure.OUT_OF_TIME


@given(
    distances=st.lists(st.floats(0, 1), max_size=12),
    energies=st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=12),
    places=st.lists(st.lists(st.floats(-1, 1), min_size=4, max_size=4), max_size=12),
    success=st.booleans(),
    grasps=st.booleans(),
)
def test_every_episode_that_was_not_held_has_a_kind(distances, energies, places, success, grasps):
    result = EpisodeResult(0, START_M, 12, success, False, distances, places, energies)
    assert isinstance(sort_failure(result, grasps=grasps), Failure)
