"""What a camera promises, and a checker that holds any camera to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hardware.errors import ContractError


@dataclass(frozen=True)
class Frame:
    """One picture. `image` is uint8 (H, W, 3) RGB; `stamp_ns` is when it was taken, on the host's wall clock.

    `depth_mm`, where the camera measures it, is uint16 (H, W): how far away what each pixel shows is along
    the optical axis, in millimetres; 0 where nothing was measured.
    """

    image: NDArray[np.uint8]
    stamp_ns: int
    frame_id: str
    depth_mm: NDArray[np.uint16] | None = None


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera with lens distortion: all in pixels, pixel centres at whole numbers, as OpenCV counts.

    `distortion` is OpenCV's (k1, k2, p1, p2, k3), which ROS calls plumb_bob.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """(3, 3)"""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])


class NoNewFrame(TimeoutError):
    """The camera had nothing new within the time it was given."""


class RepeatedFrame(NoNewFrame):
    """The driver delivered a frame that it had delivered before: its stamp or number is not new."""


class StreamEnded(NoNewFrame):
    """There will be no more frames, however long one waits: a recording is at its end."""


@runtime_checkable
class Camera(Protocol):
    """A source of frames. Open before reading; closing twice is fine.

    A frame is handed out once. A camera that has nothing new raises `NoNewFrame`;
    it never repeats an old frame, and stamps only ever grow. A frame does not change after it was handed out;
    the image size stays the same while the camera is open. A device that went away raises `CameraUnplugged`.
    """

    def open(self) -> None: ...

    def read(self, timeout_s: float) -> Frame: ...

    def close(self) -> None: ...


def check_camera(camera: Camera, frames: int = 5, timeout_s: float = 2.0) -> None:
    """Raise `ContractError`, naming the broken promise, if `camera` does not behave as a Camera.

    Opens the camera, reads `frames` frames, closes it twice.
    """
    if not isinstance(camera, Camera):
        raise ContractError(f"{type(camera).__name__} lacks open, read or close")
    camera.open()
    try:
        _check_frames(camera, frames, timeout_s)
    finally:
        camera.close()
    try:
        camera.close()
    except Exception as error:
        raise ContractError(f"close() on a closed camera raised {error!r}; it must do nothing") from error
    try:
        camera.read(0.0)
    except Exception:  # whichever error it is
        return
    raise ContractError("read() after close() handed out a frame; it must raise")


def _check_frames(camera: Camera, frames: int, timeout_s: float) -> None:
    first: Frame | None = None
    stamp_ns = -1
    for _ in range(frames):
        try:
            frame = camera.read(timeout_s)
        except NoNewFrame as error:
            raise ContractError(f"no new frame within {timeout_s:g} s") from error
        _check_frame(frame)
        if frame.stamp_ns <= stamp_ns:
            raise ContractError(
                f"frame stamp {frame.stamp_ns} ns does not come after {stamp_ns} ns: "
                "a frame may be handed out once only, and stamps only grow"
            )
        stamp_ns = frame.stamp_ns
        if first is None:
            first, first_image = frame, frame.image.copy()
        elif (frame.image.shape, frame.frame_id) != (first.image.shape, first.frame_id):
            raise ContractError(
                f"frame {frame.image.shape} of {frame.frame_id!r} follows {first.image.shape} of "
                f"{first.frame_id!r}; the size and the frame_id stay as they are while a camera is open"
            )
    if first is not None and not np.array_equal(first.image, first_image):
        raise ContractError("a frame changed after it was handed out; hand out a copy of the buffer")


def _check_frame(frame: Frame) -> None:
    image = frame.image
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise ContractError(f"frame image must be a uint8 array, not {getattr(image, 'dtype', type(image))}")
    if image.ndim != 3 or image.shape[2] != 3:
        raise ContractError(f"frame image must have shape (H, W, 3), not {image.shape}")
    if not isinstance(frame.stamp_ns, int) or frame.stamp_ns < 0:
        raise ContractError(f"stamp_ns must be a non-negative int of nanoseconds, not {frame.stamp_ns!r}")
    if not frame.frame_id:
        raise ContractError("frame_id is empty; name the camera's optical frame")
