"""The tool stays in its workspace."""

from __future__ import annotations

from dataclasses import replace as changed

import numpy as np
import pytest

from hardware.safety.collision import Bodies
from hardware.safety.motion import Reference
from hardware.safety.status import Reason


@pytest.mark.parametrize(
    "direction", [(1, 0, 0), (0, 1, 0), (0, -1, 0), (-1, 0, 0), (0, 0, -1), (0, 0, 1), (1, 1, -1)]
)
def test_the_tool_comes_to_rest_inside_the_workspace_however_it_is_pushed(arm, robot, direction):
    for _ in range(60):
        arm.send(arm.command(tuple(0.02 * np.array(direction))))
        arm.run(0.07)
        assert np.all(arm.tool >= robot.workspace_min - 0.002) and np.all(
            arm.tool <= robot.workspace_max + 0.002
        )
    assert arm.gate.status.stops == 0
    arm.run(0.3)
    assert np.all(arm.tool >= robot.workspace_min - 0.002) and np.all(arm.tool <= robot.workspace_max + 0.002)


def test_a_tool_that_starts_outside_the_workspace_may_come_back_but_go_no_further(
    make_arm, robot, kinematics
):
    q = robot.home.copy()
    q[3] += 0.7
    arm = make_arm(q)
    height = arm.tool[2]
    assert height > robot.workspace_max[2]
    back = arm.command((0.0, 0.0, -0.01))
    assert arm.send(back).accepted
    arm.run(0.2)
    assert arm.tool[2] < height
    further = arm.q - 1.0 * (back.positions - q)
    verdict = arm.send(changed(back, positions=further, velocities=np.zeros(7), duration_s=0.5))
    assert verdict.reason is Reason.WORKSPACE


def test_a_tool_that_came_back_may_go_as_near_to_the_edge_as_any_other(robot, kinematics):
    """As near as the tolerance, 2 mm here, and that it has been further outside is forgotten."""
    reference = Reference(kinematics, Bodies(robot), workspace_tolerance_m=0.002)
    rotation = kinematics.tool_pose(robot.home)[1]

    def at_height(above_edge_m: float) -> np.ndarray:
        target, q = kinematics.tool_position(robot.home), robot.home
        target[2] = robot.workspace_max[2] + above_edge_m
        for _ in range(20):
            q = kinematics.inverse(target, rotation, q).positions
        assert kinematics.tool_position(q)[2] == pytest.approx(target[2], abs=1e-5)
        return q

    reference.place(at_height(0.01))
    assert reference.target_is_inside(at_height(0.009)) and not reference.target_is_inside(at_height(0.011))
    inside = at_height(-0.01)
    for _ in range(100):
        reference.follow(inside, 0.2, 0.01)
    assert kinematics.tool_position(reference.positions)[2] < robot.workspace_max[2]
    assert reference.target_is_inside(at_height(0.0015)) and not reference.target_is_inside(at_height(0.0025))
