"""What goes into a message comes out of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jepa_arm_ros.errors import MessageError
from jepa_arm_ros.messages import (
    command_from,
    command_message,
    depth_message,
    frame_from_image,
    header,
    image_message,
    joint_state_from,
    joint_state_message,
    latent_message,
    latent_values,
    setpoint_from,
    setpoint_message,
    stamp_ns,
)
from sensor_msgs.msg import JointState as JointStateMessage
from trajectory_msgs.msg import JointTrajectory

from hardware.arm.contract import JointCommand, JointState
from hardware.camera.contract import Frame

stamps = st.integers(0, 2**31 * 10**9 - 1)
names = st.lists(st.text("abcxyz_", min_size=1), min_size=1, max_size=7, unique=True).map(tuple)
numbers = st.floats(-1e6, 1e6)


@given(stamps, st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_an_image_message_holds_the_frame(stamp: int, height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    frame = frame_from_image(image_message(Frame(image, stamp, "camera")))
    assert np.array_equal(frame.image, image)
    assert (frame.stamp_ns, frame.frame_id) == (stamp, "camera")


def test_a_depth_message_holds_whole_millimetres() -> None:
    depth = np.arange(6, dtype=np.uint16).reshape(2, 3) * 1000
    message = depth_message(Frame(np.zeros((2, 3, 3), np.uint8), 7, "camera", depth))
    assert (message.encoding, message.height, message.width, message.step) == ("16UC1", 2, 3, 6)
    assert np.array_equal(np.frombuffer(message.data, np.uint16).reshape(2, 3), depth)
    assert stamp_ns(message.header.stamp) == 7


def test_rows_with_padding_are_read() -> None:
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    message = image_message(Frame(image, 0, "camera"))
    padded = np.zeros((2, 12), np.uint8)
    padded[:, :9] = image.reshape(2, 9)
    message.step, message.data = 12, padded.tobytes()
    assert np.array_equal(frame_from_image(message).image, image)


@pytest.mark.parametrize("encoding, data_bytes, step", [("bgr8", 18, 9), ("rgb8", 17, 9), ("rgb8", 16, 8)])
def test_an_image_that_is_not_what_it_says_is_refused(encoding: str, data_bytes: int, step: int) -> None:
    message = image_message(Frame(np.zeros((2, 3, 3), np.uint8), 0, "camera"))
    message.encoding, message.data, message.step = encoding, bytes(data_bytes), step
    with pytest.raises(MessageError):
        frame_from_image(message)


@given(arrays(np.float32, st.integers(1, 64), elements=st.floats(-1e3, 1e3, width=32)), stamps)
def test_a_latent_message_holds_the_latent_and_the_frames_stamp(latent: np.ndarray, stamp: int) -> None:
    message = latent_message(latent, "abc", 1.5, header(stamp, "camera"))
    assert np.array_equal(latent_values(message), latent)
    assert (stamp_ns(message.header.stamp), message.header.frame_id) == (stamp, "camera")


@given(names, stamps, st.data())
def test_a_joint_state_message_holds_the_state(
    names: tuple[str, ...], stamp: int, data: st.DataObject
) -> None:
    positions, velocities = (data.draw(arrays(np.float64, len(names), elements=numbers)) for _ in range(2))
    state = joint_state_from(joint_state_message(JointState(names, positions, velocities, 0), stamp))
    assert (state.names, state.stamp_ns) == (names, stamp)
    assert np.array_equal(state.positions, positions) and np.array_equal(state.velocities, velocities)


def test_a_joint_state_without_velocities_is_refused() -> None:
    with pytest.raises(MessageError, match="1 names, 1 positions, 0 velocities"):
        joint_state_from(JointStateMessage(name=["a"], position=[0.0]))


@given(names, stamps, st.floats(1e-9, 100.0), st.data())
def test_a_command_message_holds_the_command(
    names: tuple[str, ...], stamp: int, duration_s: float, data: st.DataObject
) -> None:
    positions, velocities = (data.draw(arrays(np.float64, len(names), elements=numbers)) for _ in range(2))
    sent = JointCommand(names, positions, velocities, duration_s, stamp)
    message = command_message(sent, "planner:1")
    command = command_from(message)
    assert (command.names, command.stamp_ns, message.header.frame_id) == (names, stamp, "planner:1")
    assert np.array_equal(command.positions, positions) and np.array_equal(command.velocities, velocities)
    assert command.duration_s == pytest.approx(duration_s, abs=1e-9)


def test_a_command_of_two_points_is_refused() -> None:
    command = JointCommand(("a",), np.zeros(1), np.zeros(1), 0.1, 0)
    message = command_message(command, "")
    message.points = [*message.points, *message.points]
    with pytest.raises(MessageError, match="2 points"):
        command_from(message)


@given(names, st.data())
def test_a_setpoint_starts_on_arrival_and_has_positions_only(
    names: tuple[str, ...], data: st.DataObject
) -> None:
    positions = data.draw(arrays(np.float64, len(names), elements=numbers))
    message = setpoint_message(names, positions, 0.01)
    assert stamp_ns(message.header.stamp) == 0
    assert len(message.points) == 1 and len(message.points[0].velocities) == 0
    assert message.points[0].time_from_start.nanosec == 10_000_000
    received_names, received = setpoint_from(message)
    assert received_names == names and np.array_equal(received, positions)


@pytest.mark.parametrize("positions", [[], [0.0, 0.0], [float("nan")], None])
def test_a_broken_setpoint_is_refused(positions: list[float] | None) -> None:
    message = setpoint_message(("a",), np.zeros(1), 0.01)
    if positions is None:
        message = JointTrajectory(joint_names=["a"])
    else:
        message.points[0].positions = positions
    with pytest.raises(MessageError):
        setpoint_from(message)
