"""A camera read on a thread of its own: the newest usable frame, how old it is, and how the stream is.

    reader = CameraReader(lambda: RealSenseCamera(), StreamConfig(size=(640, 480)))
    reader.start()
    received = reader.take(timeout_s=0.2)     # each frame once; raises NoNewFrame
    reader.health().state

Only the newest frame is kept, so a slow taker never works on old pictures. A camera that fails, falls silent
or freezes is closed and opened again, with growing pauses. A driver that does not come back from a read keeps
its thread; another one goes on with a new camera.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hardware.camera.contract import Camera, Frame, NoNewFrame, RepeatedFrame, StreamEnded
from hardware.camera.health import StreamConfig, StreamHealth, StreamMonitor, StreamState

READ_TIMEOUT_S = 0.1
# A camera that says at once that it has nothing is not asked again at full load.
PAUSE_S = 0.005
STOP_TIMEOUT_S = 2.0
# Threads that a blocked driver holds. With so many there is no point in trying once more.
MAX_BLOCKED_THREADS = 4


@dataclass(frozen=True)
class Received:
    """A frame and how long ago it arrived here, on a steady clock."""

    frame: Frame
    age_s: float


class CameraReader:
    """Reads what `make_camera` makes. With `reopen` false (recordings) a failure or an end is final."""

    def __init__(
        self, make_camera: Callable[[], Camera], config: StreamConfig | None = None, reopen: bool = True
    ) -> None:
        self._make_camera = make_camera
        self._config = config or StreamConfig()
        self._reopen = reopen
        self._monitor = StreamMonitor(self._config)
        self._changed = threading.Condition()
        self._newest: tuple[Frame, float] | None = None
        self._blocked: list[threading.Thread] = []
        self._worker: _Worker | None = None

    def start(self) -> None:
        """Open the camera and begin. Raises what its `open` raises: then nothing was begun."""
        camera = self._make_camera()
        camera.open()
        self.camera = camera  # the one that is read now, or was last
        with self._changed:
            self._monitor.opened(time.monotonic())
        self._begin(camera)

    def take(self, timeout_s: float) -> Received:
        """The newest usable frame that was not handed out yet; waits for one at most `timeout_s`.

        Raises `NoNewFrame`, saying how the stream is, or `StreamEnded`.
        """
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while True:
                now_s = time.monotonic()
                if self._newest is not None:
                    (frame, arrived_s), self._newest = self._newest, None
                    if now_s - arrived_s <= self._config.max_age_s:
                        return Received(frame, now_s - arrived_s)
                    self._monitor.replaced()
                self._replace_if_blocked(now_s)
                if now_s >= deadline_s or not self._changed.wait(deadline_s - now_s):
                    health = self._monitor.health(time.monotonic())
                    ended = health.state is StreamState.ENDED
                    raise (StreamEnded if ended else NoNewFrame)(f"{health.state.value}: {health.text}")

    def health(self) -> StreamHealth:
        with self._changed:
            self._replace_if_blocked(time.monotonic())
            return self._monitor.health(time.monotonic())

    def stop(self) -> None:
        """Close the camera and end. A thread that a driver holds ends when the driver lets it go."""
        with self._changed:
            worker, self._worker = self._worker, None
            self._newest = None
        if worker is not None:
            worker.stopping.set()
            worker.thread.join(STOP_TIMEOUT_S)

    def _begin(self, camera: Camera | None) -> None:
        worker = _Worker()
        worker.thread = threading.Thread(target=self._run, args=(worker, camera), name="camera", daemon=True)
        self._worker = worker
        worker.thread.start()

    def _replace_if_blocked(self, now_s: float) -> None:
        self._blocked = [thread for thread in self._blocked if thread.is_alive()]
        worker = self._worker
        if worker is None or not self._monitor.blocked(now_s) or not self._reopen:
            return
        if len(self._blocked) < MAX_BLOCKED_THREADS:
            self._monitor.given_up(now_s)
            worker.stopping.set()
            self._blocked.append(worker.thread)
            self._begin(None)

    # The reading thread.

    def _run(self, worker: _Worker, camera: Camera | None) -> None:
        wait_s = self._config.first_wait_s
        while True:
            if camera is None:
                if worker.stopping.wait(wait_s):
                    return
                wait_s = min(2.0 * wait_s, self._config.longest_wait_s)
                camera = self._open(worker)
            if camera is not None:
                if self._read_until_lost(worker, camera):
                    wait_s = self._config.first_wait_s
                _close(camera)
                camera = None
            if worker.stopping.is_set() or not self._reopen:
                return

    def _open(self, worker: _Worker) -> Camera | None:
        camera = self._make_camera()
        self._tell(worker, self._monitor.opening, time.monotonic())
        try:
            camera.open()
        except Exception as error:  # a driver may raise anything; whatever it is, it is not a frame
            self._tell(worker, self._monitor.failed, error)
            _close(camera)
            return None
        if not self._tell(worker, self._monitor.opened, time.monotonic()):
            _close(camera)
            return None
        self.camera = camera
        return camera

    def _read_until_lost(self, worker: _Worker, camera: Camera) -> bool:
        """Whether there was a usable frame before the camera had to be closed."""
        monitor, any_usable = self._monitor, False
        while self._tell(worker, monitor.reading, time.monotonic()):
            try:
                any_usable |= self._arrived(worker, camera.read(READ_TIMEOUT_S))
            except StreamEnded as error:
                self._tell(worker, monitor.ended, str(error))
                break
            except RepeatedFrame:
                self._tell(worker, monitor.repeated, time.monotonic())
            except NoNewFrame:
                self._tell(worker, monitor.nothing)
                worker.stopping.wait(PAUSE_S)
            except Exception as error:  # as in _open
                self._tell(worker, monitor.failed, error)
                break
            if self._reopen and self._gave_up(worker):
                break
        return any_usable

    def _gave_up(self, worker: _Worker) -> bool:
        """Silent or frozen for long enough to try again with a camera opened anew."""
        now_s = time.monotonic()
        with self._changed:
            if worker is not self._worker or not self._monitor.wants_reconnect(now_s):
                return False
            self._monitor.given_up(now_s)
            return True

    def _arrived(self, worker: _Worker, frame: Frame) -> bool:
        now_s = time.monotonic()
        with self._changed:
            if worker is not self._worker or not self._monitor.take(frame, now_s):
                return False
            if self._newest is not None:
                self._monitor.replaced()
            self._newest = (frame, now_s)
            self._changed.notify_all()
            return True

    def _tell(self, worker: _Worker, event: Callable[..., None], *values: Any) -> bool:
        """Note `event` unless another thread has taken over from this one, or it has to end."""
        with self._changed:
            if worker is not self._worker or worker.stopping.is_set():
                return False
            event(*values)
            self._changed.notify_all()
            return True


class _Worker:
    """A thread, and the word that it is to end."""

    thread: threading.Thread

    def __init__(self) -> None:
        self.stopping = threading.Event()


def _close(camera: Camera) -> None:
    try:
        camera.close()
    except Exception:  # it was lost before; there is nobody to tell
        pass
