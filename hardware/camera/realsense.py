"""Intel RealSense cameras and their recordings, through librealsense.

    camera = RealSenseCamera(serial="839112060123", size=(640, 480), rate_hz=30, depth=True)
    camera = RealSenseRecording("table.db3")

How a frame gets its stamp depends on what the driver says of the frame's own timestamp:
    system time     the host's clock when the frame arrived: taken as it is
    global time     the camera's clock, which librealsense keeps mapped to the host's: taken as it is
    hardware clock  the camera's clock: mapped to the host's by `HostClock`
`open` asks for global time where the camera has it, which D400 cameras do.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardware.camera.contract import Frame, Intrinsics, NoNewFrame, RepeatedFrame, StreamEnded
from hardware.camera.host_clock import HostClock
from hardware.errors import CameraError, CameraUnplugged

EXPOSURE_UNITS_PER_MS = 10.0  # librealsense counts a colour sensor's exposure in 100 µs


@dataclass(frozen=True)
class Connected:
    """A RealSense that is plugged in."""

    name: str
    serial: str
    usb: str  # such as "3.2"; with 2.1 not every size and rate is there


class RealSenseCamera:
    """Colour, and with `depth` also depth aligned to it. `serial` "": the only one that is plugged in.

    `size` is (width, height) in pixels. `exposure_ms` and `white_balance_k` lock what else adapts itself.
    `find` returns the librealsense device of a serial number or raises `CameraUnplugged`; give another one to
    stream from a device that is on no bus, such as an `rs.software_device`.
    """

    def __init__(
        self,
        serial: str = "",
        size: tuple[int, int] = (640, 480),
        rate_hz: float = 30.0,
        depth: bool = False,
        exposure_ms: float | None = None,
        white_balance_k: float | None = None,
        frame_id: str = "camera_optical_frame",
        find: Callable[[str], Any] | None = None,
    ) -> None:
        self.name = f"realsense:{serial}" if serial else "realsense"
        self.intrinsics: Intrinsics | None = None
        self._serial, self._size, self._rate_hz, self._depth = serial, size, rate_hz, depth
        self._exposure_ms, self._white_balance_k = exposure_ms, white_balance_k
        self._frame_id = frame_id
        self._find = find or find_connected
        self._pipeline: Any = None

    def open(self) -> None:
        self.close()
        rs = library()
        config = rs.config()
        pipeline, device = self._prepare(rs, config)
        try:
            profile = pipeline.start(config)
        except RuntimeError as error:
            raise CameraError(f"{self.name}: {_why_not(rs, device, self._wanted(), error)}") from error
        self._pipeline = pipeline
        self._rs = rs
        self._align = rs.align(rs.stream.color) if self._depth else None
        self._clock = HostClock()
        self._stamp_ns = -1
        stream = profile.get_stream(rs.stream.color).as_video_stream_profile()
        self.intrinsics = _intrinsics(rs, stream.get_intrinsics())

    def read(self, timeout_s: float) -> Frame:
        """The newest frame that was not handed out yet; waits for one at most `timeout_s`."""
        if self._pipeline is None:
            raise CameraError(f"{self.name}: the camera is not open; call open() first")
        try:
            arrived, frames = self._pipeline.try_wait_for_frames(max(1, round(timeout_s * 1e3)))
        except RuntimeError as error:
            raise CameraError(f"{self.name}: {error}") from error
        if not arrived:
            self._explain_silence()
            raise NoNewFrame(f"{self.name}: nothing within {timeout_s:g} s")
        if self._align is not None:
            frames = self._align.process(frames)
        colour, depth = frames.get_color_frame(), frames.get_depth_frame()
        if not colour or (self._depth and not depth):
            raise NoNewFrame(f"{self.name}: an incomplete set of frames")
        stamp_ns = self._host_stamp_ns(colour)
        if stamp_ns <= self._stamp_ns:
            raise RepeatedFrame(f"{self.name}: the stamp {stamp_ns} ns is not new")
        self._stamp_ns = stamp_ns
        image = np.array(colour.get_data(), dtype=np.uint8)
        return Frame(image, stamp_ns, self._frame_id, _depth_mm(depth) if self._depth else None)

    def close(self) -> None:
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            try:
                pipeline.stop()
            except RuntimeError:  # the device is gone, which is why it is being closed
                pass

    def _prepare(self, rs: Any, config: Any) -> tuple[Any, Any]:
        """The pipeline and the device it streams from; `config` is told what to stream."""
        device = self._find(self._serial)
        pipeline = rs.pipeline(_context())
        pipeline.set_device(device)
        width, height = self._size
        rate_hz = round(self._rate_hz)
        config.enable_stream(rs.stream.color, width, height, rs.format.rgb8, rate_hz)
        if self._depth:
            config.enable_stream(rs.stream.depth, width, height, rs.format.z16, rate_hz)
        self._set_controls(rs, device)
        return pipeline, device

    def _set_controls(self, rs: Any, device: Any) -> None:
        for sensor in device.query_sensors():
            if sensor.supports(rs.option.global_time_enabled):
                sensor.set_option(rs.option.global_time_enabled, 1.0)
        locks = (
            ("exposure_ms", self._exposure_ms, EXPOSURE_UNITS_PER_MS, "enable_auto_exposure", "exposure"),
            ("white_balance_k", self._white_balance_k, 1.0, "enable_auto_white_balance", "white_balance"),
        )
        for key, value, units, automatic, manual in locks:
            if value is None:
                continue
            try:
                sensor = _colour_sensor(rs, device)
                sensor.set_option(getattr(rs.option, automatic), 0.0)
                sensor.set_option(getattr(rs.option, manual), value * units)
            except RuntimeError as error:
                raise CameraError(
                    f"{self.name}: {key}={value:g} cannot be set ({error}); leave it out"
                ) from error

    def _explain_silence(self) -> None:
        """Raise what is known of why there is no frame."""
        self._find(self._serial)

    def _host_stamp_ns(self, frame: Any) -> int:
        frame_ns = _whole_us(frame.get_timestamp())
        if frame.get_frame_timestamp_domain() != self._rs.timestamp_domain.hardware_clock:
            return frame_ns
        return self._clock.to_host(frame_ns, _arrival_ns(self._rs, frame))

    def _wanted(self) -> str:
        streams = "colour and depth" if self._depth else "colour"
        return f"{self._size[0]}x{self._size[1]} {streams} at {self._rate_hz:g} Hz"


class RealSenseRecording(RealSenseCamera):
    """Plays a .db3 that `rs.recorder` (or the RealSense viewer) wrote, at the pace it was recorded, once.

    The first frame counts as taken now, the others as long after it as they were recorded. After the last
    there is only `StreamEnded`.
    """

    def __init__(self, path: str | Path, depth: bool = False, frame_id: str = "camera_optical_frame") -> None:
        super().__init__(depth=depth, frame_id=frame_id)
        self.name = str(path)
        self._path = Path(path)

    def _prepare(self, rs: Any, config: Any) -> tuple[Any, Any]:
        if not self._path.is_file():
            raise CameraError(f"{self._path}: no such file; check the path")
        self._start_ns: int | None = None
        pipeline = rs.pipeline(rs.context())  # a recording is a device of its context from then on
        try:
            config.enable_device_from_file(str(self._path), repeat_playback=False)
            config.enable_stream(rs.stream.color)
            if self._depth:
                config.enable_stream(rs.stream.depth)
            device = config.resolve(rs.pipeline_wrapper(pipeline)).get_device()
        except RuntimeError as error:
            streams = "colour and depth" if self._depth else "colour"
            raise CameraError(f"{self._path}: not a RealSense recording of {streams} ({error})") from error
        self._playback = device.as_playback()
        return pipeline, device

    def _explain_silence(self) -> None:
        if self._playback.current_status() == self._rs.playback_status.stopped:
            raise StreamEnded(f"{self._path}: there are no more frames")

    def _host_stamp_ns(self, frame: Any) -> int:
        recorded_ns = _whole_us(frame.get_timestamp())
        if self._start_ns is None:
            self._start_ns = time.time_ns() - recorded_ns
        return min(self._start_ns + recorded_ns, time.time_ns())  # playback may run a millisecond early


def connected() -> list[Connected]:
    """The RealSense cameras that are plugged in."""
    rs = library()
    info = rs.camera_info
    found = []
    for device in _context().query_devices():
        usb = device.get_info(info.usb_type_descriptor) if device.supports(info.usb_type_descriptor) else ""
        found.append(Connected(device.get_info(info.name), device.get_info(info.serial_number), usb))
    return found


def find_connected(serial: str) -> Any:
    """The librealsense device of `serial`, or of the only one for "". Raises `CameraUnplugged`."""
    rs = library()
    devices = {d.get_info(rs.camera_info.serial_number): d for d in _context().query_devices()}
    if not devices:
        raise CameraUnplugged("no RealSense is connected: plug it in, into a USB 3 port")
    if not serial:
        if len(devices) > 1:
            raise CameraError(f"realsense: which one of {', '.join(devices)}? say realsense:SERIAL")
        return next(iter(devices.values()))
    if serial not in devices:
        raise CameraUnplugged(f"realsense:{serial} is not connected; connected: {', '.join(devices)}")
    return devices[serial]


def library() -> Any:
    """The module pyrealsense2. Raises `CameraError` saying how to get it, or what it lacks."""
    try:
        import pyrealsense2
    except ModuleNotFoundError as error:
        raise CameraError("pyrealsense2 is not installed: run `pip install 'jepa-arm[realsense]'`") from error
    except ImportError as error:
        raise CameraError(
            f"pyrealsense2 cannot be loaded ({error}): run `sudo apt-get install -y libusb-1.0-0`"
        ) from error
    return pyrealsense2


@functools.cache
def _context() -> Any:
    """One for the process: each watches the bus on a thread of its own."""
    return library().context()


def _intrinsics(rs: Any, given: Any) -> Intrinsics | None:
    """None where the lens model is one that OpenCV and ROS do not have."""
    coefficients = [float(value) for value in given.coeffs]
    if given.model != rs.distortion.brown_conrady and any(coefficients):
        return None
    k1, k2, p1, p2, k3 = coefficients
    return Intrinsics(
        given.width, given.height, given.fx, given.fy, given.ppx, given.ppy, (k1, k2, p1, p2, k3)
    )


def _depth_mm(depth: Any) -> NDArray[np.uint16]:
    mm_per_unit = depth.as_depth_frame().get_units() * 1e3
    units = np.array(depth.get_data(), dtype=np.uint16)
    if abs(mm_per_unit - 1.0) < 1e-6:  # what every D400 camera has unless it was told otherwise
        return units
    return np.clip(np.rint(units * mm_per_unit), 0, np.iinfo(np.uint16).max).astype(np.uint16)


def _whole_us(milliseconds: float) -> int:
    """In ns. A float of milliseconds since 1970 holds no more than microseconds."""
    return round(milliseconds * 1e3) * 1000


def _arrival_ns(rs: Any, frame: Any) -> int:
    arrival = rs.frame_metadata_value.time_of_arrival  # ms on the host's clock, taken by the driver
    if frame.supports_frame_metadata(arrival):
        return int(frame.get_frame_metadata(arrival)) * 1_000_000
    return time.time_ns()


def _colour_sensor(rs: Any, device: Any) -> Any:
    """The sensor with a colour stream: on some cameras (D405) that is the depth sensor."""
    for sensor in device.query_sensors():
        if any(profile.stream_type() == rs.stream.color for profile in sensor.get_stream_profiles()):
            return sensor
    raise CameraError("this RealSense has no colour stream: use another one")


def _why_not(rs: Any, device: Any, wanted: str, error: RuntimeError) -> str:
    """Why a device does not stream, with the sizes and rates that it has."""
    sizes = set()
    for profile in _colour_sensor(rs, device).get_stream_profiles():
        if profile.stream_type() == rs.stream.color:
            video = profile.as_video_stream_profile()
            sizes.add((video.width(), video.height(), profile.fps()))
    has = ", ".join(f"{width}x{height} at {fps} Hz" for width, height, fps in sorted(sizes))
    return f"gives no {wanted} ({' '.join(str(error).split())}); its colour: {has or 'none'}"
