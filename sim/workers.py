"""Where jobs run: in this process, in several, or on Ray. The results are the same wherever that is.

    with open_workers(count=4, ray=None) as workers:
        for result in workers.map(record_shard, jobs):      # as they finish, in any order
            ...

A job is a picklable argument of a function of some module, and may be run again: the jobs that a worker was
at when it died are given to others.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, TypeVar

from sim.errors import SimulationError

Job = TypeVar("Job")
Result = TypeVar("Result")

# So often in a row may workers die without that any job is finished.
DEATHS_FORGIVEN = 2


class Workers(Protocol):
    """Runs a function on jobs. `alone` is whether that is in this process, one job after the other."""

    alone: bool

    def map(self, function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        """Yield the results as they finish. Raises SimulationError if workers die again and again."""
        ...


def add_worker_arguments(parser: argparse.ArgumentParser, count: int | None, note: str) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--workers", type=int, default=count, help=note)
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="run on Ray instead: `auto` for the Ray that runs on this machine, or a new one that ends with "
        "the command; else the address of a cluster whose machines see the same folders",
    )


@contextmanager
def open_workers(count: int, ray: str | None) -> Iterator[Workers]:
    """`count` processes, or the Ray at the address `ray`; whatever was started ends with the block."""
    if count < 1:
        raise SimulationError(f"--workers {count}: ask for at least one")
    if ray is not None:
        with _ray_at(ray) as workers:
            yield workers
    elif count == 1:
        yield InThisProcess()
    else:
        with Processes(count) as processes:
            yield processes


class InThisProcess:
    alone = True

    def map(self, function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        yield from map(function, jobs)


class Processes:
    """Processes of this machine, started when the first job is."""

    alone = False

    def __init__(self, count: int) -> None:
        self.count = count
        self.pool = self._start()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        if kind is not None:
            # Nobody wants what they are at.
            for process in multiprocessing.active_children():
                process.terminate()
        self.pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        unfinished, deaths = dict(enumerate(jobs)), 0
        while unfinished:
            try:
                futures = {self.pool.submit(function, job): number for number, job in unfinished.items()}
                for future in as_completed(futures):
                    result = future.result()
                    del unfinished[futures[future]]
                    deaths = 0
                    yield result
            except BrokenProcessPool as error:
                deaths += 1
                if deaths > DEATHS_FORGIVEN:
                    raise _workers_die("fewer --workers") from error
                self.pool.shutdown()
                self.pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        spawn = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.count, spawn, _end_with_the_command)


class RayTasks:
    """Tasks of one core each on the Ray that this process is connected to."""

    alone = False

    def map(self, function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        import ray

        task = ray.remote(num_cpus=1, max_retries=DEATHS_FORGIVEN)(function)
        running = [task.remote(job) for job in jobs]
        try:
            while running:
                (finished, *_), running = ray.wait(running, num_returns=1)
                yield ray.get(finished)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise _workers_die(f"a larger Ray ({type(error).__name__})") from error
        finally:
            for left in running:
                ray.cancel(left, force=True)


@contextmanager
def _ray_at(address: str) -> Iterator[RayTasks]:
    import logging

    # No figures about its use are sent anywhere; read when ray is imported.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    quiet: dict[str, Any] = {
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    try:
        # Without an address Ray joins the one that runs here, else starts one.
        ray.init(address=None if address == "auto" else address, **quiet)
    except Exception as error:  # Ray raises bare ones too, when it takes more than 30 s to start
        raise SimulationError(
            f"--ray {address}: no Ray answers there ({error}); start one with `ray start --head`, "
            "then use --ray auto"
        ) from error
    try:
        yield RayTasks()
    finally:
        ray.shutdown()


def _workers_die(remedy: str) -> SimulationError:
    return SimulationError(
        "workers died again and again, perhaps for want of memory: run the same command again, with " + remedy
    )


def _end_with_the_command() -> None:
    """For processes: end quietly on Ctrl-C, which the command speaks to, and when the command was killed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    command = multiprocessing.parent_process()
    assert command is not None

    def follow() -> None:
        command.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
