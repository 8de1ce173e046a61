"""`jepa-arm record`, whole: a gamepad moves the arm, and what it refuses to begin with."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import cli
from hardware.arm.config import load_arm_config
from hardware.arm.emulator.process import FakeArm
from hardware.robot import load_robot
from perception.lerobot.reader import LeRobotDataset

from ..hardware.teleop.virtual_pad import DEAD_MAN, FULL, LEFT_X, VirtualPad, sdl2
from .hurried import hurried
from .test_own_data import PAUSES, film

pytestmark = [pytest.mark.ros, pytest.mark.timeout(400)]

FEETECH = load_arm_config("so101-feetech")
HOME = {joint.name: joint.home for joint in load_robot("so101").joints}
STARTS = 4


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """What is written into it is what the terminal's keys are."""
    end, keys = os.pipe()
    with os.fdopen(end) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        yield keys
    os.close(keys)


@pytest.fixture
def pad() -> Iterator[VirtualPad]:
    assert sdl2.SDL_InitSubSystem(sdl2.SDL_INIT_GAMECONTROLLER) == 0
    pad = VirtualPad("Pad")
    yield pad
    pad.unplug()
    sdl2.SDL_QuitSubSystem(sdl2.SDL_INIT_GAMECONTROLLER)


@contextlib.contextmanager
def held(pad: VirtualPad, axis: int) -> Iterator[None]:
    """While inside: a trembling hand holds the stick at its end, and lets go of the button now and then."""
    left = threading.Event()

    def hold() -> None:
        beat = 0
        while not left.wait(0.1):
            beat += 1
            pad.press(DEAD_MAN, beat % 10 != 0)
            pad.move(axis, FULL - beat % 2)

    hand = threading.Thread(target=hold)
    hand.start()
    try:
        yield
    finally:
        left.set()
        hand.join()


def test_a_gamepad_moves_the_arm_while_an_episode_is_recorded(
    keys: int, pad: VirtualPad, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    record = ["record", "--by", "gamepad", "--scene", "reach", "--speed", "0.05", "--out", str(data)]
    with hurried(("gate_node", "sim_node")), held(pad, LEFT_X):
        for _ in range(STARTS):
            os.write(keys, b"\n")
            assert cli.main([*record, "--seconds", "2", "--episodes", "1"]) == 0, capfd.readouterr().err
            said = capfd.readouterr().out
            if "the gate stopped the arm" not in said:  # a pause of this machine
                break
    assert "ready. Pad: hold the left shoulder button to move" in said
    dataset = LeRobotDataset(data)
    tools = dataset.numbers(len(dataset) - 1, "observation.tool")
    way = tools[-1] - tools[0]
    assert -0.11 < way[1] < -0.02 and np.abs(way[[0, 2]]).max() < 0.01


@pytest.mark.parametrize("by", ["keyboard", "leader"])
def test_an_arm_whose_tool_is_outside_its_workspace_is_not_moved(
    by: str, keys: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    film(tmp_path / "camera.mp4")
    with FakeArm(FEETECH, HOME | {"shoulder_pan": 1.5}) as arm, FakeArm(FEETECH, HOME) as leader:
        before = arm.positions()
        record = ["record", "--by", by, "--robot", "so101", "--arm", "feetech", "--port", arm.path]
        record += ["--camera", f"file:{tmp_path / 'camera.mp4'}", "--out", str(tmp_path / "data")]
        if by == "leader":
            record += ["--leader", "feetech", "--leader-port", leader.path]
        for _ in range(STARTS):
            os.write(keys, b"q")
            assert cli.main(record) == 2
            said = capfd.readouterr()
            if not any(pause in said.err for pause in PAUSES):
                break
        assert "outside the workspace of so101 (x 0.12 to 0.36" in said.err and "ready" not in said.out
        assert "the tool is at x 0.0" in said.err and "move it inside by hand" in said.err
        after = arm.positions()
        assert max(abs(after[servo] - before[servo]) for servo in before) < 5, "ticks"
