"""The emulated servos, byte by byte and on a clock that only the test moves."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.arm.emulator import dynamixel, feetech
from hardware.arm.emulator.bus import EmulatedBus
from hardware.arm.emulator.dynamixel import DynamixelBus, DynamixelServo
from hardware.arm.emulator.faults import parse_fault
from hardware.arm.emulator.feetech import FeetechBus, FeetechServo
from hardware.arm.emulator.shaft import Shaft
from hardware.errors import ArmError


def bus_of(name: str, ids: tuple[int, ...] = (1, 2, 3)) -> EmulatedBus:
    if name == "feetech":
        return FeetechBus([FeetechServo(servo_id) for servo_id in ids], 1_000_000)
    return DynamixelBus([DynamixelServo(servo_id) for servo_id in ids], 1_000_000)


def answers(bus: EmulatedBus, packet: bytes, now_s: float = 0.0) -> list[bytes]:
    return [reply.data for reply in bus.receive(packet, now_s)]


def feetech_read(servo_id: int, address: int, size: int) -> bytes:
    return feetech.packed(servo_id, feetech.READ, bytes([address, size]))


def feetech_write(servo_id: int, address: int, *data: int) -> bytes:
    return feetech.packed(servo_id, feetech.WRITE, bytes([address, *data]))


def dynamixel_read(servo_id: int, item: tuple[int, int]) -> bytes:
    address, size = item
    return dynamixel.packed(
        servo_id, dynamixel.READ, address.to_bytes(2, "little") + size.to_bytes(2, "little")
    )


def dynamixel_write(servo_id: int, item: tuple[int, int], value: int) -> bytes:
    data = item[0].to_bytes(2, "little") + (value % (1 << 8 * item[1])).to_bytes(item[1], "little")
    return dynamixel.packed(servo_id, dynamixel.WRITE, data)


# Packets, as the makers' documents show them


def test_feetech_packets_are_those_of_the_protocol_document() -> None:
    bus = bus_of("feetech")
    assert answers(bus, bytes.fromhex("ffff010201fb")) == [bytes.fromhex("ffff010200fc")]  # ping
    assert answers(bus, bytes.fromhex("ffff0104020301f4")) == [bytes.fromhex("ffff01030009f2")]  # read
    assert answers(bus, bytes.fromhex("ffff010201fa")) == [], "a wrong checksum is not answered"


def test_dynamixel_packets_are_those_of_the_e_manual() -> None:
    assert dynamixel.packed(1, dynamixel.PING, b"") == bytes.fromhex("fffffd00010300 01194e")
    read = dynamixel.packed(1, dynamixel.READ, bytes.fromhex("84000400"))
    assert read == bytes.fromhex("fffffd00010700 02840004001d15")
    status = dynamixel.packed(1, dynamixel.STATUS, bytes.fromhex("00a6000000"))
    assert status == bytes.fromhex("fffffd00010800 5500a60000008cc0")
    assert dynamixel.packed(1, dynamixel.WRITE, bytes.fromhex("740000020000")) == bytes.fromhex(
        "fffffd00010900 03740000020000ca89".replace(" ", "")
    )


@given(st.binary(max_size=40).map(lambda middle: b"\xff\xff\xfd" + middle + b"\xff\xff\xfd"))
def test_a_header_inside_a_dynamixel_packet_is_stuffed_and_comes_back(data: bytes) -> None:
    packet = dynamixel.packed(1, dynamixel.WRITE, data)
    assert b"\xff\xff\xfd\x00" not in packet[4:]
    assert packet[8:-2].replace(dynamixel.STUFFED, dynamixel.UNSTUFFED) == data


@pytest.mark.parametrize("name", ["feetech", "dynamixel"])
@given(noise=st.binary(max_size=60), cut=st.integers(0, 20))
def test_no_bytes_break_the_bus_and_a_packet_in_pieces_is_one(name: str, noise: bytes, cut: int) -> None:
    bus = bus_of(name)
    bus.receive(noise, 0.0)
    bus = bus_of(name)
    ping = feetech.packed(2, 1, b"") if name == "feetech" else dynamixel.packed(2, 1, b"")
    first = answers(bus, ping[:cut])
    assert len(first + answers(bus, ping[cut:])) == 1


@pytest.mark.parametrize("name", ["feetech", "dynamixel"])
def test_a_sync_read_is_answered_one_after_the_other(name: str) -> None:
    bus = bus_of(name)
    if name == "feetech":
        request = feetech.packed(0xFE, feetech.SYNC_READ, bytes([56, 2, 3, 1, 9]))
    else:
        request = dynamixel.packed(0xFE, dynamixel.SYNC_READ, bytes([132, 0, 4, 0, 3, 1, 9]))
    replies = bus.receive(request, 1.0)
    id_at = 2 if name == "feetech" else 4
    assert [reply.data[id_at] for reply in replies] == [3, 1], (
        "in the order asked, and none for who is not there"
    )
    assert 1.0 < replies[0].due_s < replies[1].due_s


# Registers


def test_feetech_settings_are_kept_over_a_brown_out_only_if_they_were_unlocked() -> None:
    bus = bus_of("feetech")
    bus.receive(feetech_write(1, feetech.MAX_TEMPERATURE, 55), 0.0)
    bus.receive(feetech_write(2, feetech.LOCK, 0) + feetech_write(2, feetech.MAX_TEMPERATURE, 55), 0.0)
    bus.receive(feetech_write(1, feetech.TORQUE_ENABLE, 1), 0.0)
    for words in ("reset:1", "reset:2"):
        bus.inject(parse_fault(words))
    bus.advance(0.1)
    assert bus.servos[1].get(feetech.MAX_TEMPERATURE, 1) == 70 and not bus.servos[1].torque
    assert bus.servos[2].get(feetech.MAX_TEMPERATURE, 1) == 55


def test_a_dynamixel_servo_refuses_what_the_e_manual_says_it_refuses() -> None:
    bus = bus_of("dynamixel")

    def error(packet: bytes, now_s: float = 0.0) -> int:
        (reply,) = answers(bus, packet, now_s)
        return reply[8]

    assert error(dynamixel_write(1, dynamixel.PRESENT_POSITION, 0)) == dynamixel.ERROR_ACCESS
    assert error(dynamixel_write(1, dynamixel.GOAL_POSITION, 5000)) == dynamixel.ERROR_LIMIT
    assert error(dynamixel_write(1, dynamixel.TORQUE_ENABLE, 1)) == 0
    assert error(dynamixel_write(1, dynamixel.OPERATING_MODE, 4)) == dynamixel.ERROR_ACCESS, "torque is on"
    spoilt = dynamixel_write(1, dynamixel.GOAL_POSITION, 2000)[:-1] + b"\x00"
    assert error(spoilt) == dynamixel.ERROR_CRC
    assert error(dynamixel.packed(1, 0x77, b"")) == dynamixel.ERROR_INSTRUCTION
    bus.inject(parse_fault("overload:1+0.05"))
    assert error(dynamixel_read(1, dynamixel.HARDWARE_ERROR), 0.02) == dynamixel.ALERT
    assert not bus.servos[1].torque
    assert error(dynamixel_write(1, dynamixel.TORQUE_ENABLE, 1), 0.2) & 0x7F, (
        "it has shut down until a reboot"
    )
    bus.receive(dynamixel.packed(1, dynamixel.REBOOT, b""), 0.3)
    assert error(dynamixel_write(1, dynamixel.TORQUE_ENABLE, 1), 0.3) == 0


def test_the_bus_watchdog_of_a_dynamixel_servo_stops_it_until_it_is_cleared() -> None:
    bus = bus_of("dynamixel")
    servo = bus.servos[1]
    for item, value in (
        (dynamixel.TORQUE_ENABLE, 1),
        (dynamixel.PROFILE_VELOCITY, 20),
        (dynamixel.BUS_WATCHDOG, 5),  # 100 ms
        (dynamixel.GOAL_POSITION, 4000),
    ):
        bus.receive(dynamixel_write(1, item, value), 0.0)
    for now_s in (0.05, 0.10, 0.15, 0.20):
        bus.receive(dynamixel.packed(2, dynamixel.PING, b""), now_s)  # any packet keeps it awake
    assert servo.shaft.velocity > 100
    bus.advance(0.25)
    bus.advance(0.35)
    assert servo.shaft.velocity == 0 and servo.at(dynamixel.BUS_WATCHDOG) == dynamixel.WATCHDOG_ERROR
    stopped = servo.shaft.position
    refused = answers(bus, dynamixel_write(1, dynamixel.GOAL_POSITION, 4000), 0.4)
    assert refused[0][8] == dynamixel.ERROR_RANGE
    bus.advance(1.0)
    assert servo.shaft.position == pytest.approx(stopped, abs=1.0)
    bus.receive(dynamixel_write(1, dynamixel.BUS_WATCHDOG, 0), 1.0)
    bus.receive(dynamixel_write(1, dynamixel.GOAL_POSITION, 4000), 1.0)
    bus.advance(1.2)
    assert servo.shaft.position > stopped + 20


def test_a_feetech_goal_beyond_the_angle_limits_ends_at_them() -> None:
    bus = bus_of("feetech")
    bus.receive(feetech_write(1, feetech.MAX_ANGLE_WORD, *(2500).to_bytes(2, "little")), 0.0)
    bus.receive(feetech_write(1, feetech.TORQUE_ENABLE, 1), 0.0)
    bus.receive(feetech_write(1, feetech.GOAL_WORD, *(4000).to_bytes(2, "little")), 0.0)
    bus.advance(3.0)
    assert bus.servos[1].shaft.position == 2500


# Motion


@given(
    start=st.floats(-2000, 2000),
    goal=st.floats(-2000, 2000),
    speed=st.floats(-800, 800),
    max_velocity=st.floats(200, 3000),
    acceleration=st.floats(1000, 40_000),
)
def test_a_shaft_keeps_its_limits_and_ends_at_its_goal(
    start: float, goal: float, speed: float, max_velocity: float, acceleration: float
) -> None:
    shaft = Shaft(start, math.copysign(min(abs(speed), max_velocity), speed))
    for _ in range(200):
        before = shaft.velocity
        shaft.advance(0.001, goal, max_velocity, acceleration, stuck=False)
        # The last step onto the goal may take twice as much: it ends the motion in one piece.
        assert abs(shaft.velocity - before) <= 2 * acceleration * 0.001 + 1e-6
        assert abs(shaft.velocity) <= max_velocity + 1e-6
    shaft.advance(25.0, goal, max_velocity, acceleration, stuck=False)
    assert (shaft.position, shaft.velocity) == (goal, 0.0)


# Faults in words


def test_a_fault_is_written_as_one_word() -> None:
    fault = parse_fault("checksum:3=2@1.5+0.25")
    assert (fault.kind, fault.servo_id, fault.value) == ("checksum", 3, 2.0)
    assert (fault.start_s, fault.duration_s) == (1.5, 0.25)
    assert parse_fault("cable@4").duration_s == math.inf
    for wrong in ("", "3", "lost:", "lost:x", "cable:3", "lost:3@", "melt:2", "lost:3=2=1"):
        with pytest.raises(ArmError, match="fault"):
            parse_fault(wrong)


@pytest.mark.parametrize("name", ["feetech", "dynamixel"])
def test_a_fault_comes_and_goes_at_its_time(name: str) -> None:
    bus = bus_of(name)
    ping = feetech.packed(2, 1, b"") if name == "feetech" else dynamixel.packed(2, 1, b"")
    bus.inject(parse_fault("silent:2@0.5+0.2"))
    assert [bool(answers(bus, ping, now_s)) for now_s in (0.4, 0.5, 0.6, 0.69, 0.71)] == [
        True,
        False,
        False,
        False,
        True,
    ]
