"""Small pictures made large enough to look at, and films of them."""

from __future__ import annotations

import io

import av
import cv2
import numpy as np
from numpy.typing import NDArray

# Pictures are enlarged by a whole factor to at least this many pixels.
PICTURE_PX = 384


def enlarge(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`image` uint8 (H, W, 3) with every pixel a square: what the robot sees, not a smooth guess at it."""
    factor = max(1, -(-PICTURE_PX // image.shape[1]))
    size = (image.shape[1] * factor, image.shape[0] * factor)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_NEAREST), dtype=np.uint8)


def encode_mp4(frames: NDArray[np.uint8], fps: int, quality: int = 20) -> bytes:
    """Frames uint8 (N, H, W, 3) RGB as H.264 that every browser plays.

    `quality` is x264's rate factor; by 6 more it takes about half the space.
    """
    film = io.BytesIO()
    with av.open(film, "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=fps, options={"preset": "veryfast", "crf": str(quality)}
        )
        height, width = enlarge(frames[0]).shape[:2]
        # H.264 with 4:2:0 colours needs even sides.
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(enlarge(frame), format="rgb24")))
        container.mux(stream.encode())
    return film.getvalue()
