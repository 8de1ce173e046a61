"""Own data, whole: recorded on an emulated arm, trained on, replayed, and what was trained moves that arm."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from jepa_arm_bringup.bag_recording import definition
from jepa_arm_bringup.terminal import parsed

import cli
from hardware.arm.config import load_arm_config
from hardware.arm.emulator.process import FakeArm
from hardware.robot import load_robot
from perception.lerobot.reader import LeRobotDataset

from ..perception.lerobot_format import read_whole
from .conftest import STARTS_WITHIN_S
from .up_command import ROOT, Up
from .walk import Walk

pytestmark = [pytest.mark.ros, pytest.mark.timeout(400)]

ROBOT = load_robot("so101")
KEY = "observation.images.front"
PICTURES_S = 60
RECORDS_WITHIN_S = 120.0
# Enough to run through every part of the training; nothing can be learned in it.
FEW_STEPS = """
{block: 1, window: 5, horizon: 2, max_steps: 8, latent_dim: 16, batch: 16, together: 4, steps: 10,
 head_steps: 10, head_batch: 64, head_views: 1, monitor_every: 10}
"""
STARTS = 4
# Commands of the page whose tests are elsewhere: they ask a person, or run in the simulator (test_pursue).
ELSEWHERE = (
    "doctor",
    "fake-arm",
    "calibrate arm",
    "calibrate camera",
    "record --robot so101 --arm $ARM --port $PORT --camera $CAMERA --by keyboard",
    "up --robot so101 --arm $ARM --port $PORT --arm-only",
    "record --by play --seconds 100 --episodes 1 --out data/film",
    "up --task push",
    "snapshot cube.png --new-scene 7",
    "pursue cube.png",
)
# What a command says when it was held up, or what it listens to was: a busy machine's fault, none of its own.
PAUSES = (
    "sends no joint states",
    "no joint state for",
    "last accepted",
    "camera image behind the command is too old",
    "held up for",
    "sends no pictures",
    "no picture came",
)
Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[FakeArm]:
    """An SO-101 on a pty at home, and a camera that plays a film."""
    film(tmp_path / "camera.mp4")
    home = {joint.name: joint.home for joint in ROBOT.joints}
    with FakeArm(load_arm_config("so101-feetech"), home) as arm:
        yield arm


def film(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width = stream.height = 128
        stream.pix_fmt = "yuv420p"
        for i in range(30 * PICTURES_S):
            picture = np.full((128, 128, 3), 60, np.uint8)
            picture[20:40, i % 100 : i % 100 + 20] = (220, 120, 30)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Run]:
    """Starts a command of jepa-arm as a user does; it is ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "cli", *arguments]
        started.append(
            subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def output_of(process: subprocess.Popen[str], code: int = 0) -> str:
    output = process.communicate(timeout=RECORDS_WITHIN_S)[0]
    assert process.returncode == code, output
    return output


def undisturbed(start: Run, *arguments: str) -> str:
    """All that the command printed until it ran through. At a pause of this machine the gate stops the arm,
    and the command ends: whoever reads that this was why starts it again, as is done here.
    """
    said = ""
    for _ in range(STARTS):
        process = start(*arguments)
        now = process.communicate(timeout=RECORDS_WITHIN_S)[0]
        said += now
        if process.returncode == 0:
            return said
        assert process.returncode == 2 and paused(now), said
    raise AssertionError(said)


def paused(said: str) -> bool:
    """Whether a command ended because this machine was busy; what it said is shown if the test fails."""
    print(said)
    return any(pause in said for pause in PAUSES)


def kill_while_recording(start: Run, data: Path, *arguments: str) -> int:
    """Kills the command some four seconds into an episode, whose number it returns."""
    for _ in range(STARTS):
        process = start(*arguments)
        deadline = time.monotonic() + RECORDS_WITHIN_S
        while process.poll() is None and time.monotonic() < deadline:
            for rows in data.glob(".recording/episode-*/rows.arrows"):
                if rows.stat().st_size > 12_000:
                    process.kill()
                    return int(rows.parent.name.rpartition("-")[2])
            time.sleep(0.05)
        said = process.communicate(timeout=1.0)[0]
        assert paused(said), said
    raise AssertionError("no recording went on for long enough")


def test_the_first_arms_page_from_scan_to_pursuit_on_the_emulated_arm(
    desk: FakeArm, start: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data, run, bundle = tmp_path / "data", tmp_path / "run", tmp_path / "bundle"
    walk = Walk(
        {
            "$PORT": desk.path,
            "$CAMERA": f"file:{tmp_path / 'camera.mp4'}",
            "$ARM": "feetech",
            "data/push": str(data),
            "runs/push": str(run),
            "runs/push/data": str(run / "data"),
            "models/push": str(bundle),
            "look.png": str(tmp_path / "look.png"),
            "goal.png": str(tmp_path / "goal.png"),
        }
    )
    walk.leave(ELSEWHERE)
    assert cli.main(walk.take("scan")) == 0 and "6 feetech servos" in capfd.readouterr().out
    assert cli.main(walk.take("cameras --show", seconds=0.5)) == 0
    assert cli.main(walk.take("cameras")) == 0

    # A first recording is killed after some four seconds, the second one finishes its episode.
    record = walk.take("record --robot", "--by play", seed=1, seconds=600)
    cut = kill_while_recording(start, data, *record)
    before = desk.positions()
    again = [*record, "--seconds", "4", "--episodes", "1", "--seed", "2"]
    said = undisturbed(start, *again)
    assert f"of episode {cut}, which was cut" in said and ": 4.0 s" in said

    rows = read_whole(data)
    dataset = LeRobotDataset(data)
    last = len(dataset) - 1
    assert dataset.length(cut) >= 75 and dataset.length(last) == 120
    assert dataset.info.features["action"].axis_names == ROBOT.joint_names
    assert rows[0][KEY].shape == (128, 128, 3)
    moved = np.ptp([row["observation.state"] for row in rows], axis=0)
    assert moved[:2].max() > 0.1, "play hardly moved the arm"
    truly = {joint: servo for servo in load_arm_config("so101-feetech").servos for joint in [servo.joint]}
    at = [truly[name].position(before[truly[name].id]) for name in ROBOT.joint_names]
    first_of_second = dataset.numbers(cut + 1, "observation.state")[0]
    assert np.abs(np.array(at) - first_of_second).max() < 0.1, "recorded joints are not where the arm is"

    # What was sent, sent again, brings the arm along the same way.
    said = undisturbed(start, *walk.take("replay", episode=last))
    assert "moving to where the episode begins, slowly" in said and "tracking error" in said
    ended = [truly[name].position(desk.positions()[truly[name].id]) for name in ROBOT.joint_names]
    assert np.abs(np.array(ended) - dataset.numbers(last, "action")[-1]).max() < 0.05

    (tmp_path / "few.yaml").write_text(FEW_STEPS)
    assert cli.main(walk.take("train", config=tmp_path / "few.yaml")) == 0
    assert cli.main(walk.take("export")) == 0, capfd.readouterr().err
    assert "then jepa-arm pursue" in capfd.readouterr().out.splitlines()[-1]

    # The bundle drives the arm that it was trained on, towards a picture of this very camera.
    up = Up(*walk.take("up", "--bundle", planner="mode1")[1:])
    try:
        up.wait_for("ready", STARTS_WITHIN_S)
        domain = str(up.domain_id)
        here = {"domain_id": domain}
        assert cli.main(walk.take("status", **here)) == 0 and "arm loop: 100 Hz" in capfd.readouterr().out
        assert cli.main(walk.take("snapshot goal.png", **here)) == 0
        bag = tmp_path / "arm.mcap"
        recorded = start("bag", "record", "--out", str(bag), "--domain-id", domain, "--seconds", "6")
        reset = walk.take("stop --reset", **here)
        assert decisions(start, walk.take("pursue goal.png", timeout=3, **here), reset) >= 3
        assert "messages of" in output_of(recorded)
        assert cli.main(walk.take("stop", **here)) == 0
        assert f"ROS domain {domain}: " in capfd.readouterr().out
        assert up.end(signal.SIGINT) == 130
    finally:
        up.kill_all()

    of_bag = tmp_path / "of_bag"
    assert cli.main(["bag", "to-dataset", str(bag), "--out", str(of_bag), "--robot", "so101"]) == 0
    assert len(read_whole(of_bag)) >= 30

    assert not walk.left, "the page has commands that nobody runs"


def decisions(start: Run, pursue: list[str], reset: list[str]) -> int:
    """How many the planner made for the arm, which a pause of this machine may stop at first."""
    for _ in range(STARTS):
        process = start(*pursue)
        said = process.communicate(timeout=RECORDS_WITHIN_S)[0]
        assert process.returncode in (0, 1), said
        if found := re.search(r"(\d+) decisions.*energy \d", said.splitlines()[-1]):
            return int(found.group(1))
        assert paused(said), said
        assert cli.main(reset) == 0
    raise AssertionError(said)


def test_what_does_not_fit_together_is_told_before_anything_starts(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "data")
    told = {
        ("record", "--out", out, "--by", "play"): "--by play needs --seconds",
        ("record", "--out", out, "--by", "leader"): "--by leader needs --leader",
        ("record", "--out", out, "--arm", "feetech"): "--arm needs --robot",
        ("record", "--out", out, "--camera", "realsense"): "the simulator brings its own camera",
        ("replay", out): "holds no meta/info.json",
        ("bag", "to-dataset", str(tmp_path / "none.mcap"), "--out", out, "--robot", "so101"): "No such file",
    }
    for arguments, words in told.items():
        assert cli.main(arguments) == 2
        assert words in capfd.readouterr().err


def test_keys_of_a_terminal_are_told_apart() -> None:
    pressed = b"\x1b[A\x1b[Dw\x1bOB\nq"
    assert parsed(pressed) == ["up", "left", "w", "down", "enter", "q"]


def test_a_bag_says_what_its_messages_are_made_of() -> None:
    text = definition("trajectory_msgs/msg/JointTrajectory")
    assert text.startswith("#") or "std_msgs/Header header" in text
    for part in ("std_msgs/Header", "builtin_interfaces/Time", "trajectory_msgs/JointTrajectoryPoint"):
        assert text.count(f"MSG: {part}\n") == 1
