from __future__ import annotations

from collections.abc import Callable, Iterator

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import sim.env
from sim.control import ControlLoop
from sim.results import TOLERANCE_M
from sim.scripts import MoveTo
from sim.tasks import TASKS, make_task, new_episode

NAMES = {
    "reach": "Reach",
    "push": "Push",
    "push-far": "PushFar",
    "push-pose": "PushPose",
    "pick-place": "PickPlace",
}


@pytest.fixture(scope="module")
def reach() -> Iterator[gymnasium.Env]:
    env = gymnasium.make("jepa_arm/Reach-v0", render_mode="rgb_array")
    yield env
    env.close()


def test_every_task_is_registered() -> None:
    assert NAMES.keys() == TASKS.keys()
    registered = {name for name in gymnasium.registry if name.startswith("jepa_arm/")}
    assert registered == {f"jepa_arm/{name}-v0" for name in NAMES.values()}


@pytest.mark.parametrize("task", ("reach", "push", "pick-place"))
@pytest.mark.filterwarnings("error")
def test_gymnasium_s_own_checker_passes(task: str) -> None:
    env = gymnasium.make(f"jepa_arm/{NAMES[task]}-v0", render_mode="rgb_array")
    assert env.unwrapped.task.name == task  # type: ignore[attr-defined]
    check_env(env.unwrapped)
    env.close()


def test_a_gripper_is_an_axis_of_the_action_and_part_of_the_tool() -> None:
    env = gymnasium.make("jepa_arm/PickPlace-v0")
    observation, _ = env.reset(seed=3)
    assert env.action_space.shape == (4,) and observation["tool"].shape == (4,)
    assert observation["tool"][3] == pytest.approx(0.04, abs=1e-4)
    for _ in range(6):
        observation, *_ = env.step(np.array([0, 0, 0, -1], np.float32))
    assert observation["tool"][3] < 0.02
    env.close()


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
    task, distances, over = unwrapped.task, [], False
    policy = MoveTo(unwrapped.episode.goal[:3], task.action_limit_m)
    for _ in range(unwrapped.episode.budget_steps):
        step = policy(unwrapped.loop)
        action = np.zeros(3) if step is None else step / task.action_limit_m
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
