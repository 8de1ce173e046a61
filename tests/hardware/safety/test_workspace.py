"""The tool stays in its workspace."""

from __future__ import annotations

from dataclasses import replace as changed

import numpy as np
import pytest

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
