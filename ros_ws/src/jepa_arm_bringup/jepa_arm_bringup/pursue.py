"""`jepa-arm pursue`: give a goal picture to the graph that runs here, and watch until it is reached.

Exit codes: 0 reached; 1 not reached, or stopped by the gate; 2 no graph, or a picture that is none.
"""

from __future__ import annotations

import argparse
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from jepa_arm_bringup.errors import GraphError, PictureError

if TYPE_CHECKING:
    import numpy as np
    from jepa_arm_ros.goal_client import GoalClient
    from numpy.typing import NDArray

EXAMPLE = "jepa-arm pursue goal.png --timeout 30"
TIMEOUT_S = 60.0
DRAW_PERIOD_S = 0.25
PLAIN_PERIOD_S = 1.0
INTERRUPTED = 130
CAUTIONS = ("", ", slowed", ", held until it is calm", "")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "picture", type=Path, metavar="PICTURE", help="as `jepa-arm snapshot` saves it: of this very camera"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=TIMEOUT_S,
        metavar="S",
        help=f"give up after so long; 0: never (default: {TIMEOUT_S:g})",
    )
    parser.add_argument("--domain-id", type=int, help="ROS domain of the graph (default: the one that runs)")


def run(args: argparse.Namespace) -> int:
    from jepa_arm_bringup.domain import domain_to_ask
    from jepa_arm_bringup.environment import enter_ros_environment

    if not (math.isfinite(args.timeout) and args.timeout >= 0):
        raise GraphError(f"--timeout {args.timeout:g}: seconds, 0 or more")
    image = read_picture(args.picture)
    domain = domain_to_ask(args.domain_id)
    enter_ros_environment()
    from jepa_arm_ros.errors import GoalRefused
    from jepa_arm_ros.goal_client import GoalClient

    with interruption() as interrupted, GoalClient(domain) as client:
        client.wait_ready(interrupted.is_set)
        if interrupted.is_set():
            return INTERRUPTED
        with Progress(client) as progress:
            try:
                ending = client.pursue(image, args.timeout, progress.draw, interrupted.is_set)
            except GoalRefused as error:
                raise PictureError(f"{args.picture}: {error}") from error
    decided = "" if ending.reached else f"{ending.decisions} decisions, "
    how = f" ({ending.elapsed_s:.1f} s, {decided}energy {number(ending.energy, 2)})"
    print(f"{ending.text}{how if ending.decisions else ''}")
    if interrupted.is_set():
        return INTERRUPTED
    return 0 if ending.reached else 1


def read_picture(path: Path) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) RGB. Raises PictureError if it is no picture, OSError if it cannot be read."""
    import cv2
    import numpy as np

    content = np.frombuffer(path.read_bytes(), np.uint8)
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    if image is None:
        raise PictureError(f"{path}: not a picture; `jepa-arm snapshot {path.stem}.png` takes one")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


@contextmanager
def interruption() -> Iterator[threading.Event]:
    """Set by Ctrl-C, SIGTERM and SIGHUP, which raise nothing: a second one does not cut the way to rest."""
    event = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        event.set()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Progress:
    """A line that tells how the pursuit goes; where nobody watches, a line a second."""

    def __init__(self, client: GoalClient) -> None:
        from rich.console import Console
        from rich.live import Live

        self._client = client
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._due_s = 0.0

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def draw(self) -> None:
        from rich.text import Text

        now_s = time.monotonic()
        if now_s < self._due_s:
            return
        if self._console.is_terminal:
            self._due_s = now_s + DRAW_PERIOD_S
            self._live.update(Text(self._line()), refresh=True)
        else:
            self._due_s = now_s + PLAIN_PERIOD_S
            print(self._line(), flush=True)

    def _line(self) -> str:
        from jepa_arm_bringup.status import STATES

        feedback, safety = self._client.feedback, self._client.safety
        if feedback is None or safety is None:
            return "waiting for the first decision"
        return (
            f"{number(feedback.steps_to_go, 1)} steps to go  energy {number(feedback.energy, 2)}  "
            f"surprise {number(feedback.surprise, 2)}  the gate is {STATES[safety.state]}"
            f"{CAUTIONS[safety.caution]}"
        )


def number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"
