"""A recording whose gate stops: what was recorded is kept, and only a person resets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from jepa_arm_bringup.errors import GraphError
from jepa_arm_bringup.recording import Recorder, Wanted
from jepa_arm_interfaces.msg import SafetyStatus

from hardware.arm.contract import JointCommand, JointState
from hardware.camera.contract import Frame
from hardware.robot import load_robot
from hardware.safety.status import Reason
from perception.lerobot.layout import Recording
from perception.lerobot.reader import read_episodes
from perception.lerobot.writer import DatasetWriter

ROBOT = load_robot("so101")
FPS = 30
EPISODE_ROWS = 15
ENOUGH = 100  # turns in which every recording here has ended


class Desk:
    """In place of an ArmClient: an arm that rests, `pictures` a turn, a gate that stops at `stops_at`."""

    def __init__(
        self, stops_at: int = ENOUGH, reason: Reason = Reason.COMMAND_STALE, pictures: int = 1
    ) -> None:
        self.stops_at, self.reason, self.pictures = stops_at, reason, pictures
        self.turn = self.resets = 0
        self.state = JointState(ROBOT.joint_names, ROBOT.home, np.zeros_like(ROBOT.home), 0)
        self.safety = SafetyStatus()
        self.on_state: Callable[..., None] = lambda state: None
        self.on_setpoint: Callable[..., None] = lambda names, positions, at_ns: None
        self.on_frame: Callable[..., None] = lambda frame: None

    @property
    def stopped(self) -> bool:
        return self.safety.state == SafetyStatus.STOPPED

    def wait_ready(self) -> JointState:
        return self.state

    def spin(self, seconds: float) -> None:
        self.turn += 1
        assert self.turn < ENOUGH, "the recording does not end"
        if self.turn == self.stops_at:
            self.safety = SafetyStatus(
                state=SafetyStatus.STOPPED, reason=self.reason.value, text=self.reason.text
            )
        for i in range(self.pictures):
            self._show(round((self.turn * self.pictures + i) * 1e9 / FPS))

    def _show(self, now_ns: int) -> None:
        self.state = JointState(ROBOT.joint_names, self.state.positions, self.state.velocities, now_ns)
        self.on_state(self.state)
        self.on_setpoint(ROBOT.joint_names, self.state.positions, now_ns)
        size = (ROBOT.camera.height, ROBOT.camera.width, 3)
        self.on_frame(Frame(np.full(size, self.turn, np.uint8), now_ns, ""))

    def send(self, command: JointCommand) -> None:
        assert not self.stopped, "a stopped gate is sent commands"

    def reset_safety(self) -> None:
        self.resets += 1
        self.safety = SafetyStatus()


class Onwards:
    """A source that never lets the arm rest."""

    help = "onwards"

    def press(self, key: str, now_s: float) -> None:
        pass

    def command(self, state: JointState, now_s: float) -> JointCommand:
        velocities = np.full_like(state.positions, 0.01)
        return JointCommand(state.names, state.positions, velocities, 0.1, state.stamp_ns)

    def close(self) -> None:
        pass


class Keys:
    """In place of a Terminal: keys by the turn of `desk` at which they are pressed."""

    def __init__(self, desk: Desk, pressed: dict[int, str]) -> None:
        self.desk, self.pressed = desk, pressed

    def keys(self) -> list[str]:
        return [key] if (key := self.pressed.pop(self.desk.turn, None)) else []


def record(desk: Desk, folder: Path, wanted: Wanted, keys: dict[int, str] | None = None) -> list[str]:
    """What the recorder tells until it ends. Raises what it raises."""
    mount = ROBOT.camera
    recording = Recording(ROBOT.name, ROBOT.joint_names, "front", mount.width, mount.height, FPS)
    writer = DatasetWriter.open(folder, recording)
    told: list[str] = []
    terminal = Keys(desk, keys or {})
    Recorder(ROBOT, desk, Onwards(), writer, terminal, wanted, lambda: "", told.append).run()  # type: ignore
    return told


@pytest.mark.parametrize("reason", [Reason.COMMAND_STALE, Reason.IMAGE_STALE, Reason.OPERATOR_STOP])
@pytest.mark.parametrize(
    "stops_at, rows",
    [
        pytest.param(1, [], id="before the first row"),
        pytest.param(9, [8], id="in an episode"),
        pytest.param(16, [15], id="with its last row"),
        pytest.param(17, [15], id="on the way to rest"),
        pytest.param(25, [15, 7], id="in the second episode"),
    ],
)
def test_play_ends_when_the_gate_stops_and_does_not_reset_it(
    tmp_path: Path, stops_at: int, rows: list[int], reason: Reason
) -> None:
    desk = Desk(stops_at, reason)
    wanted = Wanted("push", episodes=3, seconds=EPISODE_ROWS / FPS, automatic=True)
    with pytest.raises(GraphError, match=f"the gate stopped the arm: {reason.text}") as ended:
        record(desk, tmp_path, wanted)
    assert desk.stopped and desk.resets == 0
    assert [episode["length"] for episode in read_episodes(tmp_path)] == rows
    assert f"episodes added to {tmp_path}: {len(rows)}. " in str(ended.value)


def test_what_a_stop_cuts_is_kept_with_its_reason_and_a_persons_enter_goes_on(tmp_path: Path) -> None:
    desk = Desk(stops_at=12)
    wanted = Wanted("push", episodes=None, seconds=None, automatic=False)
    told = record(desk, tmp_path, wanted, {1: "enter", 16: "enter", 30: "q"})
    stopped, ended = told[1:]
    assert stopped == f"episode 0: 0.3 s; the gate stopped the arm: {Reason.COMMAND_STALE.text}"
    assert ended.startswith("episode 1: 0.4 s")
    assert desk.resets == 1
    assert [episode["length"] for episode in read_episodes(tmp_path)] == [10, 13]


def test_an_episode_is_as_long_as_asked_though_pictures_come_several_at_once(tmp_path: Path) -> None:
    wanted = Wanted("push", episodes=2, seconds=EPISODE_ROWS / FPS, automatic=True)
    record(Desk(pictures=5), tmp_path, wanted)
    assert [episode["length"] for episode in read_episodes(tmp_path)] == [EPISODE_ROWS] * 2
