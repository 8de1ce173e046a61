"""Play of every task that bundles are trained for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sim.play
from sim.control import ControlLoop
from sim.play import Play
from sim.scripts import PushAlong
from sim.tasks import TRAINED, make_task, place_at_random, random_push

LoopFor = Callable[..., ControlLoop]


def play(loop: ControlLoop, name: str, seed: int, steps: int) -> np.ndarray:
    """The actions (T, A) of an episode of play."""
    task, rng = make_task(name), np.random.default_rng(seed)
    loop.world.restart(seed)
    place_at_random(task, loop, rng)
    player, actions = Play(task, rng), []
    for _ in range(steps):
        actions.append(player(loop))
        loop.execute(actions[-1])
    return np.array(actions)


@pytest.mark.parametrize("name", TRAINED)
def test_play_keeps_to_the_action_limit_and_its_gripper_is_open_or_closed(
    loop_for: LoopFor, name: str
) -> None:
    task, loop = make_task(name), loop_for(name, pixel_noise=0.0)
    actions = np.concatenate([play(loop, name, seed, 40) for seed in (0, 1)])
    assert actions.shape == (80, task.action_dim) and np.isfinite(actions).all()
    assert np.abs(actions).max() <= task.action_limit_m * (1 + 1e-9)
    motion = actions[:, : task.action_dim - task.grasps]
    assert (np.abs(motion).max(0) > 0.5 * task.action_limit_m).all(), "every axis is used"
    if task.grasps:
        np.testing.assert_allclose(np.abs(actions[:, -1]), task.action_limit_m)
        assert len(set(np.sign(actions[:, -1]))) == 2, "it opens and closes"


@pytest.mark.parametrize("name", [name for name in TRAINED if make_task(name).block is not None])
def test_play_moves_the_block(loop_for: LoopFor, name: str) -> None:
    loop = loop_for(name, pixel_noise=0.0)
    moved = []
    for seed in (0, 1):
        play(loop, name, seed, 0)
        start = loop.world.object_pose()
        play(loop, name, seed, 50)
        moved.append(np.linalg.norm(loop.world.object_pose()[:2] - start[:2]))
    assert max(moved) > 0.03


@given(st.floats(0.40, 0.55), st.floats(-0.16, 0.16), st.integers(0, 2**31))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_random_push_begins_where_the_tool_can_go_and_does_not_lead_the_block_away(
    loop_for: LoopFor, x: float, y: float, seed: int
) -> None:
    task, loop = make_task("push-pose"), loop_for("push-pose", pixel_noise=0.0)
    loop.world.place_object(x, y, 0.0)
    push = random_push(task, loop, np.random.default_rng(seed), 0.02)
    assert isinstance(push, PushAlong)
    robot, block = loop.world.robot, np.array([x, y])
    start = push.start(block)
    assert np.all(start >= robot.workspace_min[:2]) and np.all(start <= robot.workspace_max[:2])
    end = block + push.direction * push.length_m
    outside = np.maximum(np.maximum(np.subtract(task.object_low, end), end - task.object_high), 0.0)
    middle = (np.array(task.object_low) + task.object_high) / 2
    assert not outside.any() or np.linalg.norm(end - middle) < np.linalg.norm(block - middle)


@pytest.mark.parametrize("name", ["reach", "pick-place"])
def test_pauses_are_still_and_keep_the_grip(
    loop_for: LoopFor, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Waypoints and a pause after each: then what does not move the tool is a pause."""
    monkeypatch.setattr(sim.play, "BLOCK_SHARE", 0.0)
    monkeypatch.setattr(sim.play, "PAUSE_SHARE", 1.0)
    task = make_task(name)
    actions = np.concatenate([play(loop_for(name, pixel_noise=0.0), name, seed, 60) for seed in (0, 1, 2)])
    still = ~actions[:, : task.action_dim - task.grasps].any(1)
    assert 10 < still.sum() < len(actions) - 10
    if task.grasps:
        grips, begins = actions[:, -1], np.arange(len(actions)) % 60 == 0
        assert len(set(grips[still])) == 2, "the hand pauses open and closed"
        kept = grips == np.roll(grips, 1)
        assert kept[still & ~begins].all()


def test_play_follows_its_generator(loop_for: LoopFor) -> None:
    loop = loop_for("reach", pixel_noise=0.0)
    first, again, other = (play(loop, "reach", seed, 12) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
