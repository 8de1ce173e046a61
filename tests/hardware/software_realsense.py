"""A RealSense on no bus: librealsense's own `software_device`, which a test plugs in, feeds and pulls out."""

from __future__ import annotations

import time

import numpy as np
import pyrealsense2 as rs

from hardware.errors import CameraUnplugged

SERIAL = "0123456789"
PRINCIPAL_POINT = (66.0, 47.0)
FOCAL = 150.0


class SoftwareRealSense:
    """`find` is the argument of that name of `RealSenseCamera`. `units_m` is what one step of depth means;
    `baseline_m`, how far left of the depth sensor the colour sensor is."""

    def __init__(
        self,
        size: tuple[int, int] = (128, 96),
        rate_hz: int = 30,
        units_m: float = 0.001,
        model: str = "",
        baseline_m: float = 0.0,
    ) -> None:
        self.size, self.rate_hz, self.units_m = size, rate_hz, units_m
        self.model = getattr(rs.distortion, model or "brown_conrady")
        self.number = 0
        self.baseline_m = baseline_m
        self.plug_in()

    def plug_in(self) -> None:
        """A new device, as the one that comes back after it was pulled out is."""
        self.device = rs.software_device()
        self.device.register_info(rs.camera_info.name, "Software RealSense")
        self.device.register_info(rs.camera_info.serial_number, SERIAL)
        self._depth = self.device.add_sensor("Depth")
        self._colour = self.device.add_sensor("Color")
        self._depth_profile = self._depth.add_video_stream(self._stream(rs.stream.depth, rs.format.z16, 2, 0))
        self._depth.add_read_only_option(rs.option.depth_units, self.units_m)
        self._colour_profile = self._colour.add_video_stream(
            self._stream(rs.stream.color, rs.format.rgb8, 3, 1)
        )
        beside = rs.extrinsics()
        beside.rotation, beside.translation = [1, 0, 0, 0, 1, 0, 0, 0, 1], [self.baseline_m, 0, 0]
        self._depth_profile.register_extrinsics_to(self._colour_profile, beside)
        self.device.create_matcher(rs.matchers.default)
        self.plugged_in = True

    def pull_out(self) -> None:
        self.plugged_in = False

    def find(self, serial: str) -> rs.device:
        if not self.plugged_in or serial not in ("", SERIAL):
            raise CameraUnplugged(f"realsense:{serial} is not connected")
        return self.device

    def send(
        self,
        image: np.ndarray,
        depth: np.ndarray | None = None,
        stamp_ms: float | None = None,
        domain: str = "system_time",
    ) -> None:
        """One set of frames, into whichever pipeline streams from the device."""
        if not self.plugged_in:
            return
        self.number += 1
        stamp_ms = time.time() * 1e3 if stamp_ms is None else stamp_ms
        width, height = self.size
        depth = np.full((height, width), 700, np.uint16) if depth is None else depth
        for sensor, profile, pixels, bpp in (
            (self._depth, self._depth_profile, depth, 2),
            (self._colour, self._colour_profile, image, 3),
        ):
            frame = rs.software_video_frame()
            frame.pixels, frame.bpp, frame.stride = np.ascontiguousarray(pixels), bpp, bpp * width
            frame.timestamp, frame.domain = stamp_ms, getattr(rs.timestamp_domain, domain)
            frame.frame_number, frame.profile = self.number, profile.as_video_stream_profile()
            if bpp == 2:
                frame.depth_units = self.units_m
            sensor.on_video_frame(frame)

    def _stream(self, kind: rs.stream, pixel_format: rs.format, bpp: int, uid: int) -> rs.video_stream:
        stream = rs.video_stream()
        stream.type, stream.fmt, stream.bpp, stream.uid, stream.index = kind, pixel_format, bpp, uid, 0
        stream.width, stream.height = self.size
        stream.fps = self.rate_hz
        intrinsics = rs.intrinsics()
        intrinsics.width, intrinsics.height = self.size
        intrinsics.ppx, intrinsics.ppy = PRINCIPAL_POINT
        intrinsics.fx = intrinsics.fy = FOCAL
        intrinsics.model = self.model
        intrinsics.coeffs = [0.1, -0.05, 0.001, 0.002, 0.01]
        stream.intrinsics = intrinsics
        return stream
