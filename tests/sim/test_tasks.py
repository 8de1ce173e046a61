from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hardware.robot import load_robot
from sim.control import DECISION_S, ControlLoop
from sim.errors import SimulationError
from sim.results import HOLD_S, TOLERANCE_M
from sim.tasks import ACTION_LIMIT_M, TASKS, distance_m, limited, make_task, new_episode

LoopFor = Callable[..., ControlLoop]
SEEDS = (0, 1, 2)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("seed", SEEDS)
def test_an_episode_starts_at_the_start_picture_it_shows_and_stays_there(
    loop_for: LoopFor, name: str, seed: int
) -> None:
    task, loop = make_task(name), loop_for(name, pixel_noise=0.0)
    episode, world = new_episode(task, loop, seed), loop.world
    np.testing.assert_array_equal(world.render(), episode.start_image)
    tool, achieved = world.tool_position(), task.achieved(loop)
    assert np.abs(world.joint_state().velocities).max() < 1e-6
    world.advance(120)  # half a second with nobody in command
    np.testing.assert_allclose(world.tool_position(), tool, atol=5e-4)
    np.testing.assert_allclose(task.achieved(loop), achieved, atol=5e-4)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_goal_is_far_enough_away_and_the_budget_is_twice_the_demonstration_and_the_hold(
    loop_for: LoopFor, name: str, seed: int
) -> None:
    task, loop = make_task(name), loop_for(name, pixel_noise=0.0)
    episode = new_episode(task, loop, seed)
    assert episode.seed == seed
    assert episode.start_distance_m >= 2 * TOLERANCE_M
    assert distance_m(task, loop, episode) == pytest.approx(episode.start_distance_m, abs=1e-4)
    assert episode.budget_steps == 2 * episode.demonstration_steps + HOLD_S / DECISION_S
    shortest = episode.start_distance_m / (np.sqrt(task.action_dim) * ACTION_LIMIT_M)
    assert shortest <= episode.demonstration_steps <= 60
    assert np.abs(episode.goal_image.astype(int) - episode.start_image).max() > 50, "the goal looks different"


@pytest.mark.parametrize("name", TASKS)
def test_starts_and_goals_keep_to_the_workspace(loop_for: LoopFor, name: str) -> None:
    task, loop = make_task(name), loop_for(name, pixel_noise=0.0)
    robot = load_robot("panda")
    for seed in SEEDS:
        episode = new_episode(task, loop, seed)
        tool = loop.world.tool_position()
        assert np.all(tool > robot.workspace_min) and np.all(tool < robot.workspace_max)
        assert np.all(tool >= np.subtract(task.tool_low, 2e-3)) and np.all(
            tool <= np.add(task.tool_high, 2e-3)
        )
        assert np.all(np.abs(episode.goal[:2] - [0.47, 0.0]) < 0.3)


def test_seeds_make_different_episodes(loop_for: LoopFor) -> None:
    goals = [new_episode(make_task("reach"), loop_for("reach", pixel_noise=0.0), seed).goal for seed in SEEDS]
    assert len({goal.tobytes() for goal in goals}) == len(SEEDS)


def test_distance_is_on_the_table_for_push_and_in_space_for_reach(loop_for: LoopFor) -> None:
    for name, off in (("push", 0.0), ("reach", 0.05)):
        task, loop = make_task(name), loop_for(name, pixel_noise=0.0)
        episode = new_episode(task, loop, 0)
        episode.goal[:] = task.achieved(loop) + [0.0, 0.0, 0.05]
        assert distance_m(task, loop, episode) == pytest.approx(off, abs=1e-9)


def test_a_task_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(SimulationError, match="no task 'stack'; there are reach, push"):
        make_task("stack")


def test_a_long_step_is_shortened_in_its_own_direction() -> None:
    np.testing.assert_allclose(limited(np.array([0.06, -0.03]), 0.02), [0.02, -0.01])
    np.testing.assert_array_equal(limited(np.array([0.01, -0.02]), 0.02), [0.01, -0.02])
