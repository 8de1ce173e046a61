"""`jepa-arm up` as a user runs it."""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
STOPS_WITHIN_S = 10.0


class Up:
    """The command, its output so far, and its end."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "cli", "up", *arguments]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
        self.output = ""

    def wait_for(self, words: str, timeout_s: float) -> None:
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while words not in self.output:
                assert selector.select(deadline - time.monotonic()), f"no {words!r} in:\n{self.output}"
                read = os.read(self.process.stdout.fileno(), 4096)
                assert read, f"ended without {words!r}:\n{self.output}"
                self.output += read.decode()

    def wait_for_end(self, timeout_s: float) -> int:
        """Exit code."""
        self.output += self.process.communicate(timeout=timeout_s)[0].decode()
        return self.process.returncode

    def end(self, signal_number: int) -> int:
        self.process.send_signal(signal_number)
        return self.wait_for_end(STOPS_WITHIN_S)

    def kill_all(self) -> None:
        """For a test that failed: nothing of it goes on."""
        self.process.kill()
        for pid in nodes_in(self.domain_id) if "ROS domain" in self.output else []:
            os.kill(pid, signal.SIGKILL)
        self.process.communicate()

    @property
    def domain_id(self) -> int:
        found = re.search(r"ROS domain (\d+)", self.output)
        assert found is not None, self.output
        return int(found.group(1))


StartUp = Callable[..., Up]


def nodes_in(domain_id: int) -> list[int]:
    """The living processes of this domain, apart from the test's own."""
    wanted = f"ROS_DOMAIN_ID={domain_id}\0".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
