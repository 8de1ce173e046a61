"""fake-arm, scan and calibrate as a user runs them."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hardware.arm.config import load_arm_config

from .conftest import BUSES, Desk

ROOT = Path(__file__).parents[3]
ENDS_WITHIN_S = 60.0


def jepa_arm(*arguments: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=ENDS_WITHIN_S, input=stdin
    )


class FakeArm:
    """`jepa-arm fake-arm`, its input and its output."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "cli", "fake-arm", *map(str, arguments)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self.unread = b""

    def say(self, words: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(words.encode() + b"\n")

    def line(self) -> str:
        assert self.process.stdout is not None
        while b"\n" not in self.unread:
            with selectors.DefaultSelector() as selector:
                selector.register(self.process.stdout, selectors.EVENT_READ)
                assert selector.select(ENDS_WITHIN_S), "fake-arm says nothing"
            read = self.process.stdout.read(4096)
            assert read, "fake-arm has ended"
            self.unread += read
        line, _, self.unread = self.unread.partition(b"\n")
        return line.decode()

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=ENDS_WITHIN_S)
        return self.process.returncode


@pytest.fixture
def fake_arm() -> Iterator[Callable[..., FakeArm]]:
    started: list[FakeArm] = []

    def start(*arguments: object) -> FakeArm:
        started.append(FakeArm(*arguments))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


@pytest.mark.parametrize("bus", BUSES)
def test_fake_arm_is_found_by_scan_and_breaks_when_told(
    fake_arm: Callable[..., FakeArm], tmp_path: Path, bus: str
) -> None:
    link = tmp_path / "arm"
    arm = fake_arm("--bus", bus, "--link", link, "--faults", "temperature:2=55")
    path = arm.line()
    assert os.path.realpath(link) == path
    found = jepa_arm("scan", "--bus", bus, "--port", link)
    assert found.returncode == 0, found.stderr
    assert f"6 {bus} servos at 1000000 baud" in found.stdout and " 55 " in found.stdout

    arm.say("lost:4")
    arm.say("turn 1 2100")
    arm.say("turn one 2100")
    assert "one" in arm.line()
    arm.say("show")
    shown = [arm.line() for _ in range(6)]
    assert "servo 1 (shoulder_pan): +0.080 rad, torque off" in shown[0]
    assert f"5 {bus} servos" in jepa_arm("scan", "--bus", bus, "--port", path, "--baud", 1_000_000).stdout

    arm.say("cable")
    assert "the cable is pulled" in arm.line()
    assert jepa_arm("scan", "--bus", bus, "--port", link).returncode == 2
    arm.say("clear")
    path = arm.line()
    assert os.path.realpath(link) == path
    assert f"6 {bus} servos" in jepa_arm("scan", "--bus", bus, "--port", link).stdout
    assert arm.end() == 130
    assert not link.is_symlink()


def test_scan_says_what_to_check_when_nothing_answers(fake_arm: Callable[..., FakeArm]) -> None:
    path = fake_arm("--bus", "feetech").line()
    wrong = jepa_arm("scan", "--bus", "feetech", "--port", path, "--baud", 500_000)
    assert wrong.returncode == 2
    assert "no feetech servo answers" in wrong.stderr and "power supply" in wrong.stderr


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--bus", "feetech", "--faults", "explode:1"), "no such kind; there are lost, silent"),
        (("--bus", "feetech", "--faults", "lost"), "name the servo, as in lost:3"),
        (("--bus", "feetech", "--faults", "lost:17"), "no servo 17; there are [1, 2, 3, 4, 5, 6]"),
        (("--bus", "feetech", "--faults", "lost=x"), "write it as KIND[:ID][=VALUE][@START][+DURATION]"),
        (("--bus", "feetech", "--robot", "r2d2"), "no arm file for robot 'r2d2' on bus feetech"),
    ],
)
def test_fake_arm_refuses_in_one_line(arguments: tuple[str, ...], words: str) -> None:
    ended = jepa_arm("fake-arm", *arguments)
    assert ended.returncode == 2 and words in ended.stderr and len(ended.stderr.splitlines()) == 1


def test_fake_arm_lists_its_faults() -> None:
    listed = jepa_arm("fake-arm", "--bus", "feetech", "--list-faults")
    assert listed.returncode == 0 and len(listed.stdout.splitlines()) >= 12


@contextmanager
def turned_by_hand(desk: Desk, low: float, high: float, still: tuple[int, ...] = ()) -> Iterator[None]:
    """Someone turns every joint to and fro between two ticks, and lets go at the end."""
    done = threading.Event()
    home = desk.port.positions()

    def turn() -> None:
        while not done.wait(0.02):
            phase = time.monotonic() * 2 % 2
            for servo_id in desk.config.ids:
                if servo_id not in still and not desk.port.torques()[servo_id]:
                    desk.port.turn(servo_id, home[servo_id] + (low if phase < 1 else high))

    hand = threading.Thread(target=turn, daemon=True)
    hand.start()
    try:
        yield
    finally:
        done.set()
        hand.join()


@pytest.mark.parametrize("bus", BUSES)
def test_calibrate_measures_zero_and_range_and_the_arm_then_uses_them(
    make_desk: Callable[..., Desk], tmp_path: Path, bus: str
) -> None:
    desk = make_desk(bus, connect=False)
    for servo_id in desk.config.ids:
        desk.port.turn(servo_id, 1900)  # where the joint's zero is; the arm file says 2048
    out = tmp_path / "mine.yaml"
    command = [sys.executable, "-m", "cli", "calibrate", "arm", "--bus", bus, "--robot", desk.config.robot]
    command += ["--port", desk.port.path, "--out", str(out)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n\n")
    process.stdin.flush()
    output = ""
    while "press Enter.\n" not in output.partition("Move every joint")[2]:
        read = process.stdout.readline()
        assert read, output
        output += read
    with turned_by_hand(desk, -600, 800):
        time.sleep(2.5)  # a whole swing and more
        process.stdin.write("\n")
        process.stdin.flush()
        output += process.communicate(timeout=ENDS_WITHIN_S)[0]
    assert process.returncode == 0, output
    assert f"wrote {out}" in output

    measured = load_arm_config(out)
    servo = measured.servos[0]
    assert servo.zero_ticks == (2048 if bus == "feetech" else 1900)
    assert servo.lower == pytest.approx(-600 * 2 * 3.14159265 / 4096 + 0.02, abs=0.003)
    assert servo.upper == pytest.approx(800 * 2 * 3.14159265 / 4096 - 0.02, abs=0.003)
    desk.config = measured
    for servo_id in measured.ids:
        desk.port.turn(servo_id, 1900 + 100)
    desk.arm = type(desk.arm)(measured, desk.port.path)
    desk.arm.connect()
    assert desk.arm.state().positions[0] == pytest.approx(100 * 2 * 3.14159265 / 4096, abs=0.002)


def test_calibrate_names_a_joint_that_was_not_moved(make_desk: Callable[..., Desk], tmp_path: Path) -> None:
    desk = make_desk("feetech", connect=False)
    out = tmp_path / "mine.yaml"
    command = ("calibrate", "arm", "--port", desk.port.path, "--out", out, "--yes", "--range-s", 2.5)
    with turned_by_hand(desk, -600, 800, still=(4,)):
        ended = jepa_arm(*command)
    assert ended.returncode == 2 and "servo 4 (wrist_flex): moved by 0.00 rad only" in ended.stderr
    assert not out.exists()
