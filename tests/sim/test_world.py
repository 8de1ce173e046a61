from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hardware.robot import load_robot
from sim.control import ControlLoop
from sim.errors import SimulationError
from sim.tasks import make_loop, make_task, new_episode
from sim.world import World

LoopFor = Callable[..., ControlLoop]
TASKS = ("reach", "push")


@pytest.fixture
def world(loop_for: LoopFor) -> World:
    """A restarted world with a cube, the arm at home."""
    world = loop_for("push").world
    world.restart(seed=0)
    return world


def record(loop: ControlLoop, task_name: str, seed: int, steps: int = 6) -> list[bytes]:
    """An episode's pictures and the first steps of a fixed motion, as bytes."""
    task = make_task(task_name)
    episode = new_episode(task, loop, seed)
    seen = [episode.goal_image.tobytes(), episode.start_image.tobytes(), episode.goal.tobytes()]
    for step in range(steps):
        loop.execute(0.015 * np.array([np.cos(step), np.sin(step), 0.3])[: task.action_dim])
        state = loop.world.joint_state()
        seen += [loop.world.render().tobytes(), state.positions.tobytes(), state.velocities.tobytes()]
    return seen


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_gives_the_same_bytes_whatever_was_run_before(loop_for: LoopFor, task: str) -> None:
    loop = loop_for(task)
    first = record(loop, task, seed=11)
    other = record(loop, task, seed=12)
    assert record(loop, task, seed=11) == first
    assert not set(first) & set(other)


def test_another_world_gives_the_same_bytes_too(loop_for: LoopFor) -> None:
    fresh = make_loop(make_task("push"), load_robot("panda"))
    try:
        assert record(fresh, "push", seed=11, steps=3) == record(loop_for("push"), "push", seed=11, steps=3)
    finally:
        fresh.world.close()


def test_a_picture_is_what_the_robot_s_camera_gives(world: World) -> None:
    picture, camera = world.render(), world.robot.camera
    assert picture.shape == (camera.height, camera.width, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 20, "there is something to see"


def test_camera_noise_is_as_strong_as_asked_and_follows_the_seed(world: World, loop_for: LoopFor) -> None:
    quiet = loop_for("push", pixel_noise=0.0).world
    quiet.restart(seed=0)
    clean = quiet.render()
    np.testing.assert_array_equal(quiet.render(), clean)
    difference = world.render().astype(int) - clean
    assert difference.std() == pytest.approx(2.0, abs=0.2)
    assert abs(difference.mean()) < 0.1
    pictures = []
    for seed in (0, 0, 1):
        world.restart(seed)
        pictures.append(world.render())
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_the_picture_shows_the_cube_where_it_is(loop_for: LoopFor) -> None:
    world = loop_for("push", pixel_noise=0.0).world
    world.restart(seed=0)

    def column_of_the_cube(y: float) -> float:
        world.place_object(0.40, y, 0.0)
        red, green, _ = np.moveaxis(world.render().astype(int), 2, 0)
        return float(np.nonzero(red - green > 60)[1].mean())

    left, middle, right = (column_of_the_cube(y) for y in (-0.15, 0.0, 0.15))
    assert abs(middle - 63.5) < 3
    assert abs(left - right) > 40
    assert min(left, right) < middle < max(left, right)


def test_joint_targets_are_matched_by_name(world: World) -> None:
    robot = world.robot
    targets = robot.home + np.linspace(-0.2, 0.2, len(robot.joint_names))
    ends = []
    for order in (np.arange(len(targets)), np.arange(len(targets))[::-1]):
        world.restart(seed=0)
        world.set_joint_targets(tuple(robot.joint_names[i] for i in order), targets[order])
        world.advance(240)
        ends.append(world.joint_state().positions)
    np.testing.assert_array_equal(ends[0], ends[1])
    np.testing.assert_allclose(ends[0], targets, atol=0.01)


@pytest.mark.parametrize("change", ["misnamed", "missing", "extra"])
def test_targets_for_other_joints_are_refused(world: World, change: str) -> None:
    names = world.robot.joint_names
    names = {"misnamed": ("elbow", *names[1:]), "missing": names[1:], "extra": (*names, "elbow")}[change]
    with pytest.raises(SimulationError, match="targets for .* panda has joints"):
        world.set_joint_targets(names, np.zeros(len(names)))


def test_joint_states_are_named_stamped_and_do_not_change_afterwards(world: World) -> None:
    state = world.joint_state()
    assert state.names == world.robot.joint_names
    assert state.stamp_ns == world.time_ns == 0
    before = state.positions.copy()
    world.set_joint_targets(state.names, world.robot.home + 0.1)
    world.advance(24)
    np.testing.assert_array_equal(state.positions, before)
    later = world.joint_state()
    assert later.stamp_ns == pytest.approx(100_000_000, abs=100)
    assert np.abs(later.velocities).max() > 0.01


def test_a_restored_world_goes_on_as_the_saved_one_did(world: World) -> None:
    robot = world.robot
    world.set_joint_targets(robot.joint_names, robot.home + 0.1)
    world.advance(12)
    saved = world.save()
    world.advance(60)
    went_on = world.joint_state().positions
    world.set_joint_targets(robot.joint_names, robot.home - 0.3)
    world.place_object(0.5, 0.1, 0.5)
    world.advance(60)
    world.restore(saved)
    world.advance(60)
    world.forget(saved)
    np.testing.assert_allclose(world.joint_state().positions, went_on, atol=1e-4)
    position = world.object_position()
    assert position is not None
    np.testing.assert_allclose(position[:2], (0.5, 0.0), atol=1e-3)


def test_a_world_without_an_object_says_so(loop_for: LoopFor) -> None:
    world = loop_for("reach").world
    assert world.object_position() is None
    with pytest.raises(SimulationError, match="no object to place"):
        world.place_object(0.5, 0.0, 0.0)


def test_the_kinematics_and_the_simulator_agree_where_the_tool_is(loop_for: LoopFor) -> None:
    loop = loop_for("reach")
    new_episode(make_task("reach"), loop, seed=4)
    np.testing.assert_allclose(loop.tool_position(), loop.world.tool_position(), atol=1e-4)


def test_an_action_moves_the_tool_its_way_not_further_than_asked_and_holds_the_fixed_axes(
    loop_for: LoopFor,
) -> None:
    loop = loop_for("push")
    loop.world.restart(seed=0)
    loop.restart()
    for _ in range(15):  # down to the height that pushing holds
        loop.execute((0.0, 0.0))
    before = loop.tool_position()
    for _ in range(8):
        loop.execute((0.0, 0.01))
    loop.execute((0.0, 0.0))
    moved = loop.tool_position() - before
    assert 0.04 < moved[1] < 0.08 + 0.002
    assert abs(moved[0]) < 0.004 and abs(moved[2]) < 0.004


def test_a_urdf_that_pybullet_cannot_load_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.urdf"
    broken.write_text("<robot name='x'/>")
    with pytest.raises(SimulationError, match=r"cannot load .*broken\.urdf"):
        World(load_robot("panda").model_copy(update={"urdf": broken}))
