from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hardware.arm.contract import JointState
from hardware.kinematics import (
    CORRECTION_M_S,
    CORRECTION_RAD_S,
    SPEED_SHARE,
    CartesianServo,
    Kinematics,
)
from hardware.robot import load_robot

ROBOT = load_robot("panda")
KINEMATICS = Kinematics(ROBOT)
JOINTS = len(ROBOT.joints)


def joints(spread: float) -> st.SearchStrategy[np.ndarray]:
    """Joint positions within `spread` rad of home, inside the limits."""
    offsets = st.lists(st.floats(-spread, spread), min_size=JOINTS, max_size=JOINTS)
    return offsets.map(
        lambda o: np.clip(ROBOT.home + np.array(o), ROBOT.position_lower, ROBOT.position_upper)
    )


def angle_between(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.arccos(np.clip(0.5 * (np.trace(a.T @ b) - 1.0), -1.0, 1.0)))


def at(q: np.ndarray) -> JointState:
    return JointState(ROBOT.joint_names, q, np.zeros(JOINTS), 0)


def at_tool(*position: float) -> np.ndarray:
    """Joints with the tool at `position`, oriented as at home."""
    start, rotation = KINEMATICS.tool_pose(ROBOT.home)
    q = ROBOT.home
    for share in np.linspace(0.05, 1.0, 20):
        q = KINEMATICS.inverse(start + share * (np.array(position) - start), rotation, q).positions
    return q


@given(joints(0.5))
def test_the_jacobian_is_the_derivative_of_the_tool_pose(q):
    jacobian = KINEMATICS.jacobian(q)
    assert jacobian.shape == (6, JOINTS)
    step = 1e-6
    for i in range(JOINTS):
        delta = step * np.eye(JOINTS)[i]
        (p1, r1), (p0, r0) = KINEMATICS.tool_pose(q + delta), KINEMATICS.tool_pose(q - delta)
        spin = (r1 - r0) @ KINEMATICS.tool_pose(q)[1].T / (2 * step)
        np.testing.assert_allclose(jacobian[:3, i], (p1 - p0) / (2 * step), atol=1e-6)
        np.testing.assert_allclose(jacobian[3:, i], [spin[2, 1], spin[0, 2], spin[1, 0]], atol=1e-6)


@given(joints(0.5))
def test_tool_position_is_the_position_of_the_tool_pose(q):
    position, rotation = KINEMATICS.tool_pose(q)
    np.testing.assert_array_equal(position, KINEMATICS.tool_position(q))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)


@given(joints(0.2), joints(0.05))
def test_inverse_finds_joints_for_a_tool_pose_that_joints_nearby_have(q, offset):
    position, rotation = KINEMATICS.tool_pose(q)
    start = np.clip(q + offset - ROBOT.home, ROBOT.position_lower, ROBOT.position_upper)
    solution = KINEMATICS.inverse(position, rotation, start)
    found_position, found_rotation = KINEMATICS.tool_pose(solution.positions)
    assert np.linalg.norm(found_position - position) < 1e-4
    assert angle_between(found_rotation, rotation) < 1e-3
    assert solution.position_error_m == pytest.approx(np.linalg.norm(found_position - position), abs=1e-9)


@given(st.tuples(*[st.floats(-3.0, 3.0)] * 3), joints(3.0))
def test_inverse_keeps_to_the_joint_limits_and_tells_what_it_could_not_reach(target, start):
    solution = KINEMATICS.inverse(target, np.eye(3), start)
    assert np.all(solution.positions >= ROBOT.position_lower)
    assert np.all(solution.positions <= ROBOT.position_upper)
    reached = KINEMATICS.tool_position(solution.positions)
    assert solution.position_error_m == pytest.approx(np.linalg.norm(reached - target), abs=1e-9)


@given(st.tuples(*[st.floats(-3.0, 3.0)] * 3), joints(1.0))
def test_inverse_never_ends_further_from_its_target_than_it_started(target, start):
    position, rotation = KINEMATICS.tool_pose(start)
    solution = KINEMATICS.inverse(target, np.eye(3), start)
    before = np.hypot(np.linalg.norm(position - target), angle_between(rotation, np.eye(3)))
    assert np.hypot(solution.position_error_m, solution.rotation_error_rad) <= before + 1e-6


def test_a_target_out_of_reach_has_its_distance_reported():
    rotation = KINEMATICS.tool_pose(ROBOT.home)[1]
    assert KINEMATICS.inverse([3.0, 0.0, 0.0], rotation, ROBOT.home).position_error_m > 1.0


def test_joints_outside_the_tools_chain_make_no_difference(tmp_path):
    finger = """
      <link name="finger"><inertial><mass value="0.1"/>
      <inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial></link>
      <joint name="a_finger_joint" type="prismatic"><parent link="panda_link3"/><child link="finger"/>
      <axis xyz="1 0 0"/><limit lower="0" upper="0.04" velocity="1" effort="1"/></joint></robot>"""
    urdf = tmp_path / "fingers.urdf"
    urdf.write_text(ROBOT.urdf.read_text().replace("</robot>", finger))
    with_finger = Kinematics(ROBOT.model_copy(update={"urdf": urdf}))
    q = ROBOT.home + 0.1
    np.testing.assert_allclose(with_finger.tool_position(q), KINEMATICS.tool_position(q), atol=1e-12)
    assert with_finger.jacobian(q).shape == (6, JOINTS)


# The servo


PUSH = CartesianServo(KINEMATICS, ("x", "y"), {"z": 0.025})
REACH = CartesianServo(KINEMATICS, ("x", "y", "z"))
displacements = st.floats(-0.02, 0.02)


@given(st.floats(0.33, 0.59), st.floats(-0.25, 0.25), st.floats(0.04, 0.37), st.tuples(*[displacements] * 3))
def test_a_command_moves_the_tool_by_the_displacement_and_keeps_its_orientation(x, y, z, displacement):
    q = at_tool(x, y, z)
    command = REACH.joint_command(at(q), displacement, 0.1, 7)
    position, rotation = KINEMATICS.tool_pose(command.positions)
    np.testing.assert_allclose(position - KINEMATICS.tool_position(q), displacement, atol=5e-5)
    assert angle_between(rotation, KINEMATICS.tool_pose(ROBOT.home)[1]) < 2e-3
    assert (command.names, command.duration_s, command.stamp_ns) == (ROBOT.joint_names, 0.1, 7)


@given(st.tuples(displacements, displacements))
def test_final_velocities_are_those_of_the_motion_and_zero_only_for_no_displacement(displacement):
    command = PUSH.joint_command(at(ROBOT.home), displacement, 0.1, 0)
    if any(displacement):
        np.testing.assert_allclose(command.velocities, (command.positions - ROBOT.home) / 0.1)
        assert command.velocities.any()
    else:
        assert not command.velocities.any()


def test_no_displacement_means_a_command_that_ends_at_rest_where_the_tool_is():
    command = REACH.joint_command(at(ROBOT.home), (0.0, 0.0, 0.0), 0.1, 0)
    assert not command.velocities.any()
    np.testing.assert_allclose(command.positions, ROBOT.home, atol=1e-4)


def test_fixed_axes_return_to_their_held_value_no_faster_than_the_servo_corrects():
    q = ROBOT.home
    heights = [KINEMATICS.tool_position(q)[2]]
    for _ in range(10):
        q = PUSH.joint_command(at(q), (0.0, 0.0), 0.1, 0).positions
        heights.append(KINEMATICS.tool_position(q)[2])
    steps = -np.diff(heights)
    assert steps[0] == pytest.approx(CORRECTION_M_S * 0.1, abs=1e-4)
    assert np.all(steps < CORRECTION_M_S * 0.1 + 1e-4)
    assert heights[-1] == pytest.approx(0.025, abs=1e-4)


def test_a_turned_tool_returns_to_homes_orientation_no_faster_than_the_servo_corrects():
    home_rotation = KINEMATICS.tool_pose(ROBOT.home)[1]
    q = ROBOT.home.copy()
    q[6] += 0.4
    angles = [angle_between(KINEMATICS.tool_pose(q)[1], home_rotation)]
    for _ in range(8):
        q = REACH.joint_command(at(q), (0.0, 0.0, 0.0), 0.1, 0).positions
        angles.append(angle_between(KINEMATICS.tool_pose(q)[1], home_rotation))
    assert -np.diff(angles)[0] == pytest.approx(CORRECTION_RAD_S * 0.1, abs=0.01)
    assert angles[-1] < 1e-3


@settings(max_examples=30)
@given(st.lists(st.tuples(displacements, displacements, displacements), min_size=20, max_size=60))
def test_commands_never_aim_outside_the_workspace(steps):
    q = at_tool(0.33, 0.25, 0.03)
    for step in steps:
        q = REACH.joint_command(at(q), step, 0.1, 0).positions
        tool = KINEMATICS.tool_position(q)
        assert np.all(tool >= ROBOT.workspace_min - 1e-4) and np.all(tool <= ROBOT.workspace_max + 1e-4)


def test_a_tool_outside_the_workspace_comes_back_no_faster_than_the_servo_corrects():
    q = at_tool(0.45, 0.0, 0.45)
    command = REACH.joint_command(at(q), (0.01, 0.0, 0.0), 0.1, 0)
    moved = KINEMATICS.tool_position(command.positions) - KINEMATICS.tool_position(q)
    np.testing.assert_allclose(moved, [0.01, 0.0, -CORRECTION_M_S * 0.1], atol=2e-4)


def test_the_elbow_does_not_drift_when_the_tool_goes_in_circles():
    q = at_tool(0.45, 0.0, 0.025)
    start = q
    for i in range(630):
        q = PUSH.joint_command(at(q), (0.015 * np.cos(i / 10), 0.015 * np.sin(i / 10)), 0.1, 0).positions
    back = KINEMATICS.inverse(KINEMATICS.tool_position(start), KINEMATICS.tool_pose(start)[1], q).positions
    assert np.abs(back - start).max() < 0.1


def test_joint_states_are_matched_by_name():
    names = (*reversed(ROBOT.joint_names), "gripper")
    state = JointState(names, np.append(ROBOT.home[::-1], 0.04), np.zeros(8), 0)
    expected = REACH.joint_command(at(ROBOT.home), (0.01, 0.0, 0.0), 0.1, 0)
    np.testing.assert_array_equal(
        REACH.joint_command(state, (0.01, 0.0, 0.0), 0.1, 0).positions, expected.positions
    )


def test_the_order_of_the_axes_is_the_order_of_the_displacement():
    swapped = CartesianServo(KINEMATICS, ("y", "x"), {"z": 0.12})
    command = swapped.joint_command(at(ROBOT.home), (0.01, 0.002), 0.1, 0)
    moved = KINEMATICS.tool_position(command.positions) - KINEMATICS.tool_position(ROBOT.home)
    np.testing.assert_allclose(moved, [0.002, 0.01, 0.0], atol=1e-4)


@pytest.mark.parametrize("bad", [(np.nan, 0.0), (0.0, np.inf), (0.0,), (0.0, 0.0, 0.0), 0.0])
def test_a_displacement_that_is_not_finite_or_does_not_fit_the_axes_is_refused(bad):
    with pytest.raises(ValueError, match="displacement"):
        PUSH.joint_command(at(ROBOT.home), bad, 0.1, 0)


@pytest.mark.parametrize(
    "axes, fixed", [(("x", "y"), {}), (("x", "y", "w"), {}), (("x", "y", "z"), {"z": 0.1}), ((), {})]
)
def test_axes_that_do_not_name_each_direction_once_are_refused(axes, fixed):
    with pytest.raises(ValueError, match="exactly once"):
        CartesianServo(KINEMATICS, axes, fixed)


def test_a_held_value_outside_the_workspace_is_refused():
    with pytest.raises(ValueError, match="fixed z = 0.005"):
        CartesianServo(KINEMATICS, ("x", "y"), {"z": 0.005})


@given(st.tuples(*[displacements] * 3), st.floats(0.004, 0.05))
def test_a_motion_too_fast_for_a_joint_is_shortened_on_its_way(displacement, duration_s):
    assume(max(np.abs(displacement)) > 1e-4)
    state = at(ROBOT.home)
    command = REACH.joint_command(state, displacement, duration_s, 0)
    assert np.all(np.abs(command.velocities) <= SPEED_SHARE * ROBOT.velocity_limits * (1 + 1e-9))
    whole = REACH.joint_command(state, displacement, 10.0, 0).positions - ROBOT.home
    step = command.positions - ROBOT.home
    share = np.linalg.norm(step) / max(float(np.linalg.norm(whole)), 1e-9)
    np.testing.assert_allclose(step, share * whole, atol=1e-5)
    assert share > 0.99 or np.max(np.abs(command.velocities) / ROBOT.velocity_limits) > SPEED_SHARE * 0.999


# A gripper


HAND = load_robot("panda_hand")
HAND_KINEMATICS = Kinematics(HAND)
GRASP = CartesianServo(HAND_KINEMATICS, ("x", "y", "z", "gripper"))
FASTEST = HAND.velocity_limits[-1]
openings = st.floats(0.0, 0.04)


def grasping(opening: float, q: np.ndarray = HAND.home) -> JointState:
    """Joints `q` with the gripper at `opening` m."""
    return JointState(HAND.joint_names, np.append(q[:-1], opening), np.zeros(len(q)), 0)


@given(openings)
def test_the_tool_s_state_is_its_position_and_the_gripper_s_joint(opening):
    q = grasping(opening).positions
    state = HAND_KINEMATICS.tool_state(q)
    np.testing.assert_array_equal(state[:3], HAND_KINEMATICS.tool_position(q))
    assert state.shape == (4,) and state[3] == opening
    np.testing.assert_array_equal(KINEMATICS.tool_state(ROBOT.home), KINEMATICS.tool_position(ROBOT.home))


def test_the_gripper_does_not_move_the_tool():
    positions = [HAND_KINEMATICS.tool_position(grasping(opening).positions) for opening in (0.0, 0.04)]
    np.testing.assert_array_equal(*positions)
    assert not HAND_KINEMATICS.jacobian(HAND.home)[:, -1].any()


@given(openings, st.floats(-0.03, 0.03), st.floats(0.02, 0.2))
def test_the_gripper_goes_where_asked_no_faster_than_its_limit_and_not_beyond_its_range(
    opening, grip, duration_s
):
    command = GRASP.joint_command(grasping(opening), (0.0, 0.0, 0.0, grip), duration_s, 0)
    step = np.clip(grip, -FASTEST * duration_s, FASTEST * duration_s)
    assert command.positions[-1] == pytest.approx(np.clip(opening + step, 0.0, 0.04), abs=1e-12)
    assert abs(command.velocities[-1]) <= FASTEST * (1 + 1e-9)


@given(openings, openings, st.tuples(*[displacements] * 3), st.floats(0.02, 0.1))
def test_what_the_gripper_does_makes_no_difference_to_the_arm(opening, other, motion, duration_s):
    commands = [
        GRASP.joint_command(grasping(start), (*motion, grip), duration_s, 0)
        for start, grip in ((opening, 0.03), (other, -0.03))
    ]
    np.testing.assert_allclose(commands[0].positions[:-1], commands[1].positions[:-1], atol=1e-12)


@given(openings, st.tuples(displacements, displacements))
def test_a_gripper_that_is_not_among_the_axes_stays_as_it_is(opening, motion):
    servo = CartesianServo(HAND_KINEMATICS, ("x", "y"), {"z": 0.1})
    command = servo.joint_command(grasping(opening), motion, 0.1, 0)
    assert (command.positions[-1], command.velocities[-1]) == (opening, 0.0)


def test_a_gripper_moves_on_its_own_and_the_arm_stays():
    command = GRASP.joint_command(grasping(0.02), (0.0, 0.0, 0.0, -0.004), 0.1, 0)
    np.testing.assert_allclose(command.positions[:-1], HAND.home[:-1], atol=1e-4)
    assert command.velocities[-1] == pytest.approx(-0.04)


def test_axes_with_a_gripper_need_a_robot_that_has_one():
    with pytest.raises(ValueError, match="move a gripper, and robot panda has none"):
        CartesianServo(KINEMATICS, ("x", "y", "z", "gripper"))


def test_the_gripper_is_the_last_of_the_axes_or_none():
    with pytest.raises(ValueError, match="exactly once"):
        CartesianServo(HAND_KINEMATICS, ("gripper", "x", "y", "z"))
