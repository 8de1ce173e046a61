"""Frames, tool and latents here say which episode and step they are of, so that a slip by one shows."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.dataset import DatasetInfo, Episodes
from perception.jepa.windows import (
    GOALS,
    NEAR_SHARE,
    NEAR_STEPS,
    GoalPairs,
    Normaliser,
    Sample,
    Windows,
)

EPISODES, STEPS, LIMIT_M = 6, 45, 0.02
MAX_STEPS, ELSEWHERE = 20, 21
steps = st.integers(0, 10_000)
seeds = st.integers(0, 2**31)


@pytest.fixture(scope="module")
def info(make_dataset, tmp_path_factory) -> DatasetInfo:
    return make_dataset(
        tmp_path_factory.mktemp("numbered"), numbered_episodes(), episodes=EPISODES, steps=STEPS, image_size=4
    )


def numbered_episodes() -> Episodes:
    episode, at = np.meshgrid(np.arange(EPISODES), np.arange(STEPS + 1), indexing="ij")
    stamp = np.stack([episode, at, np.zeros_like(at)], 2)
    frames = np.broadcast_to(stamp[:, :, None, None], (EPISODES, STEPS + 1, 4, 4, 3)).astype(np.uint8)
    return Episodes(
        frames,
        (stamp[:, :-1, :2] * LIMIT_M).astype(np.float32),
        stamp.astype(np.float32),
        np.zeros((EPISODES, STEPS + 1, 4), np.float32),
    )


IDENTITY = Normaliser(*(np.full(3, value, np.float32) for value in (0, 1, 0, STEPS)))


windows_taken = st.lists(st.tuples(st.integers(0, EPISODES - 1), st.integers(0, 9)), min_size=1, max_size=7)


@given(windows_taken, st.integers(1, 4), st.integers(2, 10))
@settings(deadline=None, max_examples=60)
def test_frames_tool_and_actions_of_a_window_line_up(
    info: DatasetInfo, begun: list[tuple[int, int]], block: int, length: int
) -> None:
    windows, count = Windows(info, numbered_episodes(), block, length, MAX_STEPS, IDENTITY), len(begun)
    episodes, starts = np.array(begun).T
    frames, tool, actions = (part.numpy() for part in windows.take(episodes, starts))
    assert frames.shape == (count, length, 4, 4, 3) and tool.shape == (count, length, 3)
    assert actions.shape == (count, length - 1, block * 2)
    shown = frames[:, :, 0, 0].astype(int)
    np.testing.assert_array_equal(tool, shown)
    for episode, start, window, taken in zip(episodes, starts, shown, actions.reshape(count, -1, 2)):
        np.testing.assert_array_equal(window[:, 0], episode)
        np.testing.assert_array_equal(window[:, 1], start + block * np.arange(length))
        np.testing.assert_allclose(taken[:, 0], episode, atol=1e-5)
        np.testing.assert_allclose(taken[:, 1], start + np.arange(block * (length - 1)), rtol=1e-5)


def test_windows_begin_anywhere_from_the_first_step_to_the_last_that_fits(info: DatasetInfo) -> None:
    windows = Windows(info, numbered_episodes(), 2, 7, MAX_STEPS, IDENTITY)
    tool = windows.sample(0, 0, batch=4000, together=2)[1].numpy()
    assert set(tool[:, 0, 1]) == set(range(STEPS - 12 + 1))
    assert tool[:, -1, 1].max() == STEPS
    assert set(tool[:, 0, 0]) == set(range(EPISODES))


def test_windows_that_go_together_are_of_one_session_and_of_several_of_its_episodes(
    info: DatasetInfo,
) -> None:
    windows = Windows(info, numbered_episodes(), 2, 7, MAX_STEPS, IDENTITY)
    episodes = windows.sample(0, 0, batch=4000, together=4)[1].numpy()[:, 0, 0].reshape(-1, 4)
    sessions = episodes // info.session
    np.testing.assert_array_equal(sessions, sessions[:, :1].repeat(4, 1))
    assert set(sessions[:, 0]) == set(range(EPISODES // info.session))
    assert (episodes[:, 1:] != episodes[:, :-1]).all(), "neighbours are of different episodes"


@given(seeds, steps, st.integers(1, 2))
@settings(deadline=None, max_examples=60)
def test_the_goals_of_a_window_come_later_in_its_episode_as_many_steps_as_it_says(
    info: DatasetInfo, seed: int, step: int, block: int
) -> None:
    windows = Windows(info, numbered_episodes(), block, 7, MAX_STEPS, IDENTITY)
    with mock.patch("perception.jepa.windows.augment", lambda pictures, *_: pictures):
        sample = windows.sample(seed, step, 64, 4)
    shown, goals = sample.frames[:, :, 0, 0].int(), sample.goals[:, :, 0, 0].int()
    assert goals.shape == (64, GOALS, 3) and sample.steps_left.shape == (64, 7, GOALS)
    left = sample.steps_left
    assert (goals[:, None, :, 0] == shown[:, :, None, 0]).all()
    assert (goals[:, None, :, 1] == shown[:, :, None, 1] + block * left).all()
    # At least one frame that has actions after it is asked for each goal.
    asked = (left[:, :-1] >= 1) & (left[:, :-1] <= MAX_STEPS)
    assert asked.any(1).all()


def test_a_batch_depends_on_seed_and_step_alone(info: DatasetInfo) -> None:
    def sample(seed: int, step: int) -> Sample:
        return Windows(info, numbered_episodes(), 2, 7, MAX_STEPS, IDENTITY).sample(seed, step, 16, 4)

    first, again = sample(5, 17), sample(5, 17)
    assert all(a.equal(b) for a, b in zip(first, again))
    for other in (sample(5, 18), sample(6, 17)):
        assert not any(a.equal(b) for a, b in zip(first, other))


def test_a_share_of_a_batch_is_what_the_whole_has_there(info: DatasetInfo) -> None:
    windows = Windows(info, numbered_episodes(), 2, 7, MAX_STEPS, IDENTITY)
    whole = windows.sample(5, 17, 16, 4)
    share = windows.sample(5, 17, 16, 4, slice(8, 16))
    assert all(part.equal(all_of_it[8:16]) for part, all_of_it in zip(share, whole))


def pairs(info: DatasetInfo, block: int) -> GoalPairs:
    """Latents are (episode, step)."""
    episodes = numbered_episodes()
    return GoalPairs(info, episodes.tool[:, :, :2], episodes.tool, episodes.actions, block, MAX_STEPS)


@given(seeds, steps, st.integers(1, 2))
@settings(deadline=None, max_examples=60)
def test_the_proposal_learns_the_actions_that_led_to_its_goal(
    info: DatasetInfo, seed: int, step: int, block: int
) -> None:
    batch = pairs(info, block).proposal_batch(seed, step, 64)
    now, tool, goal, left, actions, following, tool_after = (part.numpy() for part in batch)
    assert left.shape == (64, 1) and actions.shape == (64, block * 2)
    assert 1 <= left.min() and left.max() <= MAX_STEPS
    np.testing.assert_array_equal(goal[:, 0], now[:, 0])
    np.testing.assert_array_equal(goal[:, 1], now[:, 1] + block * left[:, 0])
    np.testing.assert_array_equal(following, now + [0, block])
    np.testing.assert_array_equal(tool[:, :2], now)
    np.testing.assert_array_equal(tool_after[:, :2], following)
    for i, taken in enumerate(actions.reshape(64, block, 2).swapaxes(0, 1)):
        np.testing.assert_allclose(taken[:, 0], now[:, 0], atol=1e-5)
        np.testing.assert_allclose(taken[:, 1], now[:, 1] + i, rtol=1e-5)


@given(seeds, steps, st.integers(1, 2))
@settings(deadline=None, max_examples=60)
def test_the_energy_learns_how_many_steps_away_its_goal_is(
    info: DatasetInfo, seed: int, step: int, block: int
) -> None:
    now, tool, goal, label = (part.numpy() for part in pairs(info, block).energy_batch(seed, step, 256))
    np.testing.assert_array_equal(tool[:, :2], now)
    assert label.dtype == np.int64
    here = label != ELSEWHERE
    assert 0 <= label[here].min() and label[here].max() <= MAX_STEPS
    np.testing.assert_array_equal(goal[here, 0], now[here, 0])
    np.testing.assert_array_equal(goal[here, 1], now[here, 1] + block * label[here])


def test_a_fifth_of_the_energy_s_goals_are_elsewhere(info: DatasetInfo) -> None:
    now, _, goal, label = (part.numpy() for part in pairs(info, 2).energy_batch(0, 0, 20_000))
    elsewhere = label == ELSEWHERE
    assert elsewhere.mean() == pytest.approx(GoalPairs.ELSEWHERE_SHARE, abs=0.01)
    np.testing.assert_array_equal(goal[elsewhere, 0] // info.session, now[elsewhere, 0] // info.session)
    assert (goal[elsewhere, 0] != now[elsewhere, 0]).all()
    assert set(goal[elsewhere, 1]) == set(range(STEPS + 1))


def test_half_of_the_goals_are_near_and_the_rest_spread_over_all_that_the_model_sees(
    info: DatasetInfo,
) -> None:
    label = pairs(info, 2).energy_batch(0, 0, 50_000).steps_to_go.numpy()
    label = label[label != ELSEWHERE]
    shares = np.bincount(label, minlength=MAX_STEPS + 1) / len(label)
    far = (1 - NEAR_SHARE) / (MAX_STEPS + 1)
    near = far + NEAR_SHARE / (NEAR_STEPS + 1)
    np.testing.assert_allclose(shares[: NEAR_STEPS + 1], near, atol=0.006)
    np.testing.assert_allclose(shares[NEAR_STEPS + 1 :], far, atol=0.006)


@pytest.mark.parametrize("furthest", [1, 5])
def test_a_model_that_sees_less_far_than_near_has_no_goal_beyond(info: DatasetInfo, furthest: int) -> None:
    episodes = numbered_episodes()
    goals = GoalPairs(info, episodes.tool[:, :, :2], episodes.tool, episodes.actions, 2, furthest)
    left = goals.proposal_batch(0, 0, 500).steps_left.numpy()
    label = goals.energy_batch(0, 0, 500).steps_to_go.numpy()
    assert set(left.ravel()) == set(range(1, furthest + 1))
    assert set(label) == set(range(furthest + 2))


def test_the_normaliser_gives_zero_mean_and_unit_deviation_but_does_not_blow_up_a_still_axis() -> None:
    tool = (
        np.random.default_rng(0).normal([0.5, 0.0, 0.025], [0.1, 0.2, 1e-5], (20, 50, 3)).astype(np.float32)
    )
    normalised = Normaliser.fit(tool)(tool)
    assert normalised.dtype == np.float32
    np.testing.assert_allclose(normalised.mean((0, 1)), 0.0, atol=1e-3)
    np.testing.assert_allclose(normalised[..., :2].std((0, 1)), 1.0, atol=1e-3)
    assert normalised[..., 2].std() < 0.01


def test_the_normaliser_keeps_the_range_of_each_axis_and_takes_a_gripper_along() -> None:
    tool = np.random.default_rng(0).uniform([0.4, -0.2, 0.02, 0.0], [0.6, 0.2, 0.1, 0.04], (20, 50, 4))
    fitted = Normaliser.fit(tool.astype(np.float32))
    np.testing.assert_array_equal(fitted.low, tool.min((0, 1)).astype(np.float32))
    np.testing.assert_array_equal(fitted.high, tool.max((0, 1)).astype(np.float32))
    assert fitted.mean.shape == fitted.std.shape == (4,)


@pytest.mark.parametrize(("same", "moves"), [((), True), (("camera",), False)])
def test_what_a_camera_sees_that_nobody_moves_stays_where_it_is(
    info: DatasetInfo, same: tuple[str, ...], moves: bool
) -> None:
    size = 24
    frames = np.zeros((EPISODES, STEPS + 1, size, size, 3), np.uint8)
    frames[:, :, 12, 12] = 255
    info = info.model_copy(update={"same": same, "image_size": size})
    windows = Windows(info, replace(numbered_episodes(), frames=frames), 2, 7, MAX_STEPS, IDENTITY)
    seen = windows.sample(0, 0, batch=8, together=2).frames.numpy().astype(int)
    spots = np.argwhere(np.abs(seen - seen[:, :, :1, :1]).max(-1) > 0)[:, 2:]
    assert len(spots) == 8 * 7
    assert (spots != 12).any() is np.bool_(moves)
