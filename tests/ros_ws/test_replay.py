"""Replay sends what was recorded, or says which joint may not go there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jepa_arm_bringup.replay import Way

import cli
from hardware.robot import Robot, load_robot
from perception.errors import DatasetError
from perception.lerobot.layout import Recording
from perception.lerobot.reader import LeRobotDataset
from perception.lerobot.running import Row
from perception.lerobot.writer import DatasetWriter

ROBOT = load_robot("so101")
AWAY_RAD = 0.05
JOINTS = st.integers(0, len(ROBOT.joint_names) - 1)
SIDES = st.sampled_from([-1, 1])


def record(folder: Path, *actions: np.ndarray) -> LeRobotDataset:
    recording = Recording(ROBOT.name, ROBOT.joint_names, "front", 64, 48, 30)
    writer = DatasetWriter.open(folder, recording)
    episode = writer.begin("push")
    image, tool = np.zeros((48, 64, 3), np.uint8), np.zeros(3, np.float32)
    for action in np.asarray(actions, np.float32):
        episode.add(Row(image, action, action, tool, tool))
    writer.finish(episode)
    return LeRobotDataset(folder)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> LeRobotDataset:
    """Every joint at home, then away from it to each side."""
    folder = tmp_path_factory.mktemp("recorded")
    return record(folder, ROBOT.home, ROBOT.home + AWAY_RAD, ROBOT.home - AWAY_RAD)


def limited(joint: int, side: int, recorded: float, beyond_rad: float) -> Robot:
    """A robot whose limit the recorded position of one joint is so far beyond."""
    end = {"upper" if side > 0 else "lower": recorded - side * beyond_rad}
    joints = list(ROBOT.joints)
    joints[joint] = joints[joint].model_copy(update=end)
    content = {name: getattr(ROBOT, name) for name in Robot.model_fields}
    return Robot(**content | {"joints": tuple(joints)})


@settings(deadline=None, max_examples=40)
@given(JOINTS, SIDES, st.floats(0.0, 9e-6))
def test_a_rounding_beyond_a_limit_is_sent_as_the_limit(
    dataset: LeRobotDataset, joint: int, side: int, beyond_rad: float
) -> None:
    recorded = dataset.numbers(0, "action")
    robot = limited(joint, side, recorded[1 if side > 0 else 2, joint], beyond_rad)
    sent = Way.recorded(dataset, 0, robot).positions
    assert (sent >= robot.position_lower).all() and (sent <= robot.position_upper).all()
    assert np.abs(sent - recorded).max() <= beyond_rad + 1e-12


@settings(deadline=None, max_examples=40)
@given(JOINTS, SIDES, st.floats(1.1e-5, AWAY_RAD / 2))
def test_what_is_further_beyond_a_limit_is_named_and_never_sent(
    dataset: LeRobotDataset, joint: int, side: int, beyond_rad: float
) -> None:
    row = 1 if side > 0 else 2
    recorded = dataset.numbers(0, "action")[row, joint]
    robot = limited(joint, side, recorded, beyond_rad)
    with pytest.raises(DatasetError) as refused:
        Way.recorded(dataset, 0, robot)
    limits = robot.joints[joint]
    said = f"after {row / 30:.2f} s of episode 0 {limits.name} was sent to {recorded:.5f} rad"
    assert said in str(refused.value)
    assert f"limits it to {limits.lower:.5f} to {limits.upper:.5f} rad" in str(refused.value)


def test_the_limits_themselves_as_recorded_are_within_them(tmp_path: Path) -> None:
    way = Way.recorded(record(tmp_path, ROBOT.position_lower, ROBOT.position_upper), 0, ROBOT)
    np.testing.assert_allclose(way.positions, [ROBOT.position_lower, ROBOT.position_upper], atol=1e-6)


def test_a_recording_beyond_the_limits_is_refused_before_anything_starts(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    beyond = ROBOT.position_upper.copy()
    beyond[2] += 0.1
    record(tmp_path, ROBOT.home, beyond)
    command = ["replay", str(tmp_path), "--robot", "so101", "--arm", "feetech", "--port", "/dev/nothing"]
    assert cli.main(command) == 2
    said = capfd.readouterr()
    assert f"{ROBOT.joint_names[2]} was sent to" in said.err and "another episode" in said.err
    assert "starting" not in said.out
