"""ROS messages to the core's types and back: the one place that knows both."""

from __future__ import annotations

import array

import numpy as np
from builtin_interfaces.msg import Duration, Time
from jepa_arm_interfaces.msg import Latent
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image
from sensor_msgs.msg import JointState as JointStateMessage
from std_msgs.msg import Header
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from hardware.arm.contract import JointCommand, JointState
from hardware.camera.contract import Frame, Intrinsics
from hardware.robot import CameraMount
from jepa_arm_ros.errors import MessageError

NANOSECONDS = 1_000_000_000


def stamp_message(stamp_ns: int) -> Time:
    return Time(sec=stamp_ns // NANOSECONDS, nanosec=stamp_ns % NANOSECONDS)


def stamp_ns(stamp: Time) -> int:
    return stamp.sec * NANOSECONDS + stamp.nanosec


def header(stamp_ns: int, frame_id: str = "") -> Header:
    return Header(stamp=stamp_message(stamp_ns), frame_id=frame_id)


def image_message(frame: Frame) -> Image:
    height, width, _ = frame.image.shape
    message = Image(header=header(frame.stamp_ns, frame.frame_id), height=height, width=width)
    message.encoding = "rgb8"
    message.step = 3 * width
    # An array.array is copied at once; a NumPy array here is taken element by element, 100 ms for VGA.
    message.data = array.array("B", np.ascontiguousarray(frame.image).tobytes())
    return message


def frame_from_image(message: Image) -> Frame:
    """The frame in an rgb8 `message`. Raises `MessageError` on any other encoding or a wrong size."""
    if message.encoding != "rgb8":
        raise MessageError(f"image encoding is {message.encoding or 'missing'}, expected rgb8")
    height, width, step = message.height, message.width, message.step
    if step < 3 * width or len(message.data) != step * height or not height or not width:
        raise MessageError(
            f"image says {width}x{height} with {step} bytes a row, but holds {len(message.data)} bytes"
        )
    rows = np.frombuffer(message.data, dtype=np.uint8).reshape(height, step)
    image = rows[:, : 3 * width].reshape(height, width, 3)
    return Frame(image, stamp_ns(message.header.stamp), message.header.frame_id)


def depth_message(frame: Frame) -> Image:
    """The depth of `frame`, which must have one, in millimetres; 0: not measured."""
    assert frame.depth_mm is not None
    height, width = frame.depth_mm.shape
    message = Image(header=header(frame.stamp_ns, frame.frame_id), height=height, width=width)
    message.encoding = "16UC1"
    message.step = 2 * width
    message.data = array.array("B", np.ascontiguousarray(frame.depth_mm, dtype="<u2").tobytes())
    return message


def camera_info_message(mount: CameraMount, stamp_ns: int, known: Intrinsics | None = None) -> CameraInfo:
    """The intrinsics of `mount`'s pictures: those `known`, else a pinhole's of its field of view."""
    focal = mount.height / 2 / float(np.tan(mount.vertical_fov / 2))
    lens = known or Intrinsics(mount.width, mount.height, focal, focal, mount.width / 2, mount.height / 2)
    message = CameraInfo(header=header(stamp_ns, mount.frame_id), width=lens.width, height=lens.height)
    message.distortion_model = "plumb_bob"
    message.d = list(lens.distortion)
    message.k = [lens.fx, 0.0, lens.cx, 0.0, lens.fy, lens.cy, 0.0, 0.0, 1.0]
    message.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    message.p = [lens.fx, 0.0, lens.cx, 0.0, 0.0, lens.fy, lens.cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return message


def latent_message(latent: NDArray[np.float32], encoder: str, encode_ms: float, source: Header) -> Latent:
    """`latent` (D,) with the stamp and frame of the image it was made from."""
    message = Latent(header=source, encoder=encoder, encode_ms=encode_ms)
    message.data = array.array("f", latent.astype(np.float32, copy=False).tobytes())
    return message


def latent_values(message: Latent) -> NDArray[np.float32]:
    """(D,)"""
    return np.frombuffer(message.data, dtype=np.float32)


def joint_state_message(state: JointState, stamp_ns: int) -> JointStateMessage:
    message = JointStateMessage(header=header(stamp_ns), name=list(state.names))
    message.position = array.array("d", state.positions.tobytes())
    message.velocity = array.array("d", state.velocities.tobytes())
    return message


def joint_state_from(message: JointStateMessage) -> JointState:
    """Raises `MessageError` unless every named joint has a position and a velocity."""
    names = tuple(message.name)
    positions = np.frombuffer(message.position, dtype=np.float64)
    velocities = np.frombuffer(message.velocity, dtype=np.float64)
    if not len(names) == len(positions) == len(velocities):
        raise MessageError(
            f"joint state has {len(names)} names, {len(positions)} positions, {len(velocities)} velocities"
        )
    return JointState(names, positions, velocities, stamp_ns(message.header.stamp))


def command_message(command: JointCommand, source: str) -> JointTrajectory:
    """A command for the gate: the stamp is that of the camera frame it was decided from.

    `frame_id`, which a joint trajectory has no other use for, names the process that commands: two that
    do so at once are told apart by it.
    """
    message = JointTrajectory(header=header(command.stamp_ns, source), joint_names=list(command.names))
    message.points = [
        JointTrajectoryPoint(
            positions=array.array("d", command.positions.tobytes()),
            velocities=array.array("d", command.velocities.tobytes()),
            time_from_start=_duration(command.duration_s),
        )
    ]
    return message


def command_from(message: JointTrajectory) -> JointCommand:
    """As it was sent, right or wrong: the gate judges it. Raises `MessageError` unless there is one point."""
    if len(message.points) != 1:
        raise MessageError(f"command has {len(message.points)} points, expected one")
    point = message.points[0]
    positions = np.frombuffer(point.positions, dtype=np.float64)
    velocities = np.frombuffer(point.velocities, dtype=np.float64)
    duration_s = point.time_from_start.sec + point.time_from_start.nanosec / NANOSECONDS
    names = tuple(message.joint_names)
    return JointCommand(names, positions, velocities, duration_s, stamp_ns(message.header.stamp))


def setpoint_message(
    names: tuple[str, ...], positions: NDArray[np.float64], period_s: float
) -> JointTrajectory:
    """One positions-only point, to be reached `period_s` after arrival.

    The header's stamp stays zero, which means "start now": a joint trajectory controller refuses a
    trajectory whose stamp lies in the past, and a camera frame's always does.
    """
    message = JointTrajectory(joint_names=list(names))
    message.points = [
        JointTrajectoryPoint(
            positions=array.array("d", positions.tobytes()), time_from_start=_duration(period_s)
        )
    ]
    return message


def setpoint_from(message: JointTrajectory) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Joint names and the last point's positions. Raises `MessageError` if they do not match."""
    if not message.points:
        raise MessageError("trajectory has no points")
    positions = np.frombuffer(message.points[-1].positions, dtype=np.float64)
    if len(positions) != len(message.joint_names):
        raise MessageError(f"trajectory has {len(message.joint_names)} names, {len(positions)} positions")
    if not np.isfinite(positions).all():
        raise MessageError("trajectory has positions that are not finite")
    return tuple(message.joint_names), positions


def _duration(seconds: float) -> Duration:
    nanoseconds = round(seconds * NANOSECONDS)
    return Duration(sec=nanoseconds // NANOSECONDS, nanosec=nanoseconds % NANOSECONDS)
