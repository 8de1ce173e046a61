"""The running graph: every process of the table started, brought to active, started again, and stopped.

    with Graph({"task": "push", "bundle": "models/panda-push"}) as graph:
        graph.start()
        graph.wait_ready(30.0)

Call `enter_ros_environment()` before the first `import rclpy` of the process that does this.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from jepa_arm_bringup.domain import Domain, claim_domain
from jepa_arm_bringup.environment import ros_environment
from jepa_arm_bringup.errors import GraphError
from jepa_arm_bringup.processes import Process, World, parameters_of, processes_of
from jepa_arm_bringup.shared_memory import remove_leaked_segments

STOP_GRACE_S = 2.0
WATCH_PERIOD_S = 0.05
# A process that keeps ending is started again after 0.1, 0.2, 0.4 … s, at most this much later.
LONGEST_RESTART_DELAY_S = 5.0
STEADY_AFTER_S = 10.0
USER_ERROR = 2

_libc = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


class Graph:
    """The processes of one graph and the thread that looks after them. `stop` (or `with`) ends them all.

    `settings` are those of the process table, `without` names rows that are left out. `tell` gets one line
    for every change. With `log_dir` each process writes to `log_dir/NAME.log`, else to this process's output.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        domain_id: int | None = None,
        world: World = "simulated",
        without: tuple[str, ...] = (),
        log_dir: Path | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._settings = dict(settings)
        self._wanted_domain = domain_id
        self._log_dir = log_dir
        self._tell = tell
        table = (process for process in processes_of(world) if process.name not in without)
        self._running = {process.name: _Running(process) for process in table}
        self._domain: Domain | None = None
        self._watcher: threading.Thread | None = None
        self._stopping = threading.Event()
        self._changed = threading.Condition()

    def __enter__(self) -> Graph:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def domain_id(self) -> int:
        if self._domain is None:
            raise GraphError("the graph is not started")
        return self._domain.number

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._running)

    def start(self) -> None:
        """Start every process; does not wait for them. Raises `DomainBusy` if another graph is there."""
        remove_leaked_segments()
        self._domain = claim_domain(self._wanted_domain)
        self._tell(f"ROS domain {self.domain_id}")
        started = threading.Event()
        self._watcher = threading.Thread(target=self._watch, args=(started,), name="graph")
        self._watcher.start()
        started.wait()

    def wait_ready(self, timeout_s: float) -> None:
        """Until every node is active. Raises `GraphError` naming the node that is not, and why."""
        with self._changed:
            self._changed.wait_for(self._settled, timeout_s)
            phases = {running: running.phase for running in self._running.values()}
        for running, phase in phases.items():
            if phase in ("failed", "ended"):
                raise GraphError(f"{running.name} did not start: {running.last_words()}")
        for running, phase in phases.items():
            if phase != "active":
                raise GraphError(f"{running.name} is still {phase} after {timeout_s:g} s")

    def wait_phase(self, name: str, phase: str, timeout_s: float) -> bool:
        """Until process `name` is in `phase`; False if it is not within `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: self._running[name].phase == phase, timeout_s)

    def phase(self, name: str) -> str:
        """ "starting", "configuring", "active", "failed" (a transition was refused) or "ended"."""
        return self._running[name].phase

    def pid(self, name: str) -> int:
        process = self._running[name].process
        if process is None:
            raise GraphError(f"{name} is not started")
        return process.pid

    def kill(self, name: str, signal_number: int = signal.SIGKILL) -> None:
        os.kill(self.pid(name), signal_number)

    def ended(self) -> str:
        """The name of a process that ended and is not started again, or ""."""
        return next((running.name for running in self._running.values() if running.phase == "ended"), "")

    def stop(self) -> None:
        """End every process now, those that do not listen after `STOP_GRACE_S` by force. Leaves nothing."""
        if self._domain is None:
            return
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()
        alive = [running for running in self._running.values() if running.alive()]
        for running in alive:
            running.signal(signal.SIGINT)
        deadline = time.monotonic() + STOP_GRACE_S
        for running in alive:
            running.wait(deadline - time.monotonic())
        for running in self._running.values():
            running.close()
        remove_leaked_segments()
        self._domain.release()
        self._domain = None

    # The watching thread. It starts every process: their parent-death signal is tied to the thread that did.

    def _watch(self, started: threading.Event) -> None:
        from jepa_arm_bringup.lifecycle import LifecycleManager

        for running in self._running.values():
            self._spawn(running)
        started.set()
        manager = LifecycleManager(self.domain_id, self.names)
        try:
            while not self._stopping.is_set():
                manager.spin(WATCH_PERIOD_S)
                for running in self._running.values():
                    self._look_after(running, manager)
        finally:
            manager.close()

    def _look_after(self, running: _Running, manager: Any) -> None:
        if running.phase == "ended":
            return
        if running.alive():
            phase = manager.poll(running.name)
            if phase != running.phase:
                self._set_phase(running, phase)
        elif running.restart_at is None:
            self._took_end(running)
        elif time.monotonic() >= running.restart_at:
            manager.started(running.name)
            self._spawn(running)

    def _took_end(self, running: _Running) -> None:
        how = running.how_it_ended()
        if running.table.restart == "never" or running.exit_code == USER_ERROR:
            self._tell(f"{running.name}: {how}; it is not started again")
            self._set_phase(running, "ended")
            return
        delay_s = running.plan_restart()
        self._tell(f"{running.name}: {how}; starting it again in {delay_s:.1f} s")
        self._set_phase(running, "starting")

    def _spawn(self, running: _Running) -> None:
        running.start(self._settings, self.domain_id, self._log_dir)
        self._set_phase(running, "starting")

    def _set_phase(self, running: _Running, phase: str) -> None:
        with self._changed:
            changed = running.phase != phase
            running.phase = phase
            self._changed.notify_all()
        if changed:
            self._tell(f"{running.name}: {phase}")

    def _settled(self) -> bool:
        phases = [running.phase for running in self._running.values()]
        return all(phase == "active" for phase in phases) or "failed" in phases or "ended" in phases


class _Running:
    """One row of the table and the process that runs it now."""

    def __init__(self, table: Process) -> None:
        self.table = table
        self.phase = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.restart_at: float | None = None
        self._started_at = 0.0
        self._quick_ends = 0
        self._log: IO[bytes] | None = None
        self._log_path: Path | None = None

    @property
    def name(self) -> str:
        return self.table.name

    @property
    def exit_code(self) -> int | None:
        return None if self.process is None else self.process.poll()

    def start(self, settings: Mapping[str, Any], domain_id: int, log_dir: Path | None) -> None:
        self.close()
        if log_dir is not None:
            log_dir.mkdir(parents=True, exist_ok=True)
            self._log_path = log_dir / f"{self.name}.log"
            self._log = self._log_path.open("ab")
        self.process = subprocess.Popen(
            node_command(self.table, settings),
            env=node_environment(domain_id),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        self.restart_at = None
        self._started_at = time.monotonic()

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int) -> None:
        if self.process is not None and self.alive():
            os.killpg(self.process.pid, number)

    def wait(self, timeout_s: float) -> None:
        """For the process to end; by force after `timeout_s`."""
        if self.process is None:
            return
        try:
            self.process.wait(max(timeout_s, 0.0))
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.process.wait()

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    def plan_restart(self) -> float:
        now = time.monotonic()
        self._quick_ends = self._quick_ends + 1 if now - self._started_at < STEADY_AFTER_S else 0
        delay_s = min(0.1 * 2**self._quick_ends, LONGEST_RESTART_DELAY_S)
        self.restart_at = now + delay_s
        return delay_s

    def how_it_ended(self) -> str:
        code = self.exit_code
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def last_words(self) -> str:
        """The last line that the process wrote, where that was kept."""
        if self._log_path is None:
            return "see its message above"
        lines = self._log_path.read_text(errors="replace").strip().splitlines()
        return f"{lines[-1]} (all of it in {self._log_path})" if lines else "it said nothing"


def node_command(process: Process, settings: Mapping[str, Any]) -> list[str]:
    """How the row `process` is started here."""
    command = [sys.executable, "-m", f"{process.package}.{process.executable}", "--ros-args"]
    command += ["--disable-external-lib-logs", "-r", f"__node:={process.name}"]
    for name, value in parameters_of(process, settings).items():
        command += ["-p", f"{name}:={json.dumps(value)}"]
    for source, target in process.remaps.items():
        command += ["-r", f"{source}:={target}"]
    return command


def node_environment(domain_id: int) -> dict[str, str]:
    environment = ros_environment()
    environment["ROS_DOMAIN_ID"] = str(domain_id)
    environment["PYTHONUNBUFFERED"] = "1"
    # Five processes share few cores; each one's linear algebra is small and keeps to its own thread.
    environment.setdefault("OPENBLAS_NUM_THREADS", "1")
    environment.setdefault("OMP_NUM_THREADS", "1")
    return environment


def _die_with_parent() -> None:
    """Runs in the child before exec: whatever ends the parent ends the node too, in good order."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
