"""Every kind of fault, brought about on the emulator: it ends as the table in docs/arms.md says."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rustypot import Sts3215PyController

from hardware.arm.emulator.faults import KINDS
from hardware.arm.monitor import FAULTS
from hardware.errors import ArmError

from .conftest import BUSES, Desk

MANUAL = Path(__file__).parents[3] / "docs" / "arms.md"
MOST_S = 0.2
# A busy machine makes the emulator late; what is survived here is one bad answer, not a machine without time.
PATIENT = {"max_silence_s": 0.3}

SURVIVED = (
    "checksum:3",
    "wrong_id:3",
    "truncated:3",
    "garbage:3",
    "glitch:3",
    "glitch:3=2",
    "silent:3+0.03",
    "slow:3=5+0.3",
)
STOPPED = {
    "lost:3": ("servo_lost", "servo 3 (elbow_flex) does not answer", "check its cable and the power supply"),
    "silent:3": ("servo_lost", "servo 3 (elbow_flex) does not answer", "check its cable"),
    "checksum:3=1000": ("servo_lost", "servo 3 (elbow_flex) does not answer", "check its cable"),
    "slow:3=33": ("servo_lost", "servo 3 (elbow_flex) does not answer", "check its cable"),
    "slow:3=80": ("servo_lost", "servo 3 (elbow_flex) does not answer", "check its cable"),
    "reset:3": ("servo_reset", "servo 3 (elbow_flex) has restarted", "the supply broke down"),
    "overload:3": ("overload", "servo 3 (elbow_flex) says that it is overloaded", "free the joint"),
    "overcurrent:3=1800": ("overcurrent", "servo 3 (elbow_flex) draws too much current", "free the joint"),
    "temperature:3=66": ("overheated", "servo 3 (elbow_flex) is too hot (66 °C)", "let it cool down"),
    "temperature:3=80": ("overheated", "servo 3 (elbow_flex) is too hot (80 °C)", "let it cool down"),
    "voltage:3=3.5": ("voltage", "servo 3 (elbow_flex) has a wrong supply voltage (3.5 V)", "power supply"),
    "stuck:3": ("blocked", "servo 3 (elbow_flex) does not follow", "free the joint"),
    "jump:3=400": ("position_jump", "servo 3 (elbow_flex) measures a position", "calibrate arm"),
    "noise:3": (
        "position_noise",
        "servo 3 (elbow_flex) measures positions that contradict",
        "check its cable",
    ),
    "cable": ("port_gone", "the serial port is gone", "plug the USB cable in again"),
}
# These take longer to be sure of, and meanwhile the arm does as it is told.
SLOW_TO_TELL = ("overcurrent:3=1800", "stuck:3")


def test_every_kind_of_fault_is_tested_here() -> None:
    tested = {words.partition(":")[0] for words in (*SURVIVED, *STOPPED)}
    assert tested == set(KINDS) and len(KINDS) >= 12


def test_the_manual_has_every_fault_and_says_it_in_the_same_words() -> None:
    manual = MANUAL.read_text()
    faults = manual.partition("## Faults")[2].partition("\n## ")[0]
    assert [kind for kind in KINDS if f"`{kind}`" not in faults] == []
    assert [fault.what for fault in FAULTS.values() if f"`{fault.what}`" not in faults] == []
    assert [
        path for path in re.findall(r"\]\(([^)#:]+)\)", manual) if not (MANUAL.parent / path).exists()
    ] == []


@pytest.mark.parametrize("words", SURVIVED)
@pytest.mark.parametrize("bus", BUSES)
def test_it_is_survived(make_desk: Callable[..., Desk], bus: str, words: str) -> None:
    desk = make_desk(bus, **PATIENT)
    desk.start_moving()
    spoiled = desk.count("bad_reads") + desk.count("untrusted_reads")
    desk.port.inject(words)
    if not words.startswith("slow"):
        desk.wait(
            lambda: desk.count("bad_reads") + desk.count("untrusted_reads") > spoiled, "it has been noticed"
        )
    reads = desk.count("reads")
    desk.wait(lambda: desk.count("reads") > reads + 20, "twenty readings more")
    assert desk.arm.fault is None and not desk.refusals
    desk.wait(lambda: desk.speed() > 0.5, "the arm goes on")
    desk.stop_moving()
    desk.seconds_until_rest()
    desk.wait(
        lambda: np.abs(desk.arm.state().positions - desk.positions()).max() < 0.002, "it measures truly"
    )


@pytest.mark.parametrize("words", STOPPED)
@pytest.mark.parametrize("bus", BUSES)
def test_the_arm_is_stopped_and_says_what_to_do(make_desk: Callable[..., Desk], bus: str, words: str) -> None:
    desk = make_desk(bus)
    desk.start_moving()
    desk.port.inject(words)
    if words not in SLOW_TO_TELL:
        took_s = desk.seconds_until_rest()
        assert took_s <= MOST_S, f"at rest after {took_s:.3f} s"
    text = desk.wait_for_fault()
    kind, what, mend = STOPPED[words]
    assert desk.arm.fault.kind == kind and what in text and mend in text
    assert desk.arm.diagnostics()["fault"] == text

    desk.seconds_until_rest()
    desk.wait(lambda: desk.refusals, "commands are refused")
    assert text in desk.refusals[-1]
    with pytest.raises(ArmError, match="the arm is stopped"):
        desk.arm.state()
    at = desk.positions()
    time.sleep(0.1)  # while it is still being commanded
    assert np.abs(desk.positions() - at).max() < 0.02, "a stopped arm moves"
    for position, servo in zip(at, desk.config.servos):
        assert servo.joint == "elbow_flex" or servo.lower - 0.01 <= position <= servo.upper + 0.01

    desk.stop_moving()
    recover(desk, words)


def recover(desk: Desk, words: str) -> None:
    """Mend what is broken, connect again: the arm goes on from where it is measured."""
    desk.port.clear()
    desk.arm.port = desk.port.path
    if "dynamixel" in desk.config.bus and words.startswith(("overload", "temperature:3=80")):
        with pytest.raises(ArmError, match="servo 3"):
            desk.arm.connect()  # its shutdown lasts until it is powered off and on
        desk.port.inject("reset:3")
    desk.arm.connect()
    at = desk.positions()
    desk.wait(lambda: np.abs(desk.arm.state().positions - at).max() < 0.02, "it measures truly")
    assert desk.arm.fault is None and all(desk.port.torques().values())
    desk.start_moving()


@pytest.mark.parametrize("bus", BUSES)
def test_on_fault_decides_whether_the_others_hold_or_let_go(make_desk: Callable[..., Desk], bus: str) -> None:
    for choice, fault, dead in (
        ("hold", "overload:3", 3),
        ("torque_off", "overload:3", 3),
        ("torque_off", "lost:1", 1),
    ):
        desk = make_desk(bus, on_fault=choice)
        desk.start_moving()
        desk.port.inject(fault)
        desk.wait_for_fault()
        wanted = {i: choice == "hold" and i != dead for i in desk.config.ids}
        desk.wait(lambda wanted=wanted, desk=desk: desk.port.torques() == wanted, choice)


@pytest.mark.parametrize("bus", BUSES)
def test_a_servo_that_restarted_is_not_moved_by_what_is_sent_next(
    make_desk: Callable[..., Desk], bus: str
) -> None:
    desk = make_desk(bus)
    desk.start_moving()
    desk.port.inject("reset:2")
    desk.wait_for_fault()
    desk.port.inject("reset:2")  # its goal is at its default again
    desk.seconds_until_rest()
    at = desk.positions()[1]
    time.sleep(0.15)
    assert desk.positions()[1] == pytest.approx(at) and not desk.port.torques()[2]
    if bus == "feetech":  # where it would go if its torque came back: nothing has been written since
        desk.stop_moving()
        desk.arm.disconnect()
        servos = Sts3215PyController(desk.port.path, 1_000_000, 0.1)
        assert servos.sync_read_raw_goal_position([2]) == [0]


@pytest.mark.parametrize("bus", BUSES)
def test_a_wrong_position_is_never_reported(make_desk: Callable[..., Desk], bus: str) -> None:
    desk = make_desk(bus, **PATIENT)
    desk.port.inject("glitch:3=2@0.1")
    reads = desk.count("reads")
    reported: list[float] = []
    desk.wait(
        lambda: reported.append(float(desk.arm.state().positions[2])) or desk.count("reads") > reads + 40,
        "forty readings",
    )
    assert np.abs(reported).max() < 0.01


@pytest.mark.parametrize("bus", BUSES)
def test_a_wrong_position_is_never_made_a_goal(make_desk: Callable[..., Desk], bus: str) -> None:
    desk = make_desk(bus, connect=False)
    desk.port.inject("glitch:3")
    desk.arm.connect()
    desk.wait(lambda: desk.count("reads") > 5, "five readings")
    assert np.abs(desk.positions()).max() < 1e-6, "connecting moved a joint"

    desk.start_moving()
    desk.stop_moving()
    at = desk.positions()
    desk.port.inject("glitch:3=2")
    desk.arm.stop()
    desk.seconds_until_rest()
    assert np.abs(desk.positions() - at).max() < 0.3, "700 ticks are 1.07 rad"


def test_a_servo_that_is_missing_at_connect_is_named(make_desk: Callable[..., Desk]) -> None:
    for bus in BUSES:
        desk = make_desk(bus, connect=False)
        desk.port.inject("lost:5")
        with pytest.raises(ArmError, match=r"servo 5 \(wrist_roll\) does not answer .*jepa-arm scan"):
            desk.arm.connect()
        assert not any(desk.port.torques().values()), "torque before every servo was checked"


@pytest.mark.parametrize("bus", BUSES)
def test_a_joint_found_outside_its_limits_is_refused(make_desk: Callable[..., Desk], bus: str) -> None:
    desk = make_desk(bus, connect=False)
    desk.port.inject("jump:1=1500")
    with pytest.raises(ArmError, match=r"servo 1 \(shoulder_pan\) is measured at 2.30 rad, outside"):
        desk.arm.connect()
    assert not any(desk.port.torques().values())


def test_a_port_that_is_not_there_is_one_clear_line(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk("feetech", connect=False)
    desk.arm.port = "/dev/nothing"
    with pytest.raises(ArmError, match="/dev/nothing does not open .*group dialout"):
        desk.arm.connect()


def test_the_wrong_baud_is_told_as_servos_that_do_not_answer(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk("feetech", connect=False)
    desk.arm.config = desk.config.model_copy(update={"baud": 500_000})
    with pytest.raises(ArmError, match="does not answer on .* at 500000 baud"):
        desk.arm.connect()
