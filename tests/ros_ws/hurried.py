"""Chosen processes before the rest of the machine, if permitted: it may be busy with other things."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from hardware.arm.priority import PRIORITY


@contextlib.contextmanager
def hurried(nodes: tuple[str, ...], priority: int = PRIORITY) -> Iterator[None]:
    """While inside: every thread of those that this process started, itself or through others, whose command
    line names one of `nodes`."""
    ended = threading.Event()
    hurrier = threading.Thread(target=_hurry, args=(nodes, priority, ended), daemon=True)
    hurrier.start()
    try:
        yield
    finally:
        ended.set()
        hurrier.join()


def _hurry(nodes: tuple[str, ...], priority: int, ended: threading.Event) -> None:
    done: set[Path] = set()
    while not ended.wait(0.2):
        for process in _started_by(os.getpid()):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
                if not any(node in words for node in nodes):
                    continue
                for thread in set(Path(f"/proc/{process}/task").iterdir()) - done:
                    done.add(thread)
                    os.sched_setscheduler(int(thread.name), os.SCHED_FIFO, os.sched_param(priority))


def _started_by(parent: int) -> Iterator[int]:
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, children.read_text().split()):
                yield child
                yield from _started_by(child)
