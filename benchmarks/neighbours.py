"""`bench --busy`: a neighbour on every other core, which moves memory and multiplies matrices in turns.

What is measured has a core to itself meanwhile, so what a neighbour takes from it is what cores share: the
bandwidth of the memory, the last cache, the clock, and where two threads of a core count as two, the core.
"""

from __future__ import annotations

import itertools
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.errors import BenchmarkError

WORK, REST = b"w", b"r"
TURN_S = 2e-3
# Memory far above the caches, read and written together; matrices well within them.
MOVED_BYTES, PIECES = 1 << 27, 64
SIDE = 256


@contextmanager
def busy_neighbours() -> Iterator[Neighbours]:
    """This process on one of its cores, and a neighbour, at rest, on each of the others.

    Raises BenchmarkError where there are no others.
    """
    core, others = cores_to_share()
    processes = [start_neighbour(other) for other in others]
    try:
        with on_core(core):
            neighbours = Neighbours(core, others, processes)
            neighbours.rest()  # answered as soon as they have started
            yield neighbours
    finally:
        for process in processes:
            process.communicate()  # the end of its input is the end of it


def cores_to_share() -> tuple[int, tuple[int, ...]]:
    """The core for what is measured, and those for neighbours. Raises BenchmarkError if there is only one."""
    *others, core = sorted(os.sched_getaffinity(0))
    if not others:
        raise BenchmarkError(
            f"--busy needs a core for the neighbour, and this process may use core {core} only: "
            "leave --busy out, or give it two (taskset -c 0,1)"
        )
    return core, tuple(others)


class Neighbours:
    """What keeps `cores` busy while `core` is measured. Both methods return when it is so.

    Raises BenchmarkError when a neighbour has ended: what follows would be measured alone.
    """

    def __init__(
        self, core: int, cores: tuple[int, ...], processes: Sequence[subprocess.Popen[bytes]]
    ) -> None:
        self.core, self.cores = core, cores
        self._processes = processes

    def work(self) -> None:
        self._tell(WORK)

    def rest(self) -> None:
        self._tell(REST)

    def described(self) -> dict[str, Any]:
        """Which core was measured, which were busy, and whether one of these is a thread of the same core."""
        shared = not siblings(self.core).isdisjoint(self.cores)
        return {"core": self.core, "busy_cores": list(self.cores), "share_a_core": shared}

    def _tell(self, word: bytes) -> None:
        try:
            for process in self._processes:
                assert process.stdin is not None
                process.stdin.write(word)
        except BrokenPipeError:
            pass  # told below, by the answer that does not come
        for process, core in zip(self._processes, self.cores, strict=True):
            assert process.stdout is not None
            if process.stdout.read(1) != word:
                raise BenchmarkError(f"the busy neighbour on core {core} has ended: measure again")


def start_neighbour(core: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.neighbours", str(core)]
    # In a session of its own Ctrl-C goes to this process alone, whose end is that of the neighbour's input.
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
    return subprocess.Popen(command, start_new_session=True, **pipes)


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Every thread of this process on `core`, those that runtimes have made before included."""
    whole, before = os.sched_getaffinity(0), {}
    for thread in own_threads():
        with suppress(ProcessLookupError):  # it has ended meanwhile
            before[thread] = os.sched_getaffinity(thread)
            os.sched_setaffinity(thread, {core})
    try:
        yield
    finally:
        for thread in own_threads():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(thread, before.get(thread, whole))


def own_threads() -> list[int]:
    return [int(entry.name) for entry in Path("/proc/self/task").iterdir()]


def siblings(core: int, system: Path = Path("/sys/devices/system/cpu")) -> set[int]:
    """The cores that are threads of the one that `core` is a thread of; empty where that is not told."""
    try:
        text = (system / f"cpu{core}" / "topology" / "thread_siblings_list").read_text()
    except OSError:
        return set()
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found - {core}


# --- the neighbour itself ---


def neighbour(core: int, commands: int = 0, answers: int = 1) -> None:
    """Work or rest on `core` as told through the file `commands`, until that ends."""
    os.sched_setaffinity(0, {core})
    jobs, working = itertools.cycle(make_jobs()), False
    while True:
        if not working or select.select([commands], [], [], 0)[0]:
            word = os.read(commands, 1)
            if not word:
                return
            working = word == WORK
            os.write(answers, word)
            continue
        job, until = next(jobs), time.perf_counter() + TURN_S
        while time.perf_counter() < until:
            job()


def make_jobs() -> tuple[Callable[[], object], Callable[[], object]]:
    """Moving memory and multiplying matrices, some tenths of a millisecond a call."""
    source, target = np.ones((2, PIECES, MOVED_BYTES // 2 // PIECES), np.uint8)
    pieces = itertools.cycle(zip(source, target, strict=True))
    factor = np.random.default_rng(0).standard_normal((SIDE, SIDE), dtype=np.float32)
    product = np.empty_like(factor)

    def move() -> None:
        piece, place = next(pieces)
        np.copyto(place, piece)

    return move, lambda: np.matmul(factor, factor, out=product)


if __name__ == "__main__":
    neighbour(int(sys.argv[1]))
