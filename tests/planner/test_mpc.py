from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from planner.errors import PlannerError
from planner.mpc import REACHED_HOLD_NS, Decision, RecedingHorizon
from planner.surprise import Caution

MS = 1_000_000
START = 5_000 * MS
STEP_MS = 200
TOOL = (0.5, 0.0, 0.1)
GOAL = (10.0, 0.0)
FAR, NEAR = (0.0, 0.0), (10.0, 0.5)


@pytest.fixture
def loop(toy_bundle: Any, scripted_planner: Any) -> RecedingHorizon:
    horizon = RecedingHorizon(toy_bundle, scripted_planner)
    horizon.begin(GOAL)
    return horizon


def stamps(rate_hz: int, seconds: float) -> list[int]:
    return [START + round(i * 1e9 / rate_hz) for i in range(round(seconds * rate_hz) + 1)]


def run(loop: RecedingHorizon, latent: Any, from_ms: int, to_ms: int) -> Decision | None:
    """Frames at 10 Hz, all with the same latent, and a decision after each; the last decision."""
    decision = None
    for ms in range(from_ms, to_ms + 1, 100):
        loop.observe(latent, TOOL, START + ms * MS)
        decision = loop.decide()
    return decision


@pytest.mark.parametrize("rate_hz", [10, 15, 30, 60])
def test_the_first_decision_waits_for_two_latents_one_model_step_apart(
    loop: RecedingHorizon, scripted_planner: Any, rate_hz: int
) -> None:
    decided = []
    for i, stamp in enumerate(stamps(rate_hz, 1.0)):
        loop.observe((i, 0.0), TOOL, stamp)
        decision = loop.decide()
        if decision is not None:
            assert decision.stamp_ns == stamp
            decided.append((i, scripted_planner.seen[-1]))
    apart = STEP_MS / 1000 * rate_hz
    assert decided[0][0] == pytest.approx(apart, abs=0.05 * rate_hz)
    assert len(decided) == rate_hz + 1 - decided[0][0], "every later frame is decided on"
    for i, observation in decided:
        assert observation.latent[0] == i
        assert observation.previous[0] == i - decided[-1][0] + decided[-1][1].previous[0] or i < apart
        assert i - observation.previous[0] == pytest.approx(apart, abs=0.05 * rate_hz)
        np.testing.assert_allclose(observation.tool, TOOL)


def test_a_lost_frame_is_bridged_at_30_hz(loop: RecedingHorizon) -> None:
    for i, stamp in enumerate(stamps(30, 1.0)):
        if i != 24:
            loop.observe(FAR, TOOL, stamp)
    assert loop.decide() is not None


def test_nothing_is_decided_across_a_gap(loop: RecedingHorizon) -> None:
    frames = [ms for ms in range(0, 1001, 100) if not 700 <= ms <= 900]
    decided = []
    for ms in frames:
        loop.observe(FAR, TOOL, START + ms * MS)
        decided.append(loop.decide() is not None)
    assert dict(zip(frames, decided))[600]
    assert not decided[-1], "0.2 s before the last frame there is none"
    assert run(loop, FAR, 1100, 1200) is not None, "and it goes on once there is one again"


def test_stale_and_repeated_frames_are_ignored(loop: RecedingHorizon, scripted_planner: Any) -> None:
    run(loop, FAR, 0, 300)
    loop.observe((99.0, 99.0), TOOL, START + 300 * MS)
    loop.observe((99.0, 99.0), TOOL, START + 250 * MS)
    loop.observe((99.0, 99.0), TOOL, START - 10 * MS)
    decision = loop.decide()
    assert decision is not None and decision.stamp_ns == START + 300 * MS
    np.testing.assert_array_equal(scripted_planner.seen[-1].latent, FAR)
    np.testing.assert_array_equal(scripted_planner.seen[-1].previous, FAR)


@pytest.mark.parametrize(
    ("latent", "tool"),
    [
        ((np.nan, 0.0), TOOL),
        ((np.inf, 0.0), TOOL),
        ((0.0, 0.0, 0.0), TOOL),
        ((), TOOL),
        (FAR, (0.5, np.nan, 0.1)),
        (FAR, (0.5, 0.0)),
    ],
)
def test_broken_latents_and_tools_are_dropped(loop: RecedingHorizon, latent: Any, tool: Any) -> None:
    run(loop, FAR, 0, 300)
    loop.observe(latent, tool, START + 400 * MS)
    decision = loop.decide()
    assert decision is not None and decision.stamp_ns == START + 300 * MS


def test_the_decision_says_what_the_planner_said(loop: RecedingHorizon, scripted_planner: Any) -> None:
    scripted_planner.action = (0.01, -0.005)
    decision = run(loop, FAR, 0, 300)
    assert decision is not None
    np.testing.assert_allclose(decision.action, (0.01, -0.005))
    assert (decision.energy, decision.candidates, decision.plan_ms) == (1.5, 3, pytest.approx(2.0))
    assert decision.steps_to_go == pytest.approx(5.0)
    assert not decision.reached


def test_an_action_beyond_the_limit_is_cut_to_it(loop: RecedingHorizon, scripted_planner: Any) -> None:
    scripted_planner.action = (0.5, -0.5)
    decision = run(loop, FAR, 0, 300)
    assert decision is not None
    np.testing.assert_allclose(decision.action, (0.02, -0.02))


def test_reached_means_held_for_a_second(loop: RecedingHorizon) -> None:
    run(loop, FAR, 0, 300)
    for ms in range(400, 400 + REACHED_HOLD_NS // MS, 100):
        decision = run(loop, NEAR, ms, ms)
        assert decision is not None and not decision.reached
    decision = run(loop, NEAR, 1400, 1400)
    assert decision is not None and decision.reached


def test_leaving_the_goal_starts_the_second_again(loop: RecedingHorizon) -> None:
    run(loop, NEAR, 0, 1000)
    run(loop, FAR, 1100, 1100)
    decision = run(loop, NEAR, 1200, 2100)
    assert decision is not None and not decision.reached
    decision = run(loop, NEAR, 2200, 2200)
    assert decision is not None and decision.reached


def test_a_new_goal_starts_the_second_again(loop: RecedingHorizon, scripted_planner: Any) -> None:
    run(loop, NEAR, 0, 1000)
    loop.begin(GOAL)
    decision = run(loop, NEAR, 1100, 2000)
    assert decision is not None and not decision.reached
    assert len(scripted_planner.goals) == 2


def test_surprise_is_unknown_until_two_steps_were_seen_and_a_number_from_then_on(
    loop: RecedingHorizon,
) -> None:
    for ms in range(0, 1001, 100):
        decision = run(loop, FAR, ms, ms)
        if decision is not None:
            assert np.isfinite(decision.surprise) == (ms >= 2 * STEP_MS), ms
            assert decision.caution is Caution.CALM
    assert decision is not None


def test_a_world_that_does_as_predicted_is_no_surprise(loop: RecedingHorizon, scripted_planner: Any) -> None:
    """The point moves by the action that was in force over each of the last two action periods."""
    place, in_force = np.zeros(2), np.zeros(2)
    for i in range(12):
        place = place + in_force / 0.02
        scripted_planner.action = (0.02 * np.cos(i), 0.02 * np.sin(i))
        loop.observe(place, TOOL, START + i * 100 * MS)
        decision = loop.decide()
        if decision is not None:
            in_force = decision.action
            assert decision.surprise == pytest.approx(0.0, abs=1e-9) or i < 4
    assert decision is not None and decision.surprise == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("jump", "surprise", "caution"),
    [
        (0.6, 1.44, Caution.CALM),
        (0.8, 2.56, Caution.SLOW),
        (1.0, 4.0, Caution.HOLD),
        (2.0, 16.0, Caution.STOP),
        (3e19, np.inf, Caution.STOP),
    ],
)
def test_a_latent_that_jumps_surprises_and_asks_for_caution(
    loop: RecedingHorizon, jump: float, surprise: float, caution: Caution
) -> None:
    decision = run(loop, (0.0, 0.0), 0, 500)
    assert decision is not None
    assert (decision.surprise, decision.caution) == (pytest.approx(0.0), Caution.CALM)
    with np.errstate(over="ignore"):
        decision = run(loop, (jump, jump), 600, 600)
    assert decision is not None and decision.caution is caution
    assert decision.surprise == pytest.approx(surprise, rel=1e-5)


def test_a_tool_that_strays_adds_up_over_three_steps(loop: RecedingHorizon) -> None:
    surprises = []
    for i in range(20):
        loop.observe(FAR, (0.5 + 0.005 * max(0, i - 8), 0.0, 0.1), START + i * 100 * MS)
        decision = loop.decide()
        surprises.append(decision.surprise if decision else 0.0)
    assert surprises[8] == pytest.approx(0.0, abs=1e-5)
    np.testing.assert_allclose(surprises[9:15], 0.5 * np.arange(1, 7), rtol=1e-3)
    np.testing.assert_allclose(surprises[15:], 3.0, rtol=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_what_the_gate_holds_back_is_no_surprise(
    loop: RecedingHorizon, toy_bundle: Any, scripted_planner: Any, share: float
) -> None:
    """The point moves by the share of the action that the gate lets through from 1 s on."""
    place, moved, told, untold = np.zeros(2), np.zeros(2), 0.0, 0.0
    deaf = RecedingHorizon(toy_bundle, scripted_planner)
    deaf.begin(GOAL)
    scripted_planner.action = (0.01, -0.02)
    for i in range(25):
        place = place + moved
        stamp = START + i * 100 * MS
        if i == 10:
            loop.permit(share, stamp)
        for horizon in (loop, deaf):
            horizon.observe(place, TOOL, stamp)
        decision, ignorant = loop.decide(), deaf.decide()
        if decision is not None and ignorant is not None:
            moved = decision.action / 0.02 * (share if i >= 10 else 1.0)
            if i > 5:
                told, untold = max(told, decision.surprise), max(untold, ignorant.surprise)
    assert told == pytest.approx(0.0, abs=1e-8)
    assert (untold > 1.0) == (share < 1.0)


def test_nothing_surprises_while_the_arm_is_stopped_nor_what_happened_then(loop: RecedingHorizon) -> None:
    run(loop, (0.0, 0.0), 0, 1000)
    loop.permit(None, START + 1000 * MS)
    for ms in range(1100, 1600, 100):
        decision = run(loop, (float(ms), 0.0), ms, ms)
        assert decision is not None and np.isnan(decision.surprise) and decision.caution is Caution.CALM
    loop.permit(1.0, START + 1550 * MS)
    surprises = [run(loop, (9.0, 9.0), ms, ms).surprise for ms in range(1600, 2300, 100)]  # type: ignore[union-attr]
    assert not np.nanmax(surprises) > 1e-9
    decision = run(loop, (20.0, 9.0), 2300, 2300)
    assert decision is not None and decision.caution is Caution.STOP


@pytest.mark.parametrize(
    ("delays_ms", "expected"),
    [
        ({}, Caution.STOP),
        ({900: 60}, Caution.STOP),
        ({900: None}, Caution.CALM),
        ({900: 115}, Caution.CALM),
        ({1200: None}, Caution.STOP),
    ],
    ids=["all at once", "a little later", "refused", "late", "still on its way"],
)
def test_a_plan_that_did_not_reach_the_arm_on_time_predicts_nothing(
    loop: RecedingHorizon, delays_ms: dict[int, int | None], expected: Caution
) -> None:
    for ms in range(0, 1300, 100):
        decision = run(loop, (9.0, 9.0) if ms == 1200 else (0.0, 0.0), ms, ms)
        if decision is not None:
            delay_ms = delays_ms.get(ms, 40)
            if delay_ms is not None:
                loop.followed(START + ms * MS, START + (ms + delay_ms) * MS)
    assert decision is not None and decision.caution is expected


def test_an_unknown_scene_surprises_however_late_plans_are(toy_bundle: Any, scripted_planner: Any) -> None:
    scales = {**toy_bundle.info.surprise.scales, "outlier": 1.0}
    surprise = dataclasses.replace(toy_bundle.info.surprise, scales=scales)
    bundle = dataclasses.replace(toy_bundle, info=dataclasses.replace(toy_bundle.info, surprise=surprise))
    loop = RecedingHorizon(bundle, scripted_planner)
    loop.begin(GOAL)
    loop.followed(START, START)
    decision = run(loop, (9.0, 9.0), 0, 1200)
    assert decision is not None and decision.surprise == pytest.approx(81.0)
    assert decision.caution is Caution.STOP


def test_what_happened_before_the_goal_is_no_surprise(loop: RecedingHorizon) -> None:
    run(loop, (0.0, 0.0), 0, 500)
    loop.observe((9.0, 9.0), TOOL, START + 600 * MS)
    loop.begin(GOAL)
    surprises = [run(loop, (9.0, 9.0), ms, ms).surprise for ms in range(700, 1400, 100)]  # type: ignore[union-attr]
    assert np.isnan(surprises[0])
    np.testing.assert_allclose(surprises[3:], 0.0, atol=1e-9)
    assert not np.nanmax(surprises) > 1e-9


def test_nothing_is_decided_without_a_goal(toy_bundle: Any, scripted_planner: Any) -> None:
    loop = RecedingHorizon(toy_bundle, scripted_planner)
    assert run(loop, FAR, 0, 500) is None
    loop.begin(GOAL)
    assert loop.decide() is not None, "the frames from before the goal count"
    loop.end()
    assert loop.decide() is None


@pytest.mark.parametrize("goal", [(1.0, 2.0, 3.0), (np.nan, 0.0), ((1.0, 2.0),)])
def test_a_goal_that_is_no_latent_of_this_bundle_is_refused(loop: RecedingHorizon, goal: Any) -> None:
    with pytest.raises(PlannerError, match="goal latent must be 2 finite numbers"):
        loop.begin(goal)
