"""How a gate follows good commands, told as short scenes on simulated time."""

from __future__ import annotations

from dataclasses import replace as changed

import numpy as np
import pytest

from hardware.arm.contract import JointState
from hardware.safety.gate import SafetyGate
from hardware.safety.status import Reason, SafetyState

AHEAD = (0.02, 0.0, 0.0)
DIAGONAL = (0.02, 0.02, 0.0)


def test_nothing_is_sent_before_the_first_joint_state(robot, kinematics):
    gate = SafetyGate(robot, kinematics)
    assert gate.tick(0.0) is None
    assert gate.tick(1.0) is None


def test_a_command_before_the_first_joint_state_is_refused_without_a_stop(robot, kinematics, arm):
    gate = SafetyGate(robot, kinematics)
    verdict = gate.submit(arm.command(AHEAD), 0.0, image_age_s=0.0)
    assert (verdict.accepted, verdict.reason) == (False, Reason.STATE_STALE)
    assert gate.status.state is SafetyState.IDLE


def test_without_commands_the_first_measured_position_is_held(arm, robot):
    for setpoint in arm.run(0.5):
        assert setpoint.names == robot.joint_names
        np.testing.assert_array_equal(setpoint.positions, robot.home)
        assert not setpoint.velocities.any()
    assert arm.gate.status.state is SafetyState.IDLE


def test_a_command_that_ends_at_rest_reaches_its_target_and_leaves_the_gate_idle(make_arm):
    arm = make_arm(command_timeout_s=1.0)
    command = arm.command((0.02, 0.01, 0.01))
    command = changed(command, velocities=np.zeros(7), duration_s=0.4)
    assert arm.send(command).accepted
    assert arm.gate.status.state is SafetyState.ACTIVE
    arm.run(0.5)
    np.testing.assert_allclose(arm.q, command.positions, atol=1e-6)
    status = arm.gate.status
    assert (status.state, status.reason, status.pauses) == (SafetyState.IDLE, Reason.NONE, 0)


def test_a_command_that_ends_at_rest_does_not_overshoot_its_target(make_arm):
    arm = make_arm(command_timeout_s=1.0)
    command = changed(arm.command(DIAGONAL), velocities=np.zeros(7), duration_s=0.15)
    arm.send(command)
    forwards = np.sign(command.positions - arm.robot.home)
    for setpoint in arm.run(0.3):
        assert np.all((command.positions - setpoint.positions) * forwards >= -1e-9)
    np.testing.assert_allclose(arm.q, command.positions, atol=1e-6)


def test_a_command_that_ends_at_rest_but_runs_out_on_the_way_brakes_and_leaves_the_gate_idle(arm):
    command = changed(arm.command(DIAGONAL), velocities=np.zeros(7), duration_s=0.2)
    arm.send(command)
    arm.run(0.09)
    assert not arm.at_rest
    assert arm.gate.status.state is SafetyState.ACTIVE
    arm.seconds_until_rest()
    assert arm.gate.status.state is SafetyState.IDLE


def test_commands_that_follow_each_other_move_the_tool_where_they_say(arm):
    start = arm.tool
    arm.drive(AHEAD, 0.7)
    moved = arm.tool - start
    assert 0.08 < moved[0] < 0.14
    np.testing.assert_allclose(moved[1:], 0.0, atol=0.003)
    assert arm.gate.status.commands_accepted == 10


def test_joints_are_matched_by_name(arm):
    command = arm.command(AHEAD)
    order = [3, 0, 6, 1, 5, 2, 4]
    arm.send(
        changed(
            command,
            names=tuple(command.names[i] for i in order),
            positions=command.positions[order],
            velocities=command.velocities[order] * 0.0,
        )
    )
    start = arm.tool
    arm.run(0.3)
    assert arm.gate.status.state is SafetyState.IDLE
    moved = arm.tool - start
    assert 0.01 < moved[0] < 0.021
    np.testing.assert_allclose(moved[1:], 0.0, atol=0.003)


def test_a_joint_state_in_another_order_with_other_joints_is_understood(robot, kinematics):
    gate = SafetyGate(robot, kinematics)
    names = (*reversed(robot.joint_names), "gripper")
    gate.observe(JointState(names, np.append(robot.home[::-1], 0.04), np.zeros(8), 0), 0.0)
    setpoint = gate.tick(0.01)
    np.testing.assert_array_equal(setpoint.positions, robot.home)
    assert setpoint.stamp_ns == 0, "it comes from no command"


def test_setpoints_carry_the_stamp_of_the_command_and_the_time_since_the_tick_before(arm):
    arm.send(changed(arm.command(AHEAD), stamp_ns=1234))
    setpoint = arm.run(0.01)[0]
    assert setpoint.stamp_ns == 1234
    assert setpoint.duration_s == pytest.approx(0.01)


def test_nobody_can_change_a_setpoint_or_a_command_once_it_is_handed_over(arm):
    command = arm.command(AHEAD)
    arm.send(command)
    goal = command.positions.copy()
    command.positions[:] = 0.0
    setpoint = arm.run(0.08)[-1]
    assert setpoint.positions[1] > arm.robot.home[1]
    assert np.linalg.norm(setpoint.positions - goal) < np.linalg.norm(arm.robot.home - goal)
    with pytest.raises(ValueError):
        setpoint.positions[0] = 1.0


def test_a_joint_state_that_changes_after_it_was_observed_changes_nothing(robot, kinematics):
    gate = SafetyGate(robot, kinematics)
    state = JointState(robot.joint_names, robot.home.copy(), np.zeros(7), 0)
    gate.observe(state, 0.0)
    gate.tick(0.0)
    state.positions[:] += 0.1
    np.testing.assert_array_equal(gate.tick(0.01).positions, robot.home)


def test_two_ticks_at_the_same_time_give_the_same_setpoint(arm):
    arm.drive(AHEAD, 0.2)
    first = arm.gate.tick(arm.now_s)
    second = arm.gate.tick(arm.now_s)
    np.testing.assert_array_equal(first.positions, second.positions)
