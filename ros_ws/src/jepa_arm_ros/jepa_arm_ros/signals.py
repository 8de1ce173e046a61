"""Signals that come while ROS runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def deferred() -> Iterator[None]:
    """Python's handlers of SIGINT, SIGTERM and SIGHUP run at the end of this, not within it.

    A handler that raises within a call between C++ and Python loses its exception, or makes another of it:
    rclpy's executors say "Unable to convert call argument".
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers run in the main thread only
        return
    came: list[tuple[int, FrameType | None]] = []
    handlers = {number: signal.getsignal(number) for number in NUMBERS}
    python = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in python:
        signal.signal(number, lambda *arguments: came.append(arguments))
    try:
        yield
    finally:
        for number, handler in python.items():
            signal.signal(number, handler)
        for came_number, frame in came:
            python[signal.Signals(came_number)](came_number, frame)
