"""The recording session: moves the arm as its source says, and makes rows of what comes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np
from jepa_arm_ros.arm_client import ArmClient
from rich.console import Console
from rich.live import Live
from rich.text import Text

from hardware.arm.contract import JointCommand
from hardware.camera.contract import Frame
from hardware.kinematics import Kinematics
from hardware.robot import Robot
from hardware.teleop.contract import Source
from jepa_arm_bringup.errors import GraphError
from jepa_arm_bringup.terminal import Terminal
from perception.errors import DatasetError
from perception.lerobot.assembly import Assembler
from perception.lerobot.running import Row, RunningEpisode
from perception.lerobot.writer import DatasetWriter

COMMAND_PERIOD_S = 1 / 30
DRAW_PERIOD_S = 0.25
# Long enough for the arm to rest after its last command, before the files keep this process busy.
REST_S = 0.3
SILENT_AFTER_S = 1.0
FIRST_PICTURE_WITHIN_S = 10.0
KEYS = "Enter: end, r: again, q: quit"
WAITING = "Enter: next episode, q: quit"


@dataclass(frozen=True)
class Wanted:
    """What is to be recorded. Without `episodes` or `seconds` keys say when it ends."""

    task: str
    episodes: int | None
    seconds: float | None
    automatic: bool  # one episode after the other, without a key


class Recorder:
    def __init__(
        self,
        robot: Robot,
        client: ArmClient,
        source: Source,
        writer: DatasetWriter,
        terminal: Terminal,
        wanted: Wanted,
        ended: Callable[[], str],
        tell: Callable[[str], None],
    ) -> None:
        """`ended` names a process of the graph that is gone, or ""; `tell` gets a line for each event."""
        self._robot, self._client, self._source, self._writer = robot, client, source, writer
        self._terminal, self._wanted, self._ended, self._tell = terminal, wanted, ended, tell
        self._kinematics = Kinematics(robot)
        self._sent: JointCommand | None = None
        self._done = 0
        self._quit = False
        # What came while spinning, in its order: it is worked on outside of ROS's callbacks.
        self._came: list[Callable[[Assembler], Iterable[Row] | None]] = []
        self._picture_s = time.monotonic()
        console = Console()
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._watched, self._draw_at = console.is_terminal, 0.0

    def run(self) -> None:
        """Until enough episodes are there, or q. Raises GraphError if arm, gate or camera go away, or if the
        gate stops an arm that plays by itself: only a person resets it.
        """
        client = self._client
        client.wait_ready()
        client.on_state = lambda state: self._came.append(
            lambda rows: rows.state(state.names, state.positions, state.stamp_ns)
        )
        client.on_setpoint = lambda names, positions, at_ns: self._came.append(
            lambda rows: rows.setpoint(names, positions, at_ns)
        )
        client.on_frame = self._took_frame
        self._tell(f"ready. {self._source.help}. {KEYS}")
        if self._watched:
            self._live.start()
        try:
            while not self._quit and self._done != self._wanted.episodes:
                if self._wanted.automatic or self._waited():
                    self._episode()
        finally:
            self._live.stop()

    def _episode(self) -> None:
        """Record one, and keep it unless it is to be done again."""
        if self._client.stopped:
            if self._wanted.automatic:
                self._give_up("stopped")
            self._client.reset_safety()
        self._came.clear()
        self._picture_s = time.monotonic() + FIRST_PICTURE_WITHIN_S
        running = self._writer.begin(self._wanted.task)
        rows = Assembler(self._robot.joint_names, self._writer.recording.fps, self._kinematics.tool_position)
        again, why = False, ""
        try:
            while not why:
                why = self._step(running, rows)
                again = why == "again"
        except KeyboardInterrupt:
            self._keep(running, rows, "interrupted")
            raise
        self._rest()
        if again:
            self._writer.discard(running)
            self._tell("discarded")
        else:
            self._keep(running, rows, why)
        if why in ("gone", "stopped") and self._wanted.automatic:
            self._give_up(why)

    def _step(self, running: RunningEpisode, rows: Assembler) -> str:
        """A thirtieth of a second of it; why it ends, or ""."""
        self._move()
        came, self._came = self._came, []
        try:
            complete = [row for take in came for row in take(rows) or ()]
        except DatasetError as error:
            self._tell(str(error))
            return "gone"
        for row in complete:
            if not self._is_full(running):
                running.add(row)
        self._draw(f"episode {running.number}  {running.seconds:5.1f} s  {rows.repeated} repeated  {KEYS}")
        for key in self._terminal.keys():
            if key == "q":
                self._quit = True
            if ending := {"enter": "ended", "r": "again", "q": "ended"}.get(key):
                return ending
            self._source.press(key, time.monotonic())
        if self._is_full(running):
            return "ended"
        if self._ended() or time.monotonic() - self._picture_s > SILENT_AFTER_S:
            return "gone"
        return "stopped" if self._client.stopped else ""

    def _is_full(self, running: RunningEpisode) -> bool:
        return self._wanted.seconds is not None and running.seconds >= self._wanted.seconds

    def _waited(self) -> bool:
        """Move without recording until Enter (True) or q (False)."""
        while True:
            self._move()
            self._came.clear()
            self._draw(f"not recording  {WAITING}")
            for key in self._terminal.keys():
                if key == "q":
                    self._quit = True
                    return False
                if key == "enter":
                    return True
                self._source.press(key, time.monotonic())
            if gone := self._ended():
                raise GraphError(f"{gone} ended: see its log")

    def _move(self) -> None:
        client = self._client
        client.spin(COMMAND_PERIOD_S)
        if client.stopped or client.state is None:
            return
        command = self._source.command(client.state, time.monotonic())
        if command is not None:
            self._sent = command
            client.send(command)

    def _rest(self) -> None:
        """End the motion where it was going to."""
        client, sent = self._client, self._sent
        if sent is not None and sent.velocities.any() and not client.stopped and client.state is not None:
            at_rest = replace(sent, velocities=np.zeros_like(sent.velocities), stamp_ns=client.state.stamp_ns)
            client.send(at_rest)
            client.spin(REST_S)
        self._sent = None

    def _keep(self, running: RunningEpisode, rows: Assembler, why: str) -> None:
        number, seconds = running.number, running.seconds
        if running.rows == 0:
            self._writer.discard(running)
            self._tell(f"episode {number} is empty: {self._reason(why) or 'no picture came'}")
            return
        self._writer.finish(running)
        self._done += 1
        repeated = f", {rows.repeated} of {running.rows} pictures were lost" if rows.repeated else ""
        reason = self._reason(why)
        self._tell(f"episode {number}: {seconds:.1f} s{repeated}{f'; {reason}' if reason else ''}")

    def _reason(self, why: str) -> str:
        safety = self._client.safety
        if why == "stopped" and safety is not None:
            return f"the gate stopped the arm: {safety.text}"
        if why == "gone":
            gone = self._ended()
            return f"{gone} ended" if gone else "the camera sends no pictures"
        return ""

    def _give_up(self, why: str) -> NoReturn:
        raise GraphError(
            f"{self._reason(why)}; episodes added to {self._writer.folder}: {self._done}. "
            "Look at the arm, then record again: that adds to them"
        )

    def _took_frame(self, frame: Frame) -> None:
        self._picture_s = time.monotonic()
        self._came.append(lambda rows: rows.frame(frame.image, frame.stamp_ns))

    def _draw(self, words: str) -> None:
        now = time.monotonic()
        if self._watched and now >= self._draw_at:
            self._draw_at = now + DRAW_PERIOD_S
            safety = self._client.safety
            stopped = f"  gate: {safety.text}" if safety is not None and self._client.stopped else ""
            self._live.update(Text(words + stopped), refresh=True)
