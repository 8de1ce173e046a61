from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from hardware.camera import file
from hardware.camera.contract import NoNewFrame, check_camera
from hardware.camera.file import FileCamera
from hardware.errors import CameraError

COUNT = 8


def picture(i: int) -> np.ndarray:
    """BGR; its red grows with `i`."""
    image = np.zeros((16, 24, 3), np.uint8)
    image[:, :, 2] = 20 * i
    image[:, :, 0] = 200
    return image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "pictures"
    path.mkdir()
    for i in range(COUNT):
        cv2.imwrite(str(path / f"{i:03}.png"), picture(i))
    (path / "notes.txt").write_text("not a picture")
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30.0, (24, 16))
    for i in range(COUNT):
        writer.write(picture(i))
    writer.release()
    return path


class Clock:
    """Stands in for the module `time`: sleeping is what makes it go on."""

    def __init__(self) -> None:
        self.now_ns = 5_000_000_000

    def monotonic_ns(self) -> int:
        return self.now_ns

    def time_ns(self) -> int:
        return 1_700_000_000_000_000_000 + self.now_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(file, "time", clock)
    return clock


def red(frame) -> int:
    return round(float(frame.image[:, :, 0].mean()) / 20)


@pytest.mark.parametrize("kind", ["folder", "video"])
def test_a_file_camera_keeps_the_promises_of_a_camera(kind, request, clock):
    check_camera(FileCamera(request.getfixturevalue(kind), rate_hz=30.0))


@pytest.mark.parametrize("kind", ["folder", "video"])
def test_all_frames_come_in_order_at_their_rate_in_rgb(kind, request, clock):
    camera = FileCamera(request.getfixturevalue(kind), rate_hz=10.0, frame_id="front")
    camera.open()
    start_ns = clock.time_ns()
    for i in range(COUNT):
        frame = camera.read(1.0)
        assert red(frame) == i
        assert frame.image[:, :, 2].mean() > 150
        assert frame.image.shape == (16, 24, 3)
        assert (frame.frame_id, frame.stamp_ns) == ("front", start_ns + i * 100_000_000)
        assert clock.time_ns() == frame.stamp_ns
    with pytest.raises(NoNewFrame, match="no more frames"):
        camera.read(1.0)
    with pytest.raises(NoNewFrame):
        camera.read(1.0)


@pytest.mark.parametrize("kind", ["folder", "video"])
def test_a_late_reader_gets_the_newest_frame(kind, request, clock):
    camera = FileCamera(request.getfixturevalue(kind), rate_hz=10.0)
    camera.open()
    camera.read(1.0)
    clock.sleep(0.45)
    frame = camera.read(1.0)
    assert red(frame) == 4
    assert clock.time_ns() - frame.stamp_ns == 50_000_000
    assert red(camera.read(1.0)) == 5


def test_a_reader_who_cannot_wait_for_the_next_frame_gets_none_and_loses_none(folder, clock):
    camera = FileCamera(folder, rate_hz=10.0)
    camera.open()
    camera.read(0.0)
    before_ns = clock.now_ns
    with pytest.raises(NoNewFrame, match="due in 0.1"):
        camera.read(0.03)
    assert clock.now_ns - before_ns == 30_000_000
    assert red(camera.read(1.0)) == 1


def test_a_camera_that_is_opened_again_starts_again(folder, clock):
    camera = FileCamera(folder, rate_hz=10.0)
    camera.open()
    camera.read(1.0)
    clock.sleep(0.1)
    camera.open()
    assert red(camera.read(1.0)) == 0


def test_reading_a_camera_that_is_not_open_says_so(folder):
    with pytest.raises(CameraError, match="not open"):
        FileCamera(folder, rate_hz=10.0).read(1.0)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(folder, rate):
    with pytest.raises(CameraError, match="rate_hz"):
        FileCamera(folder, rate)


def test_what_cannot_be_played_is_named(tmp_path):
    nowhere, empty, text = tmp_path / "nowhere", tmp_path / "empty", tmp_path / "text.mp4"
    empty.mkdir()
    text.write_text("no video")
    for path, reason in ((nowhere, "no such file"), (empty, "no pictures"), (text, "not a video")):
        with pytest.raises(CameraError, match=reason) as caught:
            FileCamera(path, rate_hz=10.0).open()
        assert str(path) in str(caught.value)


def test_a_damaged_picture_is_named(folder, clock):
    (folder / "001.png").write_bytes(b"damaged")
    camera = FileCamera(folder, rate_hz=10.0)
    camera.open()
    camera.read(1.0)
    with pytest.raises(CameraError, match=r"001\.png"):
        camera.read(1.0)
    assert red(camera.read(1.0)) == 2


def test_a_picture_of_another_size_is_named(folder, clock):
    cv2.imwrite(str(folder / "001.png"), np.zeros((8, 8, 3), np.uint8))
    camera = FileCamera(folder, rate_hz=10.0)
    camera.open()
    camera.read(1.0)
    with pytest.raises(CameraError, match=r"001\.png.*size"):
        camera.read(1.0)


def test_a_damaged_video_frame_is_an_error_and_not_a_picture(video, clock, monkeypatch):
    class Capture:  # cv2's own class crashes the interpreter when it is subclassed
        def __init__(self, path: str) -> None:
            pass

        def isOpened(self) -> bool:
            return True

        def grab(self) -> bool:
            return True

        def retrieve(self) -> tuple[bool, None]:
            return False, None

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    camera = FileCamera(video, rate_hz=10.0)
    camera.open()
    with pytest.raises(CameraError, match="damaged"):
        camera.read(1.0)
