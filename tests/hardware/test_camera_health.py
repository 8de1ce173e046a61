"""What is wrong with a stream is told from its frames and their times alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.camera.contract import Frame
from hardware.camera.health import StreamConfig, StreamMonitor, StreamState
from hardware.errors import CameraError, CameraUnplugged

SIZE = (32, 24)
PERIOD_S = 1 / 30
DOCUMENTED_S = ("max_age_s", "silent_after_s", "frozen_after_s", "blocked_after_s", "reconnect_after_s")


def frame(number: int, size: tuple[int, int] = SIZE, level: int = 120, stamp_ns: int | None = None) -> Frame:
    """A picture of its own for every number."""
    image = np.full((size[1], size[0], 3), level, np.uint8)
    image[0, 0] = (number % 256, number // 256 % 256, 0)
    return Frame(image, (number + 1) * 33_000_000 if stamp_ns is None else stamp_ns, "camera")


class Stream:
    """A monitor that is shown frames at 30 Hz, on a clock that only the test moves."""

    def __init__(self, **settings) -> None:
        self.monitor = StreamMonitor(StreamConfig(size=SIZE, **settings))
        self.now_s = 100.0
        self.number = 0
        self.monitor.opened(self.now_s)

    def show(self, shown: Frame) -> bool:
        self.now_s += PERIOD_S
        self.monitor.reading(self.now_s)
        return self.monitor.take(shown, self.now_s)

    def show_good(self) -> bool:
        self.number += 1
        return self.show(frame(self.number))

    @property
    def state(self) -> StreamState:
        return self.health.state

    @property
    def health(self):
        return self.monitor.health(self.now_s)


@pytest.fixture
def stream() -> Stream:
    stream = Stream()
    assert stream.state is StreamState.OPENING
    assert stream.show_good()
    assert stream.state is StreamState.OK
    return stream


def test_the_age_is_that_of_the_last_usable_frame(stream):
    stream.now_s += 0.25
    assert stream.health.age_s == pytest.approx(0.25)
    stream.show(frame(9, level=0))
    assert stream.health.age_s == pytest.approx(0.25 + PERIOD_S)


def test_frames_of_the_same_bytes_are_withheld_at_once_and_then_called_frozen(stream):
    same = frame(5).image
    assert stream.show(Frame(same, 1_000_000_000, "camera"))
    for i in range(9):
        assert not stream.show(Frame(same.copy(), 1_033_000_000 + i * 33_000_000, "camera"))
        assert stream.state is StreamState.OK
    for i in range(3):
        assert not stream.show(Frame(same.copy(), 2_033_000_000 + i * 33_000_000, "camera"))
    assert stream.state is StreamState.FROZEN
    assert "same bytes" in stream.health.text
    assert stream.show(frame(6, stamp_ns=3_000_000_000))
    assert stream.state is StreamState.OK


def test_a_stamp_that_is_not_new_is_withheld_and_then_called_frozen(stream):
    stamp_ns = 5_000_000_000
    assert stream.show(frame(2, stamp_ns=stamp_ns))
    for i in range(12):
        assert not stream.show(frame(10 + i, stamp_ns=stamp_ns - i))
    assert stream.state is StreamState.FROZEN
    assert "stamp" in stream.health.text


def test_what_the_driver_itself_calls_a_repetition_is_frozen_too(stream):
    for _ in range(12):
        stream.now_s += PERIOD_S
        stream.monitor.repeated(stream.now_s)
    assert stream.state is StreamState.FROZEN


def test_a_dark_picture_is_withheld_and_told_from_a_frozen_one(stream):
    black = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    for i in range(30):
        assert not stream.show(Frame(black.copy(), 10_000_000_000 + i, "camera"))
    assert stream.state is StreamState.DARK


def test_a_night_scene_with_a_lamp_is_not_dark(stream):
    image = np.full((SIZE[1], SIZE[0], 3), 5, np.uint8)
    image[:, :8, 0] = 90
    assert stream.show(Frame(image, 10_000_000_000, "camera"))


def test_a_picture_of_another_size_is_withheld_and_both_sizes_are_named(stream):
    assert not stream.show(frame(7, size=(16, 16)))
    assert stream.state is StreamState.WRONG_SIZE
    assert "16x16" in stream.health.text and "32x24" in stream.health.text


def test_a_stream_without_frames_is_silent(stream):
    stream.now_s += 0.49
    assert stream.state is StreamState.OK
    stream.now_s += 0.02
    assert stream.state is StreamState.SILENT
    assert stream.show_good()
    assert stream.state is StreamState.OK


def test_a_read_that_does_not_come_back_is_a_blocked_driver_and_no_silence(stream):
    stream.monitor.reading(stream.now_s)
    stream.now_s += 5.1
    assert stream.state is StreamState.BLOCKED
    assert stream.monitor.blocked(stream.now_s)
    stream.monitor.given_up(stream.now_s)
    stream.now_s += 60.0
    assert stream.state is StreamState.BLOCKED
    assert not stream.monitor.blocked(stream.now_s)


@pytest.mark.parametrize(
    "error, state",
    [
        (CameraUnplugged("realsense:1 is not connected"), StreamState.UNPLUGGED),
        (CameraError("uvc:/dev/video0 is in use"), StreamState.FAILED),
        (RuntimeError("xioctl failed"), StreamState.FAILED),
    ],
)
def test_a_lost_camera_stays_lost_until_it_was_opened_again(stream, error, state):
    stream.monitor.failed(error)
    stream.now_s += 60.0
    stream.monitor.opening(stream.now_s)
    assert (stream.state, stream.health.text) == (state, str(error))
    stream.monitor.opened(stream.now_s)
    assert stream.state is StreamState.OPENING
    assert stream.show_good()
    assert stream.state is StreamState.OK
    assert stream.health.counts.reconnects == 1


def test_after_the_hosts_clock_was_set_back_a_new_opening_takes_the_new_stamps(stream):
    assert stream.show(frame(3, stamp_ns=9_000_000_000))
    assert not stream.show(frame(4, stamp_ns=1_000_000_000))
    stream.monitor.opened(stream.now_s)
    assert stream.show(frame(5, stamp_ns=1_000_000_001))


@pytest.mark.parametrize("way", ["silent", "frozen"])
def test_only_what_lasts_is_worth_a_new_opening(stream, way):
    for seconds in range(1, 5):
        for _ in range(30):
            if way == "frozen":
                stream.show(frame(stream.number))
            else:
                stream.now_s += PERIOD_S
        assert stream.monitor.wants_reconnect(stream.now_s) == (seconds > 3)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([SIZE, (8, 8)]),
            st.integers(0, 3),  # few pictures and stamps, so that many are met again
            st.integers(0, 255),
            st.integers(0, 6),
        ),
        max_size=40,
    )
)
def test_no_frame_is_usable_that_is_old_dark_repeated_or_of_a_wrong_size(shown):
    stream = Stream()
    newest_stamp, before = -1, None
    usable = 0
    for size, number, level, stamp_ns in shown:
        candidate = frame(number, size, level, stamp_ns)
        if stream.show(candidate):
            usable += 1
            assert size == SIZE
            assert stamp_ns > newest_stamp
            assert level >= 20
            assert before is None or not np.array_equal(candidate.image, before)
            newest_stamp, before = stamp_ns, candidate.image
    counts = stream.health.counts
    assert counts.usable == usable
    assert counts.arrived == len(shown) == usable + counts.repeated + counts.dark + counts.wrong_size


def test_the_documentation_tells_what_to_do_about_every_state_and_has_every_threshold():
    text = (Path(__file__).parents[2] / "docs" / "cameras.md").read_text()
    for state in StreamState:
        assert f"\n| `{state.value}` |" in text, state
    defaults = StreamConfig()
    for name in (*DOCUMENTED_S, "dark_level"):
        assert f"\n| `{name}` | {getattr(defaults, name)} |" in text, name


@pytest.mark.parametrize(
    "settings", [{"silent_after_s": 0.0}, {"max_age_s": float("nan")}, {"dark_level": 256}]
)
def test_a_threshold_that_makes_no_sense_is_refused_by_name(settings):
    with pytest.raises(CameraError, match=next(iter(settings))):
        StreamConfig(**settings)
