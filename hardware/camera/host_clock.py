"""A device's own clock mapped to the host's wall clock."""

from __future__ import annotations

from collections import deque

WINDOW_NS = 10_000_000_000


class HostClock:
    """Device time → host time, from when the device's frames arrived here.

    A frame arrives as long after it was taken as its transfer took, never sooner. So the smallest difference
    of arrival and device time in the last 10 s is the offset of the clocks plus the quickest transfer, and
    the jitter of the others does not reach the stamps. What remains is that quickest transfer (a stamp is
    late by it) and what the clocks drift apart within the window: 0.5 ms at 50 ppm, a common crystal's error.
    """

    def __init__(self) -> None:
        self._offsets: deque[tuple[int, int]] = deque()  # (device_ns, offset_ns), both growing
        self._device_ns = -1

    def to_host(self, device_ns: int, arrival_ns: int) -> int:
        """When a frame was taken that has `device_ns` on the device's clock and arrived at `arrival_ns`."""
        if device_ns < self._device_ns:
            self._offsets.clear()  # the device was reset and counts anew
        self._device_ns = device_ns
        offset = arrival_ns - device_ns
        while self._offsets and self._offsets[-1][1] >= offset:
            self._offsets.pop()
        self._offsets.append((device_ns, offset))
        while self._offsets[0][0] < device_ns - WINDOW_NS:
            self._offsets.popleft()
        return device_ns + self._offsets[0][1]
