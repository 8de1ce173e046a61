"""What a camera promises, and a checker that holds any camera to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hardware.errors import ContractError


@dataclass(frozen=True)
class Frame:
    """One picture. `image` is uint8 (H, W, 3) RGB; `stamp_ns` is when it was taken."""

    image: NDArray[np.uint8]
    stamp_ns: int
    frame_id: str


class NoNewFrame(TimeoutError):
    """The camera had nothing new within the time it was given."""


@runtime_checkable
class Camera(Protocol):
    """A source of frames. Open before reading; closing twice is fine.

    A frame is handed out once. A camera that has nothing new raises `NoNewFrame`;
    it never repeats an old frame, and stamps only ever grow.
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
        stamps: list[int] = []
        for _ in range(frames):
            frame = camera.read(timeout_s)
            _check_frame(frame)
            if stamps and frame.stamp_ns <= stamps[-1]:
                raise ContractError(
                    f"frame stamp {frame.stamp_ns} ns does not come after {stamps[-1]} ns: "
                    "a frame may be handed out once only, and stamps only grow"
                )
            stamps.append(frame.stamp_ns)
    finally:
        camera.close()
    camera.close()
    try:
        camera.read(0.0)
    except Exception:
        return
    raise ContractError("read() after close() handed out a frame; it must raise")


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
