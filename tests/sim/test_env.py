from __future__ import annotations

from collections.abc import Callable, Iterator

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import sim.env
from sim.control import ControlLoop
from sim.results import TOLERANCE_M
from sim.tasks import ACTION_LIMIT_M, MoveTo, make_task, new_episode

NAMES = ("Reach", "Push")


@pytest.fixture(scope="module")
def reach() -> Iterator[gymnasium.Env]:
    env = gymnasium.make("jepa_arm/Reach-v0", render_mode="rgb_array")
    yield env
    env.close()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("error")
def test_gymnasium_s_own_checker_passes(name: str) -> None:
    env = gymnasium.make(f"jepa_arm/{name}-v0", render_mode="rgb_array")
    check_env(env.unwrapped)


def test_an_environment_s_episode_is_the_task_s(
    reach: gymnasium.Env, loop_for: Callable[..., ControlLoop]
) -> None:
    observation, info = reach.reset(seed=7)
    episode = new_episode(make_task("reach"), loop_for("reach"), 7)
    np.testing.assert_array_equal(observation["goal_image"], episode.goal_image)
    assert info["distance_m"] == pytest.approx(episode.start_distance_m)
    assert not info["success"] and not info["held"]


def test_reaching_the_goal_and_holding_it_ends_the_episode(reach: gymnasium.Env) -> None:
    reach.reset(seed=8)
    unwrapped = reach.unwrapped
    assert isinstance(unwrapped, sim.env.GoalPictureEnv)
    policy, distances, over = MoveTo(unwrapped.episode.goal), [], False
    for _ in range(unwrapped.episode.budget_steps):
        step = policy(unwrapped.loop)
        action = np.zeros(3) if step is None else step / ACTION_LIMIT_M
        _, reward, over, truncated, info = reach.step(action.astype(np.float32))
        assert reward == -info["distance_m"]
        distances.append(info["distance_m"])
        if over or truncated:
            break
    assert over and info["held"] and info["success"]
    assert max(distances[-11:]) <= TOLERANCE_M


def test_using_up_the_budget_truncates_the_episode(reach: gymnasium.Env) -> None:
    reach.reset(seed=9)
    budget, steps, over, truncated = reach.unwrapped.episode.budget_steps, 0, False, False  # type: ignore[attr-defined]
    while not (over or truncated):
        _, _, over, truncated, info = reach.step(np.zeros(3, np.float32))
        steps += 1
    assert truncated and not over and steps == budget
    assert not info["success"]


def test_actions_beyond_the_space_are_cut_to_it(reach: gymnasium.Env) -> None:
    ends = []
    for scale in (1.0, 40.0):
        reach.reset(seed=10)
        for _ in range(3):
            observation, *_ = reach.step(np.full(3, scale, np.float32))
        ends.append(observation["tool"])
    np.testing.assert_array_equal(ends[0], ends[1])


def test_stepping_before_the_first_reset_is_refused() -> None:
    env = sim.env.GoalPictureEnv("reach")
    try:
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(np.zeros(3, np.float32))
    finally:
        env.close()
        env.close()
