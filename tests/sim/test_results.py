from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.results import EpisodeResult, HeldSuccess, summarise, wilson_interval

PERIOD_S = 0.1
distances = st.lists(st.sampled_from([0.0, 0.02, 0.03, 0.0301, 0.2, float("nan")]), max_size=60)


def follow(path: list[float], **settings: float) -> list[tuple[bool, bool]]:
    """(reached, held) after each distance of a path at 10 Hz."""
    success = HeldSuccess(**settings)
    seen = []
    for step, distance in enumerate(path):
        success.update(distance, (step + 1) * PERIOD_S)
        seen.append((success.reached, success.held))
    return seen


@given(distances)
@settings(deadline=None, max_examples=200)
def test_held_means_within_tolerance_for_a_second_without_a_break(path: list[float]) -> None:
    inside = [distance <= 0.03 for distance in path]
    for step, (reached, held) in enumerate(follow(path)):
        seen = inside[: step + 1]
        assert reached == any(seen)
        assert held == any(all(seen[i : i + 11]) for i in range(len(seen) - 10))


@given(distances)
@settings(deadline=None, max_examples=100)
def test_what_was_reached_or_held_stays_so_and_held_implies_reached(path: list[float]) -> None:
    states = follow(path)
    assert all(reached or not held for reached, held in states)
    for before, after in zip(states, states[1:]):
        assert after >= before or (before[0] <= after[0] and before[1] <= after[1])


@given(st.integers(1, 30), st.integers(0, 40))
def test_the_hold_time_counts_from_the_first_moment_inside(hold_steps: int, steps: int) -> None:
    states = follow([0.01] * (steps + 1), hold_s=hold_steps * PERIOD_S)
    assert states[-1][1] == (steps >= hold_steps)


def test_a_distance_that_is_not_a_number_is_outside() -> None:
    assert follow([float("nan")] * 20)[-1] == (False, False)
    assert follow([0.0] * 10 + [float("nan")] + [0.0] * 10)[-1] == (True, False)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # statsmodels.stats.proportion.proportion_confint(k, n, method="wilson") at z = 1.96
        (0, 10, 0.0, 0.277533),
        (10, 10, 0.722467, 1.0),
        (5, 10, 0.236593, 0.763407),
        (85, 100, 0.767210, 0.906943),
        (95, 100, 0.888249, 0.978455),
        (1, 1, 0.206543, 1.0),
    ],
)
def test_wilson_intervals_are_the_known_ones(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-4)


counts = st.integers(1, 500).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials)))


@given(counts)
def test_a_wilson_interval_holds_the_rate_and_lies_between_zero_and_one(count: tuple[int, int]) -> None:
    successes, trials = count
    low, high = wilson_interval(successes, trials)
    assert 0.0 <= low <= successes / trials <= high <= 1.0
    assert low < high
    assert (low == 0.0) == (successes == 0) and (high == 1.0) == (successes == trials)


@given(counts)
def test_wilson_intervals_mirror_grow_with_confidence_and_shrink_with_trials(count: tuple[int, int]) -> None:
    successes, trials = count
    low, high = wilson_interval(successes, trials)
    assert wilson_interval(trials - successes, trials) == pytest.approx((1 - high, 1 - low))
    surer = wilson_interval(successes, trials, z=3.0)
    assert surer[0] <= low and high <= surer[1]
    more = wilson_interval(4 * successes, 4 * trials)
    assert more[1] - more[0] < high - low


@given(counts.filter(lambda count: count[0] < count[1]))
def test_another_success_moves_the_wilson_interval_up(count: tuple[int, int]) -> None:
    successes, trials = count
    fewer, more = wilson_interval(successes, trials), wilson_interval(successes + 1, trials)
    assert more[0] > fewer[0] and more[1] > fewer[1]


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 5), (1, -1)])
def test_there_is_no_interval_without_trials(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match=f"no interval for {successes} successes in {trials} trials"):
        wilson_interval(successes, trials)


def test_the_summary_counts_what_happened() -> None:
    results = [
        EpisodeResult(0, 0.1, 50, True, True, [0.09, 0.01], plan_ms=[10.0, 20.0]),
        EpisodeResult(1, 0.1, 50, True, False, [0.02, 0.04], plan_ms=[30.0, 40.0]),
        EpisodeResult(2, 0.1, 50, False, False, [0.08], plan_ms=[50.0]),
        EpisodeResult(3, 0.1, 50),
    ]
    summary = summarise(results)
    assert summary["episodes"] == 4
    assert (summary["success_rate"], summary["held_success_rate"]) == (0.5, 0.25)
    assert (summary["wilson_low"], summary["wilson_high"]) == wilson_interval(2, 4)
    assert (summary["held_wilson_low"], summary["held_wilson_high"]) == wilson_interval(1, 4)
    assert [summary[f"final_within_{cm}cm"] for cm in (2, 3, 5)] == [0.25, 0.25, 0.5]
    assert summary["distance_cm_median"] == pytest.approx(6.0)
    assert (summary["plan_ms_p50"], summary["plan_ms_p99"]) == (30.0, pytest.approx(49.6))


def test_an_episode_without_steps_ends_where_it_started() -> None:
    assert EpisodeResult(0, 0.12, 50).final_distance_m == 0.12
    assert np.isfinite(list(summarise([EpisodeResult(0, 0.12, 50)]).values())).all()


def test_the_summary_tells_stops_by_surprise_from_others() -> None:
    reasons = ("surprise", "", "tracking", "")
    results = [EpisodeResult(0, 0.12, 50, stopped_for=reason) for reason in reasons]
    assert summarise(results)["stopped_by_surprise"] == 0.25
