"""USB webcams and other V4L2 cameras, through OpenCV.

    camera = UvcCamera("/dev/video0", size=(640, 480), rate_hz=30.0, exposure_ms=10.0)

Name the camera by its path in /dev/v4l/by-id where it has one: /dev/videoN may be another one after it was
plugged in again. OpenCV waits up to 10 s in a read of a camera that says nothing; `CameraReader` does not.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hardware.camera.contract import Frame, NoNewFrame, RepeatedFrame
from hardware.errors import CameraError, CameraUnplugged

# V4L2's own values and units (videodev2.h, "Camera Control Reference"), which OpenCV passes on.
EXPOSURE_MANUAL = 1
EXPOSURE_UNITS_PER_MS = 10.0
# V4L2 stamps with the steady clock. A stamp further from now than this is of another clock.
PLAUSIBLE_AGE_S = 5.0
SYS_CLASS = Path("/sys/class/video4linux")


@dataclass(frozen=True)
class Connected:
    """A V4L2 capture device: its path, the one in /dev/v4l/by-id if it has one, and what it calls itself."""

    device: Path
    by_id: Path | None
    name: str


class UvcCamera:
    """`device` is a path, or N for /dev/videoN.

    `exposure_ms` and `white_balance_k` lock what else adapts itself.

    The pictures are asked for as MJPG, without which USB 2 carries 640x480 at 30 Hz and hardly more; a camera
    without MJPG sends what it has. `size` is (width, height); some drivers give another one without a word,
    which the stream's health then tells.
    """

    def __init__(
        self,
        device: str,
        size: tuple[int, int] = (640, 480),
        rate_hz: float = 30.0,
        exposure_ms: float | None = None,
        white_balance_k: float | None = None,
        frame_id: str = "camera_optical_frame",
    ) -> None:
        self.device = Path(f"/dev/video{device}" if device.isdigit() else device)
        self._size, self._rate_hz = size, rate_hz
        self._exposure_ms, self._white_balance_k = exposure_ms, white_balance_k
        self._frame_id = frame_id
        self._capture: cv2.VideoCapture | None = None

    def open(self) -> None:
        self.close()
        self._check_there()
        capture = cv2.VideoCapture(os.path.realpath(self.device), cv2.CAP_V4L2)
        if not capture.isOpened():
            capture.release()
            if not os.access(self.device, os.R_OK | os.W_OK):
                raise CameraError(f"{self.device}: no permission: sudo usermod -aG video $USER, log in again")
            raise CameraError(f"{self.device}: cannot be opened: in use by another program, or no camera")
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._size[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._size[1])
        capture.set(cv2.CAP_PROP_FPS, self._rate_hz)
        try:
            self._lock_controls(capture)
        except CameraError:
            capture.release()
            raise
        self._capture = capture
        self._stamp_ns, self._driver_ms = -1, -1.0

    def read(self, timeout_s: float) -> Frame:
        """The next frame the driver has. `timeout_s` is for the contract's sake: OpenCV waits as it likes."""
        if self._capture is None:
            raise CameraError(f"{self.device}: the camera is not open; call open() first")
        if not self._capture.grab():
            self._check_there()
            raise NoNewFrame(f"{self.device}: no frame")
        driver_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC)
        stamp_ns, drivers_own = _on_wall_clock(driver_ms)
        decoded, image = self._capture.retrieve()
        if not decoded:
            raise NoNewFrame(f"{self.device}: a damaged frame")
        if stamp_ns <= self._stamp_ns or (drivers_own and driver_ms <= self._driver_ms):
            raise RepeatedFrame(f"{self.device}: the stamp {driver_ms:.3f} ms is not new")
        self._stamp_ns, self._driver_ms = stamp_ns, driver_ms
        rgb = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
        return Frame(rgb, stamp_ns, self._frame_id)

    def close(self) -> None:
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()

    def _check_there(self) -> None:
        if not self.device.exists():
            raise CameraUnplugged(
                f"{self.device} is not there: plug it in (`jepa-arm cameras` lists cameras)"
            )

    def _lock_controls(self, capture: cv2.VideoCapture) -> None:
        if self._exposure_ms is not None:
            units = self._exposure_ms * EXPOSURE_UNITS_PER_MS
            manual = capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, EXPOSURE_MANUAL)
            if not (manual and capture.set(cv2.CAP_PROP_EXPOSURE, units)):
                raise self._cannot_set(f"exposure_ms={self._exposure_ms:g}")
        if self._white_balance_k is not None:
            manual = capture.set(cv2.CAP_PROP_AUTO_WB, 0)
            if not (manual and capture.set(cv2.CAP_PROP_WB_TEMPERATURE, self._white_balance_k)):
                raise self._cannot_set(f"white_balance_k={self._white_balance_k:g}")

    def _cannot_set(self, what: str) -> CameraError:
        return CameraError(f"{self.device}: {what} cannot be set: out of range, or it has none; leave it out")


def _on_wall_clock(driver_ms: float) -> tuple[int, bool]:
    """The wall-clock time in ns of a driver's stamp, and whether it is one: else it is the time now."""
    steady_ns, wall_ns = time.monotonic_ns(), time.time_ns()
    age_ns = steady_ns - round(driver_ms * 1e6)
    plausible = 0 <= age_ns <= PLAUSIBLE_AGE_S * 1e9
    return (wall_ns - age_ns if plausible else wall_ns), plausible


def connected(sys_class: Path = SYS_CLASS, dev: Path = Path("/dev")) -> list[Connected]:
    """The V4L2 capture devices, in the order of their numbers.

    Cameras have a second device for their metadata; `index` in sysfs is 0 for the one with the pictures.
    """
    found = []
    for folder in sorted(sys_class.glob("video*"), key=lambda path: int(path.name.removeprefix("video"))):
        if (folder / "index").read_text().strip() != "0":
            continue
        device = dev / folder.name
        by_id = next(
            (link for link in sorted((dev / "v4l/by-id").glob("*")) if link.resolve() == device.resolve()),
            None,
        )
        found.append(Connected(device, by_id, (folder / "name").read_text().strip()))
    return found
