"""What test_uvc.py checks, each case in a process of its own over fake_v4l2.c: `python uvc_cases.py CASE`."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from hardware.camera import uvc
from hardware.camera.contract import Frame, NoNewFrame, RepeatedFrame, check_camera
from hardware.camera.health import StreamConfig, StreamState
from hardware.camera.reader import CameraReader
from hardware.camera.uvc import UvcCamera
from hardware.errors import CameraError, CameraUnplugged

DEVICE = Path(os.environ["FAKE_V4L2_DEVICE"])
PATIENCE_S = 20.0
kernel = ctypes.CDLL(None)
kernel.fake_push.argtypes = (ctypes.c_char_p, ctypes.c_uint, ctypes.c_longlong)


def picture(shade: int, size: tuple[int, int] = (640, 480)) -> np.ndarray:
    image = np.full((size[1], size[0], 3), (30, 90, 160), np.uint8)
    image[: size[1] // 2] = shade
    return image


def now_us() -> int:
    return time.monotonic_ns() // 1000


def push(image: np.ndarray, stamp_us: int | None = None) -> None:
    """One MJPG frame into the driver's queue."""
    data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    kernel.fake_push(data, len(data), now_us() if stamp_us is None else stamp_us)


@contextmanager
def streaming(draw: Callable[[int], np.ndarray], stamp_us: Callable[[], int] = now_us) -> Iterator[None]:
    """A camera that sends `draw(0)`, `draw(1)`, … as fast as they are taken."""
    stop = threading.Event()

    def send() -> None:
        number = 0
        while not stop.wait(0.002):
            if kernel.fake_taken():
                push(draw(number), stamp_us())
                number += 1

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def shades(number: int) -> np.ndarray:
    return picture(40 + 5 * (number % 40))


def read(camera: UvcCamera) -> Frame:
    """OpenCV drops the first frame after a start, as it may be half of one."""
    for _ in range(20):
        try:
            return camera.read(PATIENCE_S)
        except NoNewFrame:
            continue
    raise AssertionError("no frame came")


def raised(kind: type[Exception], words: str, call: Callable[[], object]) -> None:
    try:
        call()
    except kind as error:
        assert words in str(error), error
        return
    raise AssertionError(f"no {kind.__name__} was raised")


def wait_for(state: StreamState, reader: CameraReader) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while reader.health().state is not state:
        assert time.monotonic() < deadline, f"not {state} but {reader.health()}"
        time.sleep(0.002)


def contract() -> None:
    with streaming(shades):
        check_camera(UvcCamera(str(DEVICE)), timeout_s=PATIENCE_S)


def colours_and_stamps() -> None:
    camera = UvcCamera(str(DEVICE), frame_id="wrist")
    camera.open()
    with streaming(shades):
        before_ns = time.time_ns()
        read(camera)
        frame = camera.read(PATIENCE_S)
    assert kernel.fake_format().to_bytes(4, "little") == b"MJPG"
    assert frame.image.shape == (480, 640, 3) and frame.frame_id == "wrist"
    assert np.abs(frame.image[400, 320].astype(int) - (30, 90, 160)).max() < 6, "red and blue are swapped"
    assert before_ns - 1_000_000_000 <= frame.stamp_ns <= time.time_ns()
    camera.close()
    assert not kernel.fake_is_open()


def driver_stamps() -> None:
    """The stamp is the driver's, not the time at which the frame was read."""
    camera = UvcCamera(str(DEVICE))
    camera.open()
    with streaming(shades):
        read(camera)
    while not kernel.fake_taken():  # one may wait already
        camera.read(PATIENCE_S)
    taken_us = now_us() + 1
    push(picture(99), taken_us)
    time.sleep(0.2)
    frame = read(camera)
    age_ms = (time.time_ns() - frame.stamp_ns) / 1e6
    assert age_ms >= 200.0, age_ms
    camera.close()


def stamps_of_another_clock() -> None:
    camera = UvcCamera(str(DEVICE))
    camera.open()
    with streaming(shades, stamp_us=lambda: 5):
        first, second = read(camera), camera.read(PATIENCE_S)
    assert 0 < second.stamp_ns - first.stamp_ns < PATIENCE_S * 1e9
    assert time.time_ns() - second.stamp_ns < PATIENCE_S * 1e9
    camera.close()


def repeated_stamp() -> None:
    """A driver that hands out a frame again, with the stamp that it had."""
    camera = UvcCamera(str(DEVICE))
    camera.open()
    stuck_us = now_us()
    with streaming(shades, stamp_us=lambda: stuck_us):
        read(camera)
        for _ in range(5):
            raised(RepeatedFrame, "not new", lambda: camera.read(PATIENCE_S))
    camera.close()


def repeated_stamp_while_the_wall_clock_is_slewed() -> None:
    """The same stamp of the driver is another wall-clock time then, and still not a new frame."""

    class Slewed:
        monotonic_ns = staticmethod(time.monotonic_ns)
        ahead_ns = 0

        def time_ns(self) -> int:
            self.ahead_ns += 50_000
            return time.time_ns() + self.ahead_ns

    uvc.time = Slewed()  # type: ignore[assignment]
    repeated_stamp()


def locks() -> None:
    camera = UvcCamera(str(DEVICE))
    camera.open()
    assert (kernel.fake_exposure(), kernel.fake_white_balance()) == (-1, -1)
    camera.close()
    camera = UvcCamera(str(DEVICE), exposure_ms=12.5, white_balance_k=5200)
    camera.open()
    assert (kernel.fake_exposure(), kernel.fake_white_balance()) == (125, 5200)
    camera.close()
    raised(CameraError, "white_balance_k=99999", UvcCamera(str(DEVICE), white_balance_k=99_999).open)
    assert not kernel.fake_is_open()
    raised(CameraError, "exposure_ms=9000", UvcCamera(str(DEVICE), exposure_ms=9000.0).open)


def not_to_be_opened() -> None:
    raised(CameraUnplugged, "/dev/video77 is not there", UvcCamera("77").open)
    camera = UvcCamera(str(DEVICE))
    camera.open()
    raised(CameraError, "in use by another program", UvcCamera(str(DEVICE)).open)
    camera.close()
    raised(CameraError, "not open", lambda: camera.read(0.1))


def wrong_size() -> None:
    """A driver that silently gives another size than it was asked for."""
    kernel.fake_only_size(320, 240)
    reader = CameraReader(lambda: UvcCamera(str(DEVICE), (640, 480)), StreamConfig(size=(640, 480)))
    reader.start()
    with streaming(lambda number: picture(40 + number % 200, (320, 240))):
        wait_for(StreamState.WRONG_SIZE, reader)
    assert "320x240, not 640x480" in reader.health().text
    assert reader.health().counts.usable == 0
    reader.stop()


def unplug_and_plug_in_again() -> None:
    config = StreamConfig(size=(640, 480), first_wait_s=0.01, longest_wait_s=0.05, max_age_s=PATIENCE_S)
    reader = CameraReader(lambda: UvcCamera(str(DEVICE)), config)
    reader.start()
    with streaming(shades):
        wait_for(StreamState.OK, reader)
        away = DEVICE.rename(DEVICE.with_name("away"))
        kernel.fake_unplug(1)
        wait_for(StreamState.UNPLUGGED, reader)
        assert str(DEVICE) in reader.health().text
        kernel.fake_unplug(0)
        away.rename(DEVICE)
        wait_for(StreamState.OK, reader)
        assert reader.health().counts.reconnects == 1
    reader.stop()
    assert not kernel.fake_is_open()


def silent() -> None:
    config = StreamConfig(silent_after_s=0.1, max_age_s=PATIENCE_S)
    reader = CameraReader(lambda: UvcCamera(str(DEVICE)), config)
    reader.start()
    with streaming(shades):
        wait_for(StreamState.OK, reader)
        kernel.fake_block(1)
        wait_for(StreamState.SILENT, reader)
        kernel.fake_block(0)
        wait_for(StreamState.OK, reader)
    reader.stop()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("fine")
