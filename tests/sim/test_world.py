from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hardware.robot import load_robot
from sim.blocks import GRASP_CUBE, PUSH_CUBE, TEE, Block
from sim.conditions import NOMINAL, Conditions, perturbed
from sim.control import ControlLoop
from sim.errors import SimulationError
from sim.tasks import make_loop, make_task, new_episode
from sim.world import World

LoopFor = Callable[..., ControlLoop]
TASKS = ("reach", "push", "push-pose", "pick-place")


EVERYTHING = replace(perturbed("all", np.random.default_rng(1)), texture=5)


@pytest.fixture
def world(loop_for: LoopFor) -> World:
    """A restarted world with a cube, the arm at home."""
    world = loop_for("push").world
    world.restart(seed=0)
    return world


def record(
    loop: ControlLoop, task_name: str, seed: int, steps: int = 6, conditions: Conditions = NOMINAL
) -> list[bytes]:
    """An episode's pictures and the first steps of a fixed motion, as bytes."""
    task = make_task(task_name)
    episode = new_episode(task, loop, seed, conditions)
    seen = [episode.goal_image.tobytes(), episode.start_image.tobytes(), episode.goal.tobytes()]
    for step in range(steps):
        loop.execute(0.015 * np.array([np.cos(step), np.sin(step), 0.3, -1.0])[: task.action_dim])
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


@pytest.mark.parametrize("conditions", [NOMINAL, EVERYTHING], ids=["nominal", "everything differs"])
def test_another_world_gives_the_same_bytes_too(loop_for: LoopFor, conditions: Conditions) -> None:
    fresh = make_loop(make_task("push"), load_robot("panda"))
    try:
        first = record(fresh, "push", 11, 3, conditions)
        assert record(loop_for("push"), "push", 11, 3, conditions) == first
    finally:
        fresh.world.close()


def test_the_same_seed_and_conditions_give_the_same_bytes_whatever_the_conditions_were_before(
    loop_for: LoopFor,
) -> None:
    loop = loop_for("push")
    first, nominal = record(loop, "push", 11, 3, EVERYTHING), record(loop, "push", 11, 3)
    assert record(loop, "push", 11, 3, EVERYTHING) == first
    assert record(loop, "push", 11, 3) == nominal
    assert not set(first) & set(nominal)


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
    np.testing.assert_allclose(world.object_pose()[[0, 1, 3]], (0.5, 0.0, 0.0), atol=1e-3)


def test_a_world_without_an_object_says_so(loop_for: LoopFor) -> None:
    world = loop_for("reach").world
    assert np.isnan(world.object_pose()).all() and world.object_pose().shape == (4,)
    assert world.object_speed() == 0.0 and not world.object_is_touched()
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


@pytest.mark.parametrize("yaw", [-3.0, -0.4, 0.0, 1.2, 3.1])
def test_the_object_s_pose_is_where_it_was_put_and_how_it_was_turned(world: World, yaw: float) -> None:
    world.place_object(0.5, -0.1, yaw)
    np.testing.assert_allclose(world.object_pose(), (0.5, -0.1, 0.03, yaw), atol=1e-6)
    world.advance(60)
    np.testing.assert_allclose(world.object_pose(), (0.5, -0.1, 0.03, yaw), atol=1e-3)


def test_an_object_s_speed_is_that_of_its_centre(world: World) -> None:
    world.place_object(0.5, 0.0, 0.0)
    world.advance(60)
    assert world.object_speed() < 1e-3
    assert not world.object_is_touched()


def put_tool(loop: ControlLoop, *position: float) -> None:
    """The tool at rest at `position` in metres, an open gripper."""
    rotation, joints = loop.kinematics.tool_pose(loop.world.robot.home)[1], loop.world.robot.home
    for _ in range(10):
        joints = loop.kinematics.inverse(position, rotation, joints).positions
    gripper = loop.world.robot.gripper
    loop.world.set_joints(joints if gripper is None else np.append(joints[:-1], gripper.open))
    loop.restart()


# A gripper


@pytest.fixture
def hand(loop_for: LoopFor) -> ControlLoop:
    """The hand around the place where a 4 cm cube would stand, open, at rest."""
    loop = loop_for("pick-place")
    loop.world.restart(seed=0)
    put_tool(loop, 0.5, 0.0, 0.02)
    return loop


def test_a_gripper_opens_and_closes_at_its_limit_while_the_arm_stays(hand: ControlLoop) -> None:
    hand.world.place_object(0.4, 0.15, 0.0)
    before, openings = hand.tool_state(), []
    for grip in (-0.03, -0.03, -0.03, 0.03, 0.03, 0.03):
        hand.execute((0.0, 0.0, 0.0, grip))
        openings.append(hand.tool_state()[3])
    steps = np.diff([before[3], *openings])
    assert np.all(steps[:3] < 0) and np.all(steps[3:] > 0)
    assert np.abs(steps).max() <= 0.05 * 0.1 + 2e-4
    np.testing.assert_allclose(hand.tool_state()[:3], before[:3], atol=1e-3)


@pytest.mark.parametrize("aside_m", [-0.01, 0.0, 0.01])
def test_the_finger_that_follows_meets_the_other_so_that_what_is_grasped_is_in_the_middle(
    hand: ControlLoop, aside_m: float
) -> None:
    world = hand.world
    across = hand.kinematics.tool_pose(world.joint_state().positions)[1][:, 1]  # the fingers move along it
    place = world.tool_position() + aside_m * across
    world.place_object(place[0], place[1], float(np.arctan2(across[1], across[0])))
    for _ in range(12):
        hand.execute((0.0, 0.0, 0.0, -0.03))
    assert world.object_is_touched()
    off = (world.object_pose()[:3] - world.tool_position()) @ across
    assert abs(off) < 2e-3, f"the cube is {off * 1000:.1f} mm off the middle"
    assert hand.tool_state()[3] == pytest.approx(0.02, abs=2e-3), "half of the cube's width"


def test_a_grasped_cube_is_lifted_and_falls_when_it_is_let_go(hand: ControlLoop) -> None:
    world = hand.world
    world.place_object(*world.tool_position()[:2], 0.0)
    for action in [(0.0, 0.0, 0.0, -0.03)] * 8 + [(0.0, 0.0, 0.02, -0.03)] * 5:
        hand.execute(action)
    assert world.object_pose()[2] > 0.08
    assert world.object_is_touched()
    for _ in range(8):
        hand.execute((0.0, 0.0, 0.0, 0.03))
    assert world.object_pose()[2] == pytest.approx(0.02, abs=3e-3)
    assert not world.object_is_touched()


# Conditions: each changes what it says, and nothing else


@pytest.fixture
def quiet(loop_for: LoopFor) -> World:
    """A world with a cube whose camera has no noise."""
    return loop_for("push", pixel_noise=0.0).world


def picture(world: World, conditions: Conditions = NOMINAL) -> np.ndarray:
    """The cube at a given place under `conditions`, as int."""
    world.restart(0, conditions)
    world.place_object(0.45, 0.1, 0.3)
    return world.render().astype(int)


def is_cube(seen: np.ndarray) -> np.ndarray:
    return seen[..., 0] - seen[..., 1] > 60


LOOKS = {
    "camera_shift": (0.02, 0.0, 0.0),
    "camera_turn": (0.0, 0.03, 0.0),
    "light_direction": (-0.2, 1.2, 1.5),
    "brightness": 0.8,
    "tint": (0.95, 1.0, 1.05),
    "block_colour": (-0.1, 0.15, 0.1),
    "table_colour": (0.1, -0.1, 0.0),
    "texture": 3,
}
PHYSICS = {"friction": 0.7, "mass": 1.3, "latency_s": 0.05}


def motion(loop: ControlLoop, conditions: Conditions) -> np.ndarray:
    """Joints and cube while the tool runs into the cube and stops: (steps, J + 4)."""
    world = loop.world
    world.restart(0, conditions)
    put_tool(loop, 0.45, -0.1, 0.025)
    world.place_object(0.45, 0.0, 0.0)
    seen = []
    for speed in [0.02] * 5 + [0.0] * 4:
        loop.execute((0.0, speed))
        seen.append(np.append(world.joint_state().positions, world.object_pose()))
    return np.array(seen)


@pytest.mark.parametrize("name", LOOKS)
def test_what_is_seen_otherwise_moves_as_ever(loop_for: LoopFor, quiet: World, name: str) -> None:
    conditions = replace(NOMINAL, **{name: LOOKS[name]})
    assert not np.array_equal(picture(quiet, conditions), picture(quiet))
    loop = loop_for("push", pixel_noise=0.0)
    np.testing.assert_array_equal(motion(loop, conditions), motion(loop, NOMINAL))


@pytest.mark.parametrize("name", PHYSICS)
def test_what_moves_otherwise_looks_as_ever(loop_for: LoopFor, quiet: World, name: str) -> None:
    conditions = replace(NOMINAL, **{name: PHYSICS[name]})
    np.testing.assert_array_equal(picture(quiet, conditions), picture(quiet))
    loop = loop_for("push", pixel_noise=0.0)
    assert not np.array_equal(motion(loop, conditions), motion(loop, NOMINAL))


def test_a_cube_slides_on_further_with_less_friction(loop_for: LoopFor) -> None:
    loop = loop_for("push", pixel_noise=0.0)
    ends = [motion(loop, replace(NOMINAL, friction=friction))[-1, 8] for friction in (1.3, 1.0, 0.4)]
    assert ends[0] < ends[1] < ends[2] - 1e-3


def test_brightness_and_tint_scale_the_colours(quiet: World) -> None:
    seen = picture(quiet)
    dim = picture(quiet, replace(NOMINAL, brightness=0.75))
    np.testing.assert_allclose(dim, seen * 0.75, atol=0.51)
    reddish = picture(quiet, replace(NOMINAL, tint=(1.0, 0.9, 1.0)))
    np.testing.assert_array_equal(reddish[..., [0, 2]], seen[..., [0, 2]])
    np.testing.assert_allclose(reddish[..., 1], seen[..., 1] * 0.9, atol=0.51)


def test_the_block_s_colour_is_the_block_s_alone(quiet: World) -> None:
    seen, other = picture(quiet), picture(quiet, replace(NOMINAL, block_colour=(-0.1, 0.15, 0.1)))
    differs = np.abs(seen - other).max(2) > 0
    assert differs.any() and not (differs & ~is_cube(seen)).any()
    shift = (other - seen)[is_cube(seen)].mean(0)
    assert shift[0] < -5 and shift[1] > 5 and shift[2] > 5


@pytest.mark.parametrize(
    "change", [{"table_colour": (0.1, -0.1, 0.0)}, {"texture": 3}], ids=["colour", "texture"]
)
def test_the_table_s_looks_are_the_table_s_alone(quiet: World, change: dict) -> None:
    seen, other = picture(quiet), picture(quiet, replace(NOMINAL, **change))
    differs = np.abs(seen - other).max(2) > 0
    assert differs.mean() > 0.3
    assert not (differs & is_cube(seen)).any()


def test_a_texture_is_a_pattern_of_its_seed(quiet: World) -> None:
    table = np.s_[60:120, 5:40]  # nothing but table there
    plain, first, again, other = (picture(quiet, replace(NOMINAL, texture=seed)) for seed in (None, 3, 3, 4))
    assert first[table].std() > plain[table].std() + 3
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_larger_block_is_larger_all_over_and_stands_on_the_table(quiet: World) -> None:
    plain, large = is_cube(picture(quiet)).sum(), is_cube(picture(quiet, replace(NOMINAL, size=1.2))).sum()
    assert large / plain == pytest.approx(1.2**2, rel=0.12)
    quiet.advance(60)
    assert quiet.object_pose()[2] == pytest.approx(0.03 * 1.2, abs=1e-3)


def test_a_shifted_and_a_turned_camera_move_the_picture_their_way(quiet: World) -> None:
    def middle(conditions: Conditions) -> np.ndarray:
        return np.argwhere(is_cube(picture(quiet, conditions))).mean(0)

    row, column = middle(NOMINAL)
    # The camera's x points to the right, y up: moved right, what it sees moves left.
    right, up = (middle(replace(NOMINAL, camera_shift=s)) for s in ((0.03, 0.0, 0.0), (0.0, 0.03, 0.0)))
    assert right[1] < column - 2 and abs(right[0] - row) < 1
    assert up[0] > row + 2 and abs(up[1] - column) < 1
    # Turned to the left about its y, what it sees moves right.
    turned = middle(replace(NOMINAL, camera_turn=(0.0, 0.05, 0.0)))
    assert turned[1] > column + 2 and abs(turned[0] - row) < 2


# Blocks


@pytest.mark.parametrize("block", [PUSH_CUBE, GRASP_CUBE, TEE], ids=["push cube", "grasp cube", "T"])
def test_a_block_s_centre_of_mass_is_its_origin_and_its_radius_holds_it(block: Block) -> None:
    areas = np.array([4 * x * y for (x, y), _ in block.boxes])
    centres = np.array([centre for _, centre in block.boxes])
    np.testing.assert_allclose(areas @ centres / areas.sum(), 0.0, atol=1e-4)
    corners = [
        np.hypot(x + i * half_x, y + j * half_y)
        for (half_x, half_y), (x, y) in block.boxes
        for i in (-1, 1)
        for j in (-1, 1)
    ]
    assert block.radius == pytest.approx(max(corners))


def test_the_boxes_of_the_t_meet() -> None:
    ((_, bar_half), (_, bar)), ((_, stem_half), (_, stem)) = TEE.boxes
    assert bar - bar_half == pytest.approx(stem + stem_half, abs=1e-9)


@pytest.mark.parametrize(("aside_m", "steps", "least", "most"), [(0.0, 5, 0.0, 0.05), (0.04, 11, 0.2, 1.5)])
def test_a_t_turns_when_pushed_beside_its_centre_of_mass_and_not_when_pushed_through_it(
    loop_for: LoopFor, aside_m: float, steps: int, least: float, most: float
) -> None:
    loop = loop_for("push-pose", pixel_noise=0.0)
    loop.world.restart(seed=0)
    loop.world.place_object(0.47, 0.0, 0.0)
    put_tool(loop, 0.47 + aside_m, -0.12, 0.025)
    for _ in range(steps):
        loop.execute((0.0, 0.015))
    assert least <= abs(loop.world.object_pose()[3]) <= most
    assert loop.world.object_pose()[1] > 0.01, "it was pushed"
