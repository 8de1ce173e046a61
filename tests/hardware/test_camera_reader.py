"""The reading thread: newest frame only, each once, never an old one; and it outlives what cameras do."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from hardware.camera.contract import Frame, NoNewFrame, RepeatedFrame, StreamEnded
from hardware.camera.health import StreamConfig, StreamState
from hardware.camera.reader import CameraReader
from hardware.errors import CameraError, CameraUnplugged

PATIENCE_S = 20.0
LATE = 100  # the number of the frame that a blocked read comes back with
QUICK = StreamConfig(
    max_age_s=PATIENCE_S,
    silent_after_s=0.05,
    frozen_after_s=0.05,
    blocked_after_s=0.3,
    reconnect_after_s=0.1,
    first_wait_s=0.01,
    longest_wait_s=0.05,
)


def frame(number: int) -> Frame:
    return Frame(np.full((8, 8, 3), 50 + number % 200, np.uint8), 1 + number, "camera")


class Line:
    """What comes down the line of a camera: frames, errors to raise, or what blocks the read for a while."""

    def __init__(self) -> None:
        self.coming: queue.Queue[Frame | Exception | threading.Event] = queue.Queue()
        self.opens = self.closes = 0
        self.refuses: list[Exception] = []
        self.sent = 0

    def send(self, count: int = 1) -> None:
        for _ in range(count):
            self.coming.put(frame(self.sent))
            self.sent += 1

    def camera(self) -> LineCamera:
        return LineCamera(self)


class LineCamera:
    def __init__(self, line: Line) -> None:
        self.line = line

    def open(self) -> None:
        if self.line.refuses:
            raise self.line.refuses.pop(0)
        self.line.opens += 1

    def read(self, timeout_s: float) -> Frame:
        try:
            came = self.line.coming.get(timeout=timeout_s)
        except queue.Empty:
            raise NoNewFrame("nothing") from None
        if isinstance(came, Exception):
            raise came
        if isinstance(came, threading.Event):
            came.wait(PATIENCE_S)
            return frame(LATE)
        return came

    def close(self) -> None:
        self.line.closes += 1


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def reading(line: Line) -> Iterator[Callable[..., CameraReader]]:
    started: list[CameraReader] = []

    def start(config: StreamConfig = QUICK, reopen: bool = True) -> CameraReader:
        reader = CameraReader(line.camera, config, reopen)
        started.append(reader)
        reader.start()
        return reader

    yield start
    for reader in started:
        reader.stop()


def wait_for(state: StreamState, reader: CameraReader) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while reader.health().state is not state:
        assert time.monotonic() < deadline, f"not {state} but {reader.health()}"
        with pytest.raises(NoNewFrame):
            reader.take(0.01)


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_each_frame_is_handed_out_once(line, reading):
    reader = reading()
    for i in range(20):
        line.send()
        received = reader.take(PATIENCE_S)
        assert received.frame.stamp_ns == 1 + i
        assert 0.0 <= received.age_s < PATIENCE_S
    with pytest.raises(NoNewFrame):
        reader.take(0.0)
    assert reader.health().counts.replaced == 0


def test_a_slow_taker_gets_the_newest_frame_and_the_others_are_counted(line, reading):
    reader = reading()
    line.send(5)
    wait_until(lambda: reader.health().counts.usable == 5)
    assert reader.take(0.0).frame.stamp_ns == 5
    assert reader.health().counts.replaced == 4


def test_a_frame_that_grew_old_here_is_not_handed_out(line, reading):
    reader = reading(StreamConfig(max_age_s=1e-6))
    line.send()
    wait_until(lambda: reader.health().counts.usable == 1)
    with pytest.raises(NoNewFrame):
        reader.take(0.0)


def test_a_taker_is_woken_by_a_frame_and_waits_no_longer_than_it_says(line, reading):
    reader = reading()
    threading.Timer(0.05, line.send).start()
    assert reader.take(PATIENCE_S).frame.stamp_ns == 1
    started = time.monotonic()
    with pytest.raises(NoNewFrame):
        reader.take(0.05)
    assert time.monotonic() - started < PATIENCE_S / 2


def test_a_camera_that_cannot_be_opened_at_first_is_an_error(line):
    line.refuses = [CameraUnplugged("uvc:/dev/video7 is not connected")]
    with pytest.raises(CameraUnplugged, match="video7"):
        CameraReader(line.camera, QUICK).start()


@pytest.mark.parametrize(
    "error, state",
    [
        (CameraUnplugged("gone"), StreamState.UNPLUGGED),
        (CameraError("busy"), StreamState.FAILED),
        (RuntimeError("driver"), StreamState.FAILED),
    ],
)
def test_a_lost_camera_is_opened_again_until_that_works(line, reading, error, state):
    reader = reading()
    line.send()
    reader.take(PATIENCE_S)
    line.refuses = [error] * 3
    line.coming.put(error)
    wait_for(state, reader)
    line.send()
    assert reader.take(PATIENCE_S).frame.stamp_ns == 2
    health = reader.health()
    assert (health.state, health.counts.reconnects, line.opens) == (StreamState.OK, 1, 2)
    assert line.refuses == []


def test_a_silent_camera_is_opened_again(line, reading):
    reader = reading()
    line.send()
    reader.take(PATIENCE_S)
    wait_for(StreamState.SILENT, reader)
    wait_until(lambda: line.opens >= 2)
    line.send()
    assert reader.take(PATIENCE_S).frame.stamp_ns == 2


def test_a_frozen_camera_is_opened_again_and_nothing_of_it_is_handed_out(line, reading):
    reader = reading()
    line.send()
    reader.take(PATIENCE_S)
    while line.opens < 2:
        line.coming.put(RepeatedFrame("again"))
        with pytest.raises(NoNewFrame):
            reader.take(0.005)
        assert reader.health().state in (StreamState.OK, StreamState.FROZEN, StreamState.OPENING)
    line.send()
    assert reader.take(PATIENCE_S).frame.stamp_ns == 2


def test_the_pauses_between_attempts_grow(line, reading):
    config = StreamConfig(first_wait_s=0.02, longest_wait_s=10.0)
    reader = reading(config)
    line.refuses = [CameraUnplugged("gone")] * 4
    started = time.monotonic()
    line.coming.put(CameraUnplugged("gone"))
    wait_until(lambda: line.opens == 2)
    assert time.monotonic() - started >= 0.02 * (1 + 2 + 4 + 8 + 16)
    assert reader.health().counts.reconnects == 1


def test_a_driver_that_does_not_come_back_is_replaced_and_its_late_frame_is_dropped(line, reading):
    released = threading.Event()
    reader = reading()
    line.coming.put(released)
    wait_for(StreamState.BLOCKED, reader)
    wait_until(lambda: line.opens == 2)
    line.send()
    assert reader.take(PATIENCE_S).frame.stamp_ns == 1
    closes = line.closes
    released.set()
    wait_until(lambda: line.closes > closes)
    line.send()
    assert reader.take(PATIENCE_S).frame.stamp_ns == 2


def test_a_driver_that_always_blocks_does_not_eat_all_threads(line, reading):
    released = threading.Event()
    before = threading.active_count()
    reader = reading()
    for _ in range(10):
        line.coming.put(released)
    wait_until(lambda: reader.health() and line.opens == 5)
    wait_for(StreamState.BLOCKED, reader)
    assert threading.active_count() - before == 5
    reader.stop()
    released.set()


def test_the_end_of_a_recording_is_its_end(line, reading):
    reader = reading(reopen=False)
    line.send()
    reader.take(PATIENCE_S)
    line.coming.put(StreamEnded("table.mp4: there are no more frames"))
    wait_for(StreamState.ENDED, reader)
    with pytest.raises(StreamEnded, match=r"table\.mp4"):
        reader.take(0.0)
    assert (line.opens, line.closes) == (1, 1)


def test_stopping_closes_the_camera_and_ends_the_thread(line, reading):
    before = threading.active_count()
    reader = reading()
    reader.stop()
    reader.stop()
    assert line.closes == 1
    assert threading.active_count() == before
