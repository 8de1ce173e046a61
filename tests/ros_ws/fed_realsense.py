"""A RealSense in the camera node's process that a test feeds, freezes and pulls out from its own process.

camera:=fed_realsense:fed:/tmp/some/socket
"""

from __future__ import annotations

import functools
import json
import socket
import threading
import time
from typing import Any

import numpy as np
from software_realsense import SoftwareRealSense

from hardware.camera.realsense import RealSenseCamera

SIZE = (128, 128)
PERIOD_S = 1 / 30


def fed(path: str, rate_hz: float, frame_id: str) -> RealSenseCamera:
    feed = _feed(path)
    return RealSenseCamera(size=SIZE, rate_hz=rate_hz, frame_id=frame_id, find=feed.device.find)


def picture(number: int) -> np.ndarray:
    """One of its own for every number: its low and high half as grey levels of two corners."""
    image = np.full((SIZE[1], SIZE[0], 3), (90, 110, 130), np.uint8)
    image[:64, :64] = 40 + number % 200
    image[64:, 64:] = 40 + number // 200 % 200
    return image


@functools.cache
def _feed(path: str) -> Feed:
    """One for the process, which outlives the cameras that are opened on it."""
    return Feed(path)


class Feed:
    """Obeys orders that come as datagrams of JSON: {"do": NAME, ...arguments}."""

    def __init__(self, path: str) -> None:
        self.device = SoftwareRealSense(SIZE)
        self.mode = "on_order"
        self._orders = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._orders.bind(path)
        threading.Thread(target=self._obey, daemon=True).start()
        threading.Thread(target=self._stream, daemon=True).start()

    def _obey(self) -> None:
        while True:
            order: dict[str, Any] = json.loads(self._orders.recv(4096))
            getattr(self, order.pop("do"))(**order)

    def frame(self, number: int, stamp_ms: float) -> None:
        self.device.send(picture(number), stamp_ms=stamp_ms)

    def pull_out(self) -> None:
        self.device.pull_out()

    def plug_in(self) -> None:
        self.device.plug_in()

    def stream(self, mode: str) -> None:
        """live, frozen_picture, frozen_stamp, dark, silent or on_order (nothing but what `frame` sends)."""
        self.mode = mode

    def _stream(self) -> None:
        number, stamp_ms = 0, 0.0
        while True:
            time.sleep(PERIOD_S)
            mode = self.mode
            if mode in ("silent", "on_order"):
                continue
            if mode != "frozen_picture":
                number += 1
            if mode != "frozen_stamp":
                stamp_ms = time.time() * 1e3
            self.device.send(picture(number) // (20 if mode == "dark" else 1), stamp_ms=stamp_ms)
