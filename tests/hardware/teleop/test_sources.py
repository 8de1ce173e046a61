"""What moves the arm while episodes are recorded: keys, play, a leader arm. A perfect arm follows each."""

from __future__ import annotations

import numpy as np
import pytest

from hardware.arm.config import load_arm_config
from hardware.arm.contract import JointCommand, JointState
from hardware.arm.emulator.process import FakeArm
from hardware.errors import ArmError
from hardware.kinematics import Kinematics
from hardware.robot import load_robot
from hardware.teleop.contract import COMMAND_S, Source, ToolMotion
from hardware.teleop.keyboard import Keyboard
from hardware.teleop.leader import Leader
from hardware.teleop.play import Play

ROBOT = load_robot("so101")
KINEMATICS = Kinematics(ROBOT)
PERIOD_S = 1 / 30
SPEED_M_S = 0.1
HOME = {joint.name: joint.home for joint in ROBOT.joints}


# In the middle of what the arm reaches with its gripper straight down; home is at the edge of that.
MIDDLE = KINEMATICS.inverse([0.19, 0.0, 0.045], KINEMATICS.tool_pose(ROBOT.home)[1], ROBOT.home).positions


class Arm:
    """Follows every command exactly; a command's joints are looked up by name."""

    def __init__(self, q: np.ndarray = MIDDLE) -> None:
        self.q, self.now_s = q.copy(), 100.0
        self.commands: list[JointCommand] = []
        self.tools: list[np.ndarray] = []

    @property
    def state(self) -> JointState:
        return JointState(ROBOT.joint_names, self.q, np.zeros_like(self.q), int(self.now_s * 1e9))

    @property
    def tool(self) -> np.ndarray:
        return KINEMATICS.tool_position(self.q)

    def run(self, source: Source, seconds: float, key: str = "") -> None:
        for _ in range(round(seconds / PERIOD_S)):
            if key:
                source.press(key, self.now_s)
            command = source.command(self.state, self.now_s)
            if command is not None:
                assert command.stamp_ns == self.state.stamp_ns
                step = np.abs(command.positions - self.q)
                assert (step <= ROBOT.velocity_limits * COMMAND_S + 1e-9).all(), "the gate would refuse this"
                self.commands.append(command)
                target = JointState(command.names, command.positions, command.velocities, 0)
                q = target.ordered(ROBOT.joint_names).positions
                self.q = self.q + (q - self.q) * PERIOD_S / command.duration_s
            self.now_s += PERIOD_S
            self.tools.append(self.tool)


def keyboard() -> Keyboard:
    return Keyboard(ROBOT, ToolMotion(ROBOT, KINEMATICS), SPEED_M_S)


@pytest.mark.parametrize(
    ("key", "axis", "sign"), [("up", 0, 1), ("left", 1, 1), ("right", 1, -1), ("w", 2, 1), ("s", 2, -1)]
)
def test_a_held_key_moves_the_tool_its_way_at_the_speed(key: str, axis: int, sign: int) -> None:
    arm, source = Arm(), keyboard()
    before = arm.tool
    arm.run(source, 0.3, key)
    way = arm.tool - before
    assert 0.6 * 0.3 * SPEED_M_S < sign * way[axis] < 1.3 * 0.3 * SPEED_M_S
    assert np.abs(np.delete(way, axis)).max() < 0.005


def test_a_released_key_ends_at_rest_and_then_nothing_is_commanded() -> None:
    arm, source = Arm(), keyboard()
    arm.run(source, 0.3, "up")
    assert arm.commands[-1].velocities.any()
    arm.run(source, 0.5)
    assert not arm.commands[-1].velocities.any()
    count = len(arm.commands)
    arm.run(source, 1.0)
    assert len(arm.commands) == count


def test_the_tool_stays_in_its_workspace_however_long_a_key_is_held() -> None:
    arm, source = Arm(), keyboard()
    arm.run(source, 4.0, "s")
    assert arm.tool[2] >= ROBOT.workspace_min[2] - 0.002
    assert np.abs(np.array(arm.tools)[:, 2] - ROBOT.workspace_min[2]).min() < 0.005, (
        "it never came near the end"
    )


def test_keys_open_and_close_the_gripper() -> None:
    arm, source = Arm(), keyboard()
    arm.run(source, 0.5, "o")
    assert arm.q[-1] > 0.2
    arm.run(source, 0.3, "c")
    assert arm.q[-1] < 0.4


def play(seed: int, height_m: float | None = None) -> Play:
    motion = ToolMotion(ROBOT, KINEMATICS, height_m)
    return Play(ROBOT, KINEMATICS, motion, SPEED_M_S, seed, height_m)


def test_play_wanders_through_the_workspace_and_never_leaves_it() -> None:
    arm = Arm()
    arm.run(play(0), 40.0)
    tools = np.array(arm.tools)
    assert (tools >= ROBOT.workspace_min - 0.002).all() and (tools <= ROBOT.workspace_max + 0.002).all()
    assert (np.ptp(tools, axis=0) > [0.05, 0.1, 0.05]).all()
    speeds = np.linalg.norm(np.diff(tools, axis=0), axis=1) / PERIOD_S
    assert 0.02 < speeds.max() < 1.5 * SPEED_M_S
    assert (speeds < 1e-4).any(), "it never paused"


def test_play_keeps_the_height_it_is_told() -> None:
    arm = Arm()
    arm.run(play(1, height_m=0.06), 2.0)
    arm.tools.clear()
    arm.run(play(1, height_m=0.06), 10.0)
    assert np.abs(np.array(arm.tools)[:, 2] - 0.06).max() < 0.005


def test_play_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    ways = []
    for seed in (3, 3, 4):
        arm = Arm()
        arm.run(play(seed), 5.0)
        ways.append(np.array(arm.tools))
    assert np.array_equal(ways[0], ways[1]) and np.abs(ways[0] - ways[2]).max() > 0.01


def test_a_height_outside_the_workspace_is_refused() -> None:
    with pytest.raises(ValueError, match=r"fixed z = 0.9 m is outside the workspace"):
        ToolMotion(ROBOT, KINEMATICS, 0.9)


def test_a_leader_is_limp_and_followed_joint_by_joint() -> None:
    config = load_arm_config("so101-feetech")
    stands = HOME | {"shoulder_pan": 0.4, "elbow_flex": 0.2}
    with FakeArm(config, stands) as port:
        leader = Leader(config, port.path, ROBOT, KINEMATICS)
        try:
            assert not any(port.torques().values())
            arm = Arm()
            arm.run(leader, 0.2)
            fastest = max(np.abs(command.velocities).max() for command in arm.commands)
            assert fastest < 0.2 * ROBOT.velocity_limits.max(), "it jumps to where the leader stands"
            arm.run(leader, 4.0)
            wanted = np.array([stands[name] for name in ROBOT.joint_names])
            assert np.abs(arm.q - wanted).max() < 0.01
            assert not arm.commands[-1].velocities.any()

            pan = next(servo for servo in config.servos if servo.joint == "shoulder_pan")
            port.turn(pan.id, pan.ticks(-0.2))
            arm.run(leader, 4.0)
            assert abs(arm.q[0] + 0.2) < 0.01
        finally:
            leader.close()


def test_a_leader_outside_the_workspace_is_not_followed_there() -> None:
    config = load_arm_config("so101-feetech")
    with FakeArm(config, HOME | {"shoulder_pan": 1.8}) as port:
        leader = Leader(config, port.path, ROBOT, KINEMATICS)
        try:
            arm = Arm()
            arm.run(leader, 8.0)
            assert (np.array(arm.tools) >= ROBOT.workspace_min - 1e-6).all()
            assert arm.q[0] > 0.3 and not arm.commands[-1].velocities.any()
        finally:
            leader.close()


def test_a_leader_that_goes_away_is_told() -> None:
    config = load_arm_config("so101-feetech")
    with FakeArm(config, HOME) as port:
        leader = Leader(config, port.path, ROBOT, KINEMATICS)
        port.inject("cable")
        with pytest.raises(ArmError):
            leader.command(Arm().state, 0.0)
        leader.close()
    with pytest.raises(ArmError):
        Leader(config, "/dev/nothing", ROBOT, KINEMATICS)
