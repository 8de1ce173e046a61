"""What is wrong with a stream of frames, if anything: told from the frames and their times alone.

    monitor = StreamMonitor(StreamConfig(size=(640, 480)))
    usable = monitor.take(frame, now_s)      # False: this frame must not be acted on
    monitor.health(now_s).state

Times are seconds on a steady clock. A frame that is usable is new, bright and of the right size; whatever
else the states below say, no other frame is ever handed on.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from hardware.camera.contract import Frame
from hardware.errors import CameraError, CameraUnplugged

# Every 8th pixel both ways tells a dark picture as well as all of them, in a few microseconds.
SAMPLED_EVERY = 8
BRIGHT_PERCENTILE = 99


class StreamState(Enum):
    OPENING = "opening"
    OK = "ok"
    DARK = "dark"
    WRONG_SIZE = "wrong size"
    FROZEN = "frozen"
    SILENT = "silent"
    BLOCKED = "blocked"
    UNPLUGGED = "unplugged"
    FAILED = "failed"
    ENDED = "ended"


@dataclass(frozen=True)
class StreamConfig:
    """When a stream is called what. Raises `CameraError` for what makes no sense."""

    size: tuple[int, int] | None = None  # (width, height) that frames must have; None: any
    max_age_s: float = 0.1  # an older frame is not handed out; measured from its arrival
    silent_after_s: float = 0.5  # this long without any frame
    frozen_after_s: float = 0.3  # this long nothing but frames that are not new
    blocked_after_s: float = 5.0  # a read that has not come back for this long
    dark_level: int = 20  # of 255: 99 of 100 pixels are darker
    reconnect_after_s: float = 3.0  # silent or frozen this long: closed and opened again
    first_wait_s: float = 0.5  # before the first new attempt to open; each further wait is twice as long
    longest_wait_s: float = 8.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith("_s") and not 0.0 < value < float("inf"):
                raise CameraError(f"{name} is {value}, expected a positive number of seconds")
        if not 0 <= self.dark_level <= 255:
            raise CameraError(f"dark_level is {self.dark_level}, expected 0 to 255")


@dataclass(frozen=True)
class Counts:
    """Frames since the start. `arrived` is the sum of the others but `replaced`, which were usable too."""

    arrived: int = 0
    usable: int = 0
    repeated: int = 0  # same bytes or no new stamp
    dark: int = 0
    wrong_size: int = 0
    replaced: int = 0  # usable, but nobody took them before the next one came
    reconnects: int = 0


@dataclass(frozen=True)
class StreamHealth:
    """`text` says what is wrong. `age_s`: since the last usable frame arrived, None if none has yet."""

    state: StreamState
    text: str
    age_s: float | None
    counts: Counts


class StreamMonitor:
    """Follows one stream. Not thread-safe: whoever owns it holds a lock."""

    def __init__(self, config: StreamConfig) -> None:
        self._config = config
        self._counts = dict.fromkeys(Counts.__dataclass_fields__, 0)
        self._image: NDArray[np.uint8] | None = None
        self._stamp_ns = -1
        self._usable_s: float | None = None
        self._opens = 0
        self._reading_s: float | None = None
        self._begin(0.0)

    def opening(self, now_s: float) -> None:
        """The camera is being opened again; until it is, its state stays what it was, or becomes blocked."""
        self._lost, self._reading_s = True, now_s

    def opened(self, now_s: float) -> None:
        self._opens += 1
        self._counts["reconnects"] = self._opens - 1
        self._reading_s = None
        self._begin(now_s)

    def _begin(self, now_s: float) -> None:
        self._lost = False
        self._since_s = now_s  # the last arrival, or the opening
        self._repeating_s: float | None = None
        self._repeat_text = ""
        self._stamp_ns = -1  # the host's clock may have been set in between
        self._tell(StreamState.OPENING, "waiting for the first frame")

    def reading(self, now_s: float) -> None:
        """A read has begun. Whether it comes back is what tells a blocked driver."""
        self._reading_s = now_s

    def nothing(self) -> None:
        """The read came back without a frame."""
        self._reading_s = None

    def take(self, frame: Frame, now_s: float) -> bool:
        """A frame arrived. Whether it may be acted on."""
        self._reading_s, self._since_s = None, now_s
        self._counts["arrived"] += 1
        height, width = frame.image.shape[:2]
        if self._config.size is not None and (width, height) != self._config.size:
            wanted = "{}x{}".format(*self._config.size)
            self._tell(StreamState.WRONG_SIZE, f"frames are {width}x{height}, not {wanted}")
            self._counts["wrong_size"] += 1
            return False
        if frame.stamp_ns <= self._stamp_ns:
            return self._not_new("the stamp is not new", now_s)
        self._stamp_ns = frame.stamp_ns
        if is_dark(frame.image, self._config.dark_level):  # asked first: behind a cap bytes are often equal
            self._repeating_s = None
            self._tell(StreamState.DARK, "the picture is dark: lens cap, light, or exposure")
            self._counts["dark"] += 1
            return False
        if self._image is not None and np.array_equal(frame.image, self._image):
            return self._not_new("every frame has the same bytes", now_s)
        self._image, self._repeating_s = frame.image, None
        self._tell(StreamState.OK, "")
        self._counts["usable"] += 1
        self._usable_s = now_s
        return True

    def repeated(self, now_s: float) -> None:
        """The driver delivered a frame again."""
        self._reading_s, self._since_s = None, now_s
        self._counts["arrived"] += 1
        self._not_new("the stamp is not new", now_s)

    def replaced(self) -> None:
        """A usable frame was replaced by a newer one before anybody took it."""
        self._counts["replaced"] += 1

    def failed(self, error: Exception) -> None:
        """The camera could not be opened, or read from any more."""
        unplugged = isinstance(error, CameraUnplugged)
        self._lose(StreamState.UNPLUGGED if unplugged else StreamState.FAILED, " ".join(str(error).split()))

    def ended(self, text: str) -> None:
        self._lose(StreamState.ENDED, text)

    def given_up(self, now_s: float) -> None:
        """Nobody reads any more; until the camera was opened again its state stays as it is."""
        self._lose(*self._judge(now_s))

    def health(self, now_s: float) -> StreamHealth:
        state, text = self._judge(now_s)
        age_s = None if self._usable_s is None else now_s - self._usable_s
        return StreamHealth(state, text, age_s, Counts(**self._counts))

    def blocked(self, now_s: float) -> bool:
        """A read or an opening has not come back, and was not given up yet."""
        return self._reading_s is not None and self._judge(now_s)[0] is StreamState.BLOCKED

    def wants_reconnect(self, now_s: float) -> bool:
        """Silent or frozen for so long that closing and opening is worth a try."""
        state, _ = self._judge(now_s)
        since_s = {StreamState.SILENT: self._since_s, StreamState.FROZEN: self._repeating_s}.get(state)
        return since_s is not None and now_s - since_s >= self._config.reconnect_after_s

    def _judge(self, now_s: float) -> tuple[StreamState, str]:
        config, last = self._config, self._last
        if self._reading_s is not None and now_s - self._reading_s >= config.blocked_after_s:
            seconds = now_s - self._reading_s
            return StreamState.BLOCKED, f"the driver has not answered for {seconds:.1f} s: plug it in again"
        if self._lost:
            return last, self._text
        if now_s - self._since_s >= config.silent_after_s and self._opens:
            return StreamState.SILENT, f"connected, but no frame for {now_s - self._since_s:.1f} s"
        if self._repeating_s is not None and now_s - self._repeating_s >= config.frozen_after_s:
            seconds = now_s - self._repeating_s
            return StreamState.FROZEN, f"{self._repeat_text} for {seconds:.1f} s: plug it in again"
        return last, self._text

    def _not_new(self, text: str, now_s: float) -> bool:
        self._counts["repeated"] += 1
        self._repeat_text = text
        if self._repeating_s is None:
            self._repeating_s = now_s
        return False

    def _lose(self, state: StreamState, text: str) -> None:
        self._lost, self._reading_s = True, None
        self._tell(state, text)

    def _tell(self, state: StreamState, text: str) -> None:
        self._last, self._text = state, text


def is_dark(image: NDArray[np.uint8], level: int) -> bool:
    """Whether 99 of 100 pixels of `image` (H, W, 3) are darker than `level` of 255 in every colour."""
    brightest = image[::SAMPLED_EVERY, ::SAMPLED_EVERY].max(axis=2)
    return float(np.percentile(brightest, BRIGHT_PERCENTILE)) < level
