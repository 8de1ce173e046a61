from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.conditions import NOMINAL
from sim.control import ControlLoop
from sim.push_to_pose import CLOSE_M, PushSketch, PushToPose
from sim.tasks import TOLERANCE_M, TOLERANCE_RAD, make_task, new_episode, place_at_random, random_push

LoopFor = Callable[..., ControlLoop]
TASK = make_task("push-pose")
SPEED_M = TASK.action_limit_m


@pytest.fixture(scope="module")
def sketch() -> PushSketch:
    assert TASK.block is not None
    return PushSketch(TASK.block, NOMINAL)


def test_what_the_sketch_shows_is_what_the_arm_does(loop_for: LoopFor, sketch: PushSketch) -> None:
    loop, rng = loop_for("push-pose", pixel_noise=0.0), np.random.default_rng(3)
    apart_m, turned_rad = [], []
    for seed in range(10):
        loop.world.restart(seed)
        place_at_random(TASK, loop, rng)
        pose, push = loop.world.object_pose()[[0, 1, 3]], random_push(TASK, loop, rng, SPEED_M)
        start = push.start(pose[:2])
        end = start + push.direction * (push.standoff_m + push.length_m)
        sketched = sketch.push(pose, start, end)[-1, 1:]
        while (action := push(loop)) is not None:
            loop.execute(action)
        done = loop.world.object_pose()[[0, 1, 3]]
        apart_m.append(np.linalg.norm(done[:2] - sketched[:2]))
        turned_rad.append(abs((done[2] - sketched[2] + np.pi) % (2 * np.pi) - np.pi))
    assert np.median(apart_m) < TOLERANCE_M / 2 and np.median(turned_rad) < TOLERANCE_RAD / 2


def test_a_sketch_tells_the_way_of_the_peg_and_where_the_block_is_along_it(sketch: PushSketch) -> None:
    pose = np.array([0.47, 0.0, 0.0])
    beside = sketch.push(pose, np.array([0.35, 0.2]), np.array([0.55, 0.2]))
    assert beside[-1, 0] == pytest.approx(0.2) and (np.diff(beside[:, 0]) > 0).all()
    np.testing.assert_allclose(beside[:, 1:], np.tile(pose, (len(beside), 1)), atol=2e-3)
    # Along the stem, through the centre: it moves on and hardly turns.
    pushed = sketch.push(pose, np.array([0.47, 0.12]), np.array([0.47, -0.05]))
    assert pushed[-1, 2] < -0.05 and abs(pushed[-1, 3]) < 0.3


def test_most_goals_are_reached_within_a_handful_of_pushes(loop_for: LoopFor, sketch: PushSketch) -> None:
    loop, rng, reached = loop_for("push-pose", pixel_noise=0.0), np.random.default_rng(1), 0
    for seed in range(10):
        episode = new_episode(TASK, loop, 7_000_000 + seed)
        script = PushToPose(TASK, episode.goal[[0, 1, 3]], SPEED_M, rng, sketch)
        for _ in range(150):
            action = script(loop)
            if action is None:
                break
            loop.execute(action)
        reached += TASK.gap_m(TASK.achieved(loop), episode.goal) < TOLERANCE_M
    assert reached >= 7


def test_where_the_block_is_already_nothing_is_pushed(loop_for: LoopFor, sketch: PushSketch) -> None:
    loop = loop_for("push-pose", pixel_noise=0.0)
    loop.world.place_object(0.47, 0.0, 1.0)
    near = np.array([0.47, CLOSE_M / 2, 1.0])
    assert PushToPose(TASK, near, SPEED_M, np.random.default_rng(0), sketch)(loop) is None


@given(st.floats(0.36, 0.60), st.floats(-0.22, 0.22), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_push_promises_less_than_the_gap_stays_in_the_workspace_and_leaves_the_block_near_its_box(
    loop_for: LoopFor, sketch: PushSketch, x: float, y: float, seed: int
) -> None:
    loop, rng = loop_for("push-pose", pixel_noise=0.0), np.random.default_rng(seed)
    loop.world.place_object(x, y, rng.uniform(-np.pi, np.pi))
    pose, goal = loop.world.object_pose()[[0, 1, 3]], np.array([0.48, 0.05, 0.5])
    script = PushToPose(TASK, goal, SPEED_M, rng, sketch)
    push = script.best_push(loop)
    if push is None:
        return
    robot, start = loop.world.robot, push.start(pose[:2])
    end = start + push.direction * (push.standoff_m + push.length_m)
    for point in (start, end):
        assert (robot.workspace_min[:2] <= point).all() and (point <= robot.workspace_max[:2]).all()
    after = sketch.push(pose, start, end)[-1, 1:]
    assert script.gaps_m(after) < script.gaps_m(pose)
    assert (np.array(TASK.object_low) - 0.05 <= after[:2]).all()
    assert (after[:2] <= np.array(TASK.object_high) + 0.05).all()
