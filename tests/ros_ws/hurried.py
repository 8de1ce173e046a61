"""Chosen nodes before the rest of the machine, if permitted: it may be busy with other things."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from hardware.arm.priority import PRIORITY


@contextlib.contextmanager
def hurried(parents: Callable[[], Iterable[int]], nodes: tuple[str, ...]) -> Iterator[None]:
    """While inside: every thread of the children of `parents()` whose command line names one of `nodes`."""
    ended = threading.Event()
    hurrier = threading.Thread(target=_hurry, args=(parents, nodes, ended), daemon=True)
    hurrier.start()
    try:
        yield
    finally:
        ended.set()
        hurrier.join()


def _hurry(parents: Callable[[], Iterable[int]], nodes: tuple[str, ...], ended: threading.Event) -> None:
    done: set[Path] = set()
    while not ended.wait(0.2):
        for parent in parents():
            with contextlib.suppress(OSError):
                for thread in set(_threads(parent, nodes)) - done:
                    done.add(thread)
                    os.sched_setscheduler(int(thread.name), os.SCHED_FIFO, os.sched_param(PRIORITY))


def _threads(parent: int, nodes: tuple[str, ...]) -> Iterator[Path]:
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        for child in children.read_text().split():
            if any(node in Path(f"/proc/{child}/cmdline").read_text() for node in nodes):
                yield from Path(f"/proc/{child}/task").iterdir()
