"""Video of an episode: written so that a cut loses half a second, and read back frame by frame."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from perception.errors import DatasetError

# No frame waits for a later one, and a key frame, which begins a fragment, comes twice a second.
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
ENCODER = {"preset": "veryfast", "tune": "zerolatency", "crf": "20", "sc_threshold": "0"}
KEY_FRAMES_A_SECOND = 2


class FragmentedVideo:
    """An mp4 file that can be read up to its last key frame whenever its writer is killed."""

    def __init__(self, path: Path, width: int, height: int, fps: int) -> None:
        self._container = av.open(str(path), "w", format="mp4", options=FRAGMENTS)
        every = str(max(1, fps // KEY_FRAMES_A_SECOND))
        self._stream = self._container.add_stream("libx264", rate=fps, options={**ENCODER, "g": every})
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, fps)
        self._frames = 0

    def add(self, image: NDArray[np.uint8]) -> None:
        """The next frame, (H, W, 3) RGB."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = self._frames, self._stream.codec_context.time_base
        self._frames += 1
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()


def count_frames(path: Path) -> int:
    """How many frames of a file, which may be cut anywhere, can be decoded from its start."""
    frames = 0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            try:
                for packet in container.demux(stream):
                    if packet.size:
                        frames += len(packet.decode())
            except FFmpegError:
                pass  # the cut
            frames += len(stream.codec_context.decode(None))
    except (FFmpegError, IndexError, OSError):
        pass
    return frames


def copy_frames(source: Path, target: Path, frames: int) -> None:
    """The first `frames` of `source` as a whole, plain mp4, not encoded again; `target` is synced to disk."""
    with av.open(str(source)) as read, av.open(str(target), "w", format="mp4") as written:
        stream = read.streams.video[0]
        copied = written.add_stream_from_template(stream)
        left = frames
        for packet in read.demux(stream):
            if packet.dts is None or left == 0:
                break
            packet.stream = copied
            written.mux(packet)
            left -= 1
    with target.open("rb") as file:
        os.fsync(file.fileno())


def key_frames(path: Path, most: int) -> NDArray[np.uint8]:
    """At most `most` of a file's key frames, evenly spread: uint8 (N, H, W, 3)."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.skip_frame = "NONKEY"
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    chosen = np.unique(np.linspace(0, len(pictures) - 1, most).round().astype(int))
    return np.stack([pictures[i] for i in chosen])


def read_frames(path: Path, from_s: float, fps: float, wanted: NDArray[np.int64]) -> Iterator[NDArray]:
    """The frames whose numbers, counted from the one at `from_s`, are `wanted`, which grow.

    Each is uint8 (H, W, 3) RGB. Raises DatasetError if one is missing.
    """
    queue = list(map(int, wanted))
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None
            stream.thread_type = "AUTO"
            begin_s = from_s + queue[0] / fps
            container.seek(max(0, int((begin_s - 0.5 / fps) / stream.time_base)), stream=stream)
            for frame in container.decode(stream):
                number = round((float(frame.pts * stream.time_base) - from_s) * fps)
                while queue and queue[0] == number:
                    queue.pop(0)
                    yield frame.to_ndarray(format="rgb24")
                if not queue or number > queue[0]:
                    break
    except (FFmpegError, OSError) as error:
        raise DatasetError(f"{path} cannot be played ({error})") from error
    if queue:
        raise DatasetError(f"{path} lacks frame {queue[0]} of an episode that begins at {from_s:.3f} s")
