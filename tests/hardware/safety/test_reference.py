"""A reference is no more careful than its limits ask for: as fast, as near and as soon as they allow."""

from __future__ import annotations

import numpy as np
import pytest

from hardware.kinematics import Kinematics
from hardware.robot import KeepOut, Robot, load_robot
from hardware.safety.collision import Bodies
from hardware.safety.motion import EASING_SHARE, Reference
from hardware.safety.stop import Stop

from .test_limits import unhindered

PANDA = load_robot("panda")
BODIES = Bodies(PANDA)


def with_joints(name: str = "panda", **limits: float) -> Robot:
    """The robot, all of its joints with these limits."""
    fields = load_robot(name).model_dump()
    for joint in fields["joints"]:
        joint |= limits
    return Robot.model_validate(fields)


@pytest.mark.parametrize("jerk", [60.0, 400.0, 1000.0, 20000.0])
def test_the_highest_velocity_is_the_one_from_which_braking_takes_the_time_there_is(jerk):
    robot = with_joints(acceleration=20.0, jerk=jerk, velocity=50.0)
    reference = Reference(Kinematics(robot), BODIES, workspace_tolerance_m=0.002)
    stop = Stop(robot.home, reference.max_velocity, np.zeros(7), robot.acceleration_limits, robot.jerk_limits)
    easing_s = min(20.0 / jerk, EASING_SHARE * robot.max_braking_s)
    assert stop.duration_s == pytest.approx(robot.max_braking_s - easing_s)


def test_joints_of_unlike_jerk_reach_their_highest_velocity():
    """The time to end an acceleration is that of the joint that needs most of it."""
    fields = PANDA.model_dump()
    fields["joints"][0]["jerk"] = 900.0
    robot = Robot.model_validate(fields)
    reference = Reference(Kinematics(robot), Bodies(robot), workspace_tolerance_m=9.0)
    goal = robot.home + 0.5 * reference.max_velocity
    velocities = [np.zeros(7)]
    while velocities[-1][0] < 0.999 * reference.max_velocity[0]:
        reference.follow(goal, 0.02, 0.005)
        velocities.append(reference.velocities)
    np.testing.assert_allclose(velocities[-1], reference.max_velocity, rtol=2e-3)
    assert np.diff(velocities, axis=0).min() >= -1e-9, "none had to brake again on the way"


@pytest.mark.parametrize("dt", [0.004, 0.01])
@pytest.mark.parametrize("side", [-1.0, 1.0])
@pytest.mark.parametrize("name", ["panda", "xarm6", "iiwa"])
def test_in_front_of_its_limit_a_joint_slows_down_late_and_once(name, side, dt):
    robot, reference = unhindered(name)
    for joint in (0, len(robot.joints) - 1):
        limit = (robot.position_lower if side < 0.0 else robot.position_upper)[joint]
        start, far = robot.home.copy(), robot.home.copy()
        start[joint], far[joint] = limit - 0.5 * side, limit + 10.0 * side
        reference.place(start)
        speeds, ways = [], []
        for _ in range(round(1.2 / dt)):
            reference.follow(far, 0.01, dt)
            speeds.append(side * reference.velocities[joint])
            ways.append(side * (limit - reference.positions[joint]))
        top = max(speeds)
        assert top == pytest.approx(reference.max_velocity[joint])
        assert np.diff(speeds[speeds.index(top) :]).max() < 0.05 * top
        ideal_s = 0.5 / top + top / robot.acceleration_limits[joint]
        assert dt * sum(way > 5e-3 for way in ways) < 1.05 * ideal_s
        assert ways[-1] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("dt", [0.004, 0.01, 0.03])
def test_in_front_of_its_goal_an_arm_that_shall_rest_there_slows_down_late(dt):
    robot, reference = unhindered("panda")
    goal = robot.home + 0.3 * np.array([1.0, -0.5, 0.2, 0.6, -1.0, 0.1, 0.0])
    reference.place(robot.home)
    ticks = 0
    while np.abs(goal - reference.positions).max() > 1e-3:
        reference.settle(goal, 0.0, dt)
        ticks += 1
    top = np.max(np.abs(goal - robot.home) / reference.max_velocity)
    assert dt * ticks < top + 0.08 + 3 * dt
    for _ in range(20):
        reference.settle(goal, 0.0, dt)
    np.testing.assert_allclose(reference.positions, goal, atol=2e-7)
    assert reference.at_rest


@pytest.mark.parametrize("name", ["panda", "panda_hand"])
def test_a_motion_that_was_slowed_catches_up_until_it_is_near_its_time(name):
    """From then on it keeps its pace: what is left is for the next command to correct."""
    robot, reference = unhindered(name)
    arm, dt = slice(len(PANDA.joints)), 0.0002
    goal = robot.home.copy()
    goal[0] += 0.01
    easing_s = float((robot.acceleration_limits / robot.jerk_limits)[arm].max())
    left_s, speeds = 0.05, {}
    while left_s > dt:
        reference.follow(goal, left_s, dt, share=0.9)
        left_s -= dt
        speeds[left_s] = reference.velocities[0]
    catching_up = [speed for left_s, speed in speeds.items() if 2.0 * easing_s + 2 * dt < left_s < 0.03]
    keeping = [speed for left_s, speed in speeds.items() if left_s < 2.0 * easing_s - 8 * dt]
    assert len(keeping) > 5 and np.diff(catching_up).min() > 0.0
    np.testing.assert_allclose(keeping, keeping[0])


def test_a_goal_is_new_to_an_arm_that_was_put_elsewhere():
    robot, reference = unhindered("panda")
    goal = robot.home + 0.03
    reference.follow(goal, 0.01, 0.01)
    reference.place(goal + 0.03)
    for _ in range(3):
        reference.follow(goal, 0.01, 0.01)
    assert (reference.velocities < 0.0).all()


# Near other bodies


def beside_a_post(gap_m: float) -> tuple[Robot, Reference, np.ndarray]:
    """The Panda at home, a post `gap_m` in front of it, and the joints' way towards that for each metre."""
    kinematics = Kinematics(PANDA)
    low = kinematics.tool_position(PANDA.home) + [0.0, -0.1, -0.2]
    gap = Bodies(with_post(low + [0.1, 0.0, 0.0])).nearest(PANDA.home).distance
    robot = with_post(low + [0.1 + gap_m - gap, 0.0, 0.0])
    rotation = kinematics.tool_pose(PANDA.home)[1]
    ahead = kinematics.tool_position(PANDA.home) + [0.01, 0.0, 0.0]
    way = (kinematics.inverse(ahead, rotation, PANDA.home).positions - PANDA.home) / 0.01
    reference = Reference(Kinematics(robot), Bodies(robot), workspace_tolerance_m=9.0)
    reference.place(PANDA.home)
    return robot, reference, way


def with_post(low) -> Robot:
    post = KeepOut(name="post", min=tuple(low), max=tuple(low + [0.1, 0.2, 0.4]))
    return PANDA.model_copy(
        update={"collision": PANDA.collision.model_copy(update={"keep_out": (post,), "slow_from": 0.04})}
    )


def test_in_the_middle_of_where_it_slows_an_arm_has_half_of_its_speed():
    robot, reference, way = beside_a_post(0.07)
    bodies = Bodies(robot)
    middle = 0.5 * (robot.collision.slow_from + robot.collision.margin)
    speeds = {}
    for _ in range(600):
        pace = 0.05 * way  # 5 cm/s
        reference.follow(reference.positions + 0.1 * pace, 0.1, 0.01)
        gap = bodies.nearest(reference.positions).distance
        speeds[gap] = np.abs(reference.velocities).max() / np.abs(pace).max()
    assert min(speeds) >= robot.collision.margin - 1e-4
    assert min(speeds) < robot.collision.margin + 1e-3
    nearest = min(speeds, key=lambda gap: abs(gap - middle))
    assert speeds[nearest] == pytest.approx(0.5, abs=0.1)
    assert max(speeds.values()) == pytest.approx(1.0, abs=1e-3)
    far = [speed for gap, speed in speeds.items() if robot.collision.slow_from + 0.005 < gap < 0.06]
    assert min(far) == pytest.approx(1.0, abs=1e-3)


def test_a_motion_that_changes_no_clearance_is_not_slowed_beside_a_body():
    robot, reference, way = beside_a_post(0.015)
    turned = PANDA.home + 0.05 * np.eye(7)[6]  # the flange, about the axis of the peg
    reference.follow(turned, 0.1, 0.01)
    assert reference.nearness_share == 1.0
    reference.follow(PANDA.home + 0.01 * way, 0.1, 0.01)
    assert reference.nearness_share < 0.5


def test_nearness_leaves_all_of_the_speed_again_to_an_arm_that_brakes_or_has_arrived():
    robot, reference, way = beside_a_post(0.02)
    goal = PANDA.home + 0.005 * way
    assert reference.nearness_share == 1.0
    reference.settle(goal, 0.1, 0.01)
    assert reference.nearness_share < 0.7
    for _ in range(100):
        reference.settle(goal, 0.0, 0.01)
    assert reference.at_rest and reference.nearness_share == 1.0
    reference.follow(goal + 0.005 * way, 0.1, 0.01)
    assert reference.nearness_share < 0.7
    reference.brake(0.01)
    assert reference.nearness_share == 1.0


def test_where_an_arm_stands_it_may_stay():
    """However far outside the workspace and however near to a body that is."""
    robot, reference, _ = beside_a_post(0.002)
    assert reference.target_is_clear(PANDA.home)
    outside = PANDA.home.copy()
    outside[3] += 0.7
    reference = Reference(Kinematics(PANDA), BODIES, workspace_tolerance_m=0.002)
    reference.place(outside)
    assert reference.target_is_inside(outside)
