"""The arm driver on healthy servos: the contract, limits, and what ends a motion."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest
from rustypot import Xl330PyController

from hardware.arm.contract import JointCommand, check_arm
from hardware.errors import ArmError

from .conftest import BUSES, Desk

MOST_S = 0.2


@pytest.mark.parametrize("bus", BUSES)
def test_it_keeps_the_contract(make_desk: Callable[..., Desk], bus: str) -> None:
    check_arm(make_desk(bus, connect=False).arm)


def test_connecting_moves_nothing(desk: Desk) -> None:
    desk.wait(lambda: desk.count("reads") > 10, "ten readings")
    assert np.abs(desk.positions()).max() < 1e-9
    assert all(desk.port.torques().values())


def test_joints_go_where_they_are_sent_whatever_the_order_of_the_names(desk: Desk) -> None:
    names, target = desk.config.joint_names[::-1], np.linspace(0.02, 0.12, 6)
    sent = desk.arm.command(JointCommand(names, target, np.zeros(6), 0.05, 7))
    assert sent.names == names and sent.stamp_ns == 7
    assert np.abs(sent.positions - target).max() < 0.001  # half a tick
    arrived = desk.drive_to(target[::-1])
    assert np.abs(arrived.positions[::-1] - sent.positions).max() < 1e-9
    desk.wait(lambda: np.abs(desk.arm.state().positions - arrived.positions).max() < 1e-6, "it is measured")


def test_a_direction_and_a_gear_ratio_turn_a_servo_the_other_way_and_further(make_desk) -> None:
    config = make_desk("feetech", connect=False).config
    servos = [servo.model_dump() for servo in config.servos]
    servos[0] |= {"direction": -1, "gear_ratio": 1.5, "lower": -1.0, "upper": 1.0}
    desk = make_desk("feetech", servos=servos)
    before = desk.port.positions()
    sent = desk.drive_to(np.full(len(servos), 0.1))
    desk.wait(lambda: np.abs(desk.arm.state().positions - sent.positions).max() < 1e-6, "it is measured")
    turned = {i: at - before[i] for i, at in desk.port.positions().items()}
    assert turned[1] == pytest.approx(-1.5 * turned[2], abs=2)


def test_a_slow_command_is_a_slow_motion(desk: Desk) -> None:
    desk.command(np.full(6, 0.1), duration_s=0.5)
    desk.wait(lambda: desk.speed() > 0.15, "the arm moves")
    assert desk.speed() < 0.25, "0.1 rad in 0.5 s"


@pytest.mark.parametrize("far", [-30.0, 30.0])
def test_no_command_passes_a_limit_or_runs_ahead_of_the_joint(desk: Desk, far: float) -> None:
    wanted = np.full(len(desk.config.servos), far)
    lower = np.array([servo.lower for servo in desk.config.servos])
    upper = np.array([servo.upper for servo in desk.config.servos])

    def pushes() -> bool:
        time.sleep(0.01)
        sent = desk.command(wanted).positions
        assert np.all(sent >= lower - 0.001) and np.all(sent <= upper + 0.001)
        assert np.abs(sent - desk.arm.state().positions).max() < desk.config.max_lead + 0.1
        assert np.all(np.abs(desk.velocities()) <= 3.1)
        return bool(np.abs(desk.positions() - (lower if far < 0 else upper)).max() < 0.002)

    desk.wait(pushes, "the joints are at their limits")
    assert desk.arm.fault is None


def test_what_is_no_command_is_not_sent(desk: Desk) -> None:
    names, zero = desk.config.joint_names, np.zeros(6)
    for bad, words in (
        (JointCommand(names, np.array([0.1, np.nan, 0, 0, 0, 0]), zero, 0.1, 0), "finite"),
        (JointCommand(names, np.array([0.1, np.inf, 0, 0, 0, 0]), zero, 0.1, 0), "finite"),
        (JointCommand(names, zero[:5] + 0.1, zero[:5], 0.1, 0), "one finite position for each joint"),
        (JointCommand(names[:5], zero[:5] + 0.1, zero[:5], 0.1, 0), "this arm has"),
        (JointCommand((*names[:5], "tail"), zero + 0.1, zero, 0.1, 0), "tail"),
        (JointCommand((*names[:5], names[0]), zero + 0.1, zero, 0.1, 0), "this arm has"),
        (JointCommand(names, zero + 0.1, zero, 0.0, 0), "duration"),
        (JointCommand(names, zero + 0.1, zero, np.nan, 0), "duration"),
    ):
        with pytest.raises(ArmError, match=words):
            desk.arm.command(bad)
    reads = desk.count("reads")
    desk.wait(lambda: desk.count("reads") > reads + 5, "five readings")
    assert np.abs(desk.positions()).max() < 1e-9


def test_it_rests_within_200_ms_when_commands_cease(desk: Desk) -> None:
    desk.start_moving()
    desk.stop_moving()
    assert desk.seconds_until_rest() <= MOST_S
    assert desk.arm.fault is None
    desk.start_moving()


def test_a_long_command_that_nobody_repeats_is_not_followed_to_its_end(desk: Desk) -> None:
    desk.command(np.full(6, 0.15), duration_s=3.0)
    desk.wait(lambda: desk.speed() > 0.02, "the arm moves")
    desk.seconds_until_rest()
    assert np.abs(desk.positions()).max() < 0.05, "a third of the way, after 1 s"


def test_stop_brakes_and_holds(desk: Desk) -> None:
    desk.start_moving()
    desk.stop_moving()
    desk.arm.stop()
    assert desk.seconds_until_rest() <= MOST_S
    at = desk.positions()
    desk.wait(lambda: desk.count("reads") > 5, "it goes on reading")
    assert np.abs(desk.positions() - at).max() < 0.01


def test_states_are_fresh_and_their_stamps_only_grow(desk: Desk) -> None:
    stamps = []
    desk.wait(
        lambda: stamps.append(desk.arm.state().stamp_ns) or len(set(stamps)) >= 20, "twenty different states"
    )
    assert stamps == sorted(stamps)
    assert abs(stamps[-1] - time.time_ns()) < 1e9
    desk.arm.disconnect()
    with pytest.raises(ArmError, match="not connected"):
        desk.arm.state()


@pytest.mark.parametrize("bus", BUSES)
def test_the_arm_rests_when_the_driver_is_killed(make_desk: Callable[..., Desk], bus: str) -> None:
    """Dynamixel servos have a watchdog; Feetech servos have a goal that is never far away."""
    desk = make_desk(bus, connect=False)
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, bus, desk.port.path], stdout=subprocess.PIPE, text=True
    )
    try:
        assert driver.stdout is not None and driver.stdout.readline() == "connected\n"
        desk.wait(lambda: desk.speed() > 0.5, "the arm moves")
        os.kill(driver.pid, signal.SIGKILL)
        at = desk.positions()
        assert desk.seconds_until_rest() <= 2 * MOST_S
        assert np.abs(desk.positions() - at).max() <= desk.config.max_lead + 0.1
        if bus == "dynamixel":
            time.sleep(0.2)  # the watchdog's 160 ms
            servos = Xl330PyController(desk.port.path, 1_000_000, 0.1)
            assert set(servos.sync_read_bus_watchdog([1, 6])) == {255}
    finally:
        driver.kill()
        driver.communicate()


DRIVER = """
import sys, time, numpy as np
from hardware.arm.config import arm_file, load_arm_config
from hardware.arm.contract import JointCommand
from hardware.arm.servo_arm import ServoArm
config = load_arm_config(arm_file("", sys.argv[1]))
arm = ServoArm(config, sys.argv[2])
arm.connect()
print("connected", flush=True)
began = time.monotonic()
while True:
    target = np.full(6, np.sin(time.monotonic() - began))
    arm.command(JointCommand(config.joint_names, target, np.zeros(6), 0.01, 0))
    time.sleep(0.01)
"""
