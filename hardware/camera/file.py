"""A camera made of a file: a folder of pictures or a video, played at a given rate.

    camera = FileCamera("recordings/table.mp4", rate_hz=30.0)

It behaves as a live camera does: a reader that comes late gets the newest frame and has missed the others.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from hardware.camera.contract import Frame, NoNewFrame, StreamEnded
from hardware.errors import CameraError

PICTURES = (".png", ".jpg", ".jpeg", ".bmp")


class FileCamera:
    """Plays `path` (a folder's pictures in the order of their names, or a video) at `rate_hz` from `open` on.

    Frames are stamped with the wall-clock time at which they are due. After the last one there is
    only `StreamEnded`. Raises `CameraError` for files that cannot be played.
    """

    def __init__(self, path: str | Path, rate_hz: float, frame_id: str = "camera_optical_frame") -> None:
        if not 0.0 < rate_hz < float("inf"):
            raise CameraError(f"{path}: rate_hz = {rate_hz} must be a positive number of frames per second")
        self._path = Path(path)
        self._period_ns = round(1e9 / rate_hz)
        self._frame_id = frame_id
        self._source: _Source | None = None

    def open(self) -> None:
        self.close()
        if not self._path.exists():
            raise CameraError(f"{self._path}: no such file or folder; check the path")
        self._source = _Folder(self._path) if self._path.is_dir() else _Video(self._path)
        self._next = 0
        self._steady_start_ns = time.monotonic_ns()
        self._wall_start_ns = time.time_ns()

    def read(self, timeout_s: float) -> Frame:
        """The newest frame that was not handed out yet; waits for the next one at most `timeout_s`."""
        if self._source is None:
            raise CameraError(f"{self._path}: the camera is not open; call open() first")
        wait_ns = self._next * self._period_ns - self._elapsed_ns()
        if wait_ns > timeout_s * 1e9:
            time.sleep(timeout_s)
            raise NoNewFrame(f"{self._path}: the next frame is due in {wait_ns * 1e-9:.3f} s")
        if wait_ns > 0:
            time.sleep(wait_ns * 1e-9)
        newest = max(self._next, self._elapsed_ns() // self._period_ns)
        while self._next <= newest:
            if not self._source.advance():
                raise StreamEnded(f"{self._path}: there are no more frames")
            self._next += 1
        image = cv2.cvtColor(self._source.image(), cv2.COLOR_BGR2RGB)
        return Frame(image, self._wall_start_ns + newest * self._period_ns, self._frame_id)

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None

    def _elapsed_ns(self) -> int:
        return time.monotonic_ns() - self._steady_start_ns


class _Source(Protocol):
    """Frames one after the other; only the wanted ones are decoded. Images are BGR."""

    def advance(self) -> bool: ...

    def image(self) -> NDArray[np.uint8]: ...

    def close(self) -> None: ...


class _Folder:
    def __init__(self, path: Path) -> None:
        self._files = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES)
        if not self._files:
            raise CameraError(f"{path}: holds no pictures; put {', '.join(PICTURES)} files there")
        self._index = -1
        self._shape: tuple[int, ...] | None = None

    def advance(self) -> bool:
        self._index += 1
        return self._index < len(self._files)

    def image(self) -> NDArray[np.uint8]:
        file = self._files[self._index]
        image = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if image is None:
            raise CameraError(f"{file}: not a picture that can be read; remove or replace it")
        if image.shape != (self._shape or image.shape):
            raise CameraError(f"{file}: its size {image.shape} differs from {self._shape} before; resize it")
        self._shape = image.shape
        return np.asarray(image, dtype=np.uint8)

    def close(self) -> None:
        pass


class _Video:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise CameraError(f"{path}: not a video that can be played; give a video or a folder of pictures")

    def advance(self) -> bool:
        return self._capture.grab()

    def image(self) -> NDArray[np.uint8]:
        decoded, image = self._capture.retrieve()
        if not decoded:
            raise CameraError(f"{self._path}: a frame cannot be decoded; the video is damaged")
        return np.asarray(image, dtype=np.uint8)

    def close(self) -> None:
        self._capture.release()
