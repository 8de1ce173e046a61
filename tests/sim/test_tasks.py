from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.robot import load_robot
from sim.conditions import NOMINAL
from sim.control import CONTROL_HZ, DECISION_S, ControlLoop
from sim.errors import SimulationError
from sim.results import HOLD_S, TOLERANCE_M
from sim.scripts import limited
from sim.tasks import TASKS, TOLERANCE_RAD, check_robot, distance_m, make_loop, make_task, new_episode

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
    steps = len(episode.demonstration)
    assert episode.budget_steps == 2 * steps + HOLD_S / DECISION_S
    assert steps <= task.max_demonstration_steps
    if not task.turns_count:
        assert steps >= episode.start_distance_m / (np.sqrt(3) * task.action_limit_m)
    assert np.abs(episode.demonstration).max() <= task.action_limit_m * (1 + 1e-9)
    assert np.abs(episode.goal_image.astype(int) - episode.start_image).max() > 50, "the goal looks different"


@pytest.mark.parametrize("name", TASKS)
def test_starts_and_goals_keep_to_the_workspace(loop_for: LoopFor, name: str) -> None:
    task, loop = make_task(name), loop_for(name, pixel_noise=0.0)
    robot = load_robot(task.robot)
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


def test_distance_is_on_the_table_for_push_and_in_space_for_reach_and_pick_place(loop_for: LoopFor) -> None:
    for name, off in (("push", 0.0), ("reach", 0.05), ("pick-place", 0.05)):
        task, loop = make_task(name), loop_for(name, pixel_noise=0.0)
        episode = new_episode(task, loop, 0)
        episode.goal[:] = task.achieved(loop) + [0.0, 0.0, 0.05, 0.0]
        assert distance_m(task, loop, episode) == pytest.approx(off, abs=1e-9)


def test_a_task_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(
        SimulationError, match="no task 'stack'; there are reach, push, push-far, push-pose, pick-place"
    ):
        make_task("stack")


def test_a_long_step_is_shortened_in_its_own_direction() -> None:
    np.testing.assert_allclose(limited(np.array([0.06, -0.03]), 0.02), [0.02, -0.01])
    np.testing.assert_array_equal(limited(np.array([0.01, -0.02]), 0.02), [0.01, -0.02])


def test_a_task_that_grasps_is_refused_to_a_robot_without_a_gripper() -> None:
    with pytest.raises(SimulationError, match="task pick-place needs a gripper, robot panda has none"):
        make_loop(make_task("pick-place"), load_robot("panda"))


@pytest.mark.parametrize("name", sorted(TASKS))
@pytest.mark.parametrize("robot", ["so101", "koch"])
def test_a_task_is_refused_to_an_arm_whose_workspace_ends_before_it(name: str, robot: str) -> None:
    small = load_robot(robot)
    with pytest.raises(SimulationError, match=rf"task {name} moves the tool over x 0\.3.*robot {robot} has"):
        make_loop(make_task(name), small)


@pytest.mark.parametrize("robot", ["panda", "xarm6", "iiwa"])
def test_the_arms_that_reach_over_a_task_are_taken(robot: str) -> None:
    for name in ("reach", "push", "push-far", "push-pose"):
        check_robot(make_task(name), load_robot(robot))


def test_an_arm_whose_demonstrations_never_end_is_told_of(
    loop_for: LoopFor,
) -> None:
    hurried = replace(make_task("reach"), max_demonstration_steps=1)
    with pytest.raises(SimulationError, match="robot panda ended none of 40 demonstrations of task reach"):
        new_episode(hurried, loop_for("reach"), 0)


# How far from the goal


lengths, angles = st.floats(-0.3, 0.3), st.floats(-np.pi, np.pi)
poses = st.tuples(lengths, lengths, lengths, angles).map(np.array)


@given(st.sampled_from(sorted(TASKS)), poses, poses)
def test_a_gap_is_zero_only_to_itself_the_same_both_ways_and_at_least_the_distance_that_counts(
    name: str, one: np.ndarray, other: np.ndarray
) -> None:
    task = make_task(name)
    gap = task.gap_m(one, other)
    assert task.gap_m(one, one) == 0.0
    assert gap == pytest.approx(task.gap_m(other, one))
    axes = 2 if name.startswith("push") else 3
    distance = np.linalg.norm((one - other)[:axes])
    assert gap >= distance if task.turns_count else gap == pytest.approx(distance)


@given(poses, st.floats(-np.pi, np.pi), st.integers(-2, 2))
def test_fifteen_degrees_count_as_three_centimetres_and_full_turns_as_nothing(
    pose: np.ndarray, turn: float, turns: int
) -> None:
    task = make_task("push-pose")
    gap = task.gap_m(pose + [0.0, 0.0, 0.0, turn + 2 * np.pi * turns], pose)
    assert gap == pytest.approx(abs(turn) / np.radians(15.0) * 0.03, abs=1e-9)
    assert (gap <= TOLERANCE_M + 1e-9) == (abs(turn) <= TOLERANCE_RAD + 1e-9)


@given(poses, angles, st.floats(0.0, 0.2))
def test_the_worse_of_place_and_turn_counts(pose: np.ndarray, turn: float, off: float) -> None:
    task = make_task("push-pose")
    gap = task.gap_m(pose + [off, 0.0, 0.0, turn], pose)
    assert gap == pytest.approx(max(off, task.gap_m(pose + [0.0, 0.0, 0.0, turn], pose)))


def test_a_turn_does_not_count_for_a_cube() -> None:
    pose = np.array([0.5, 0.0, 0.03, 1.0])
    for name in ("push", "push-far", "pick-place"):
        assert make_task(name).gap_m(pose + [0.0, 0.0, 0.0, 2.0], pose) == 0.0


@pytest.mark.parametrize("seed", SEEDS)
def test_push_far_has_goals_20_to_30_cm_away(loop_for: LoopFor, seed: int) -> None:
    episode = new_episode(make_task("push-far"), loop_for("push-far", pixel_noise=0.0), seed)
    assert 0.19 <= episode.start_distance_m <= 0.31  # the script stops within 6 mm


def test_a_cube_is_placed_only_when_it_is_let_go_and_rests(loop_for: LoopFor) -> None:
    task, loop = make_task("pick-place"), loop_for("pick-place", pixel_noise=0.0)
    episode = new_episode(task, loop, seed=5)
    there_but_held = 0
    for action in episode.demonstration:
        loop.execute(action)
        world, found = loop.world, distance_m(task, loop, episode)
        near = task.gap_m(task.achieved(loop), episode.goal) <= TOLERANCE_M
        if world.object_is_touched():
            assert found >= 2 * TOLERANCE_M
            there_but_held += near
        elif world.object_speed() > 0.03:
            assert found >= 2 * TOLERANCE_M
        elif near:
            assert found <= TOLERANCE_M
    assert there_but_held >= 3, "the cube was brought to its place in the hand"
    assert distance_m(task, loop, episode) <= TOLERANCE_M


def test_a_cube_that_moves_is_not_placed(loop_for: LoopFor) -> None:
    task, loop = make_task("pick-place"), loop_for("pick-place", pixel_noise=0.0)
    episode = new_episode(task, loop, seed=5)
    world = loop.world
    for action in episode.demonstration:
        loop.execute(action)
        if world.object_pose()[2] > 0.08:
            break
    world.set_joint_targets(world.robot.joint_names, np.append(world.joint_state().positions[:-1], 0.04))
    fell = 0
    for _ in range(60):
        world.advance(2)
        if world.object_speed() > 0.1 and not world.object_is_touched():
            fell += 1
            episode.goal[:] = task.achieved(loop)
            assert distance_m(task, loop, episode) == 2 * TOLERANCE_M
    assert fell > 3


# Latency


def setpoints(loop: ControlLoop, latency_s: float, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The joint targets (T, J) of two decisions, one each 1/120 s, under that latency, from rest."""
    loop.world.restart(0, replace(NOMINAL, latency_s=latency_s))
    loop.restart()
    loop.execute(np.zeros(3))
    sent: list[np.ndarray] = []
    take = loop.world.set_joint_targets
    with monkeypatch.context() as patch:
        patch.setattr(loop.world, "set_joint_targets", lambda names, q: (sent.append(q), take(names, q)))
        loop.execute(np.array([0.015, 0.01, 0.0]))
        loop.execute(np.array([0.0, 0.015, 0.01]))
    assert len(sent) == 2 * round(DECISION_S * CONTROL_HZ)
    return np.array(sent)


@pytest.mark.parametrize("latency_s", [1 / CONTROL_HZ, 0.02, 0.05])
def test_latency_lets_the_motion_begin_whole_ticks_later_and_is_the_same_motion(
    loop_for: LoopFor, monkeypatch: pytest.MonkeyPatch, latency_s: float
) -> None:
    loop = loop_for("reach", pixel_noise=0.0)
    prompt, late = (setpoints(loop, latency, monkeypatch) for latency in (0.0, latency_s))
    ticks = round(latency_s * CONTROL_HZ)
    np.testing.assert_allclose(late[:ticks], np.tile(loop.world.robot.home, (ticks, 1)), atol=2e-4)
    np.testing.assert_allclose(late[ticks:12], prompt[: 12 - ticks], atol=2e-4)
    moved = np.abs(prompt[11] - prompt[0]).max()
    assert moved > 0.01
    assert np.abs(late[11] - prompt[11]).max() > 0.3 * moved * ticks / 12
