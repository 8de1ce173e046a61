"""Rows at an even rate out of what comes at its own: pictures, joint states and setpoints, each stamped.

    assembler = Assembler(robot.joint_names, fps=30, tool_of=kinematics.tool_position)
    assembler.state(names, positions, stamp_ns)
    assembler.setpoint(names, positions, stamp_ns)
    for row in assembler.frame(image, stamp_ns): episode.add(row)

A row holds a picture, the joints measured nearest to when it was taken, and as action the last setpoint that
was sent within the row's period after that. Pictures come a little early or late; one that was lost is made
up for by the one before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from perception.errors import DatasetError
from perception.lerobot.running import Row

Positions = NDArray[np.float64]
REMEMBERED_NS = 2_000_000_000
# With no picture for longer than this, what follows is another episode.
LONGEST_GAP_S = 1.0


class Assembler:
    """Of one episode. Joints are matched by name; `tool_of` maps positions (J,) rad to the tip (3,) m."""

    def __init__(
        self, joints: Sequence[str], fps: int, tool_of: Callable[[Positions], NDArray[np.float64]]
    ) -> None:
        self._joints, self._tool_of = tuple(joints), tool_of
        self._period_ns = 1e9 / fps
        self._states: deque[tuple[int, Positions]] = deque()
        self._setpoints: deque[tuple[int, Positions]] = deque()
        self._start_ns = 0
        self._pending: tuple[int, int, NDArray[np.uint8]] | None = None  # row, stamp, picture
        self.repeated = 0  # rows whose own picture was lost

    def state(self, names: Sequence[str], positions: Positions, stamp_ns: int) -> None:
        self._remember(self._states, names, positions, stamp_ns)

    def setpoint(self, names: Sequence[str], positions: Positions, stamp_ns: int) -> None:
        self._remember(self._setpoints, names, positions, stamp_ns)

    def frame(self, image: NDArray[np.uint8], stamp_ns: int) -> list[Row]:
        """The rows that are complete now that this picture has come.

        Raises DatasetError after a gap that no row can be made up for.
        """
        if self._pending is None:
            if self._states and self._setpoints:
                self._start_ns, self._pending = stamp_ns, (0, stamp_ns, image)
            return []
        last, before_ns, before = self._pending
        due = (stamp_ns - self._start_ns) / self._period_ns
        # It may be up to a period early or late before a row is left out or made up for.
        slot = last + 1 if last < due < last + 2 else round(due)
        if slot <= last:
            return []
        if (slot - last) * self._period_ns > LONGEST_GAP_S * 1e9:
            raise DatasetError(f"no picture came for {(slot - last) * self._period_ns * 1e-9:.1f} s")
        self._pending = (slot, stamp_ns, image)
        self.repeated += slot - last - 1
        return [self._row(before, before_ns + i * self._period_ns) for i in range(slot - last)]

    def _row(self, image: NDArray[np.uint8], at_ns: float) -> Row:
        measured = min(self._states, key=lambda entry: abs(entry[0] - at_ns))[1]
        sent = self._setpoints[0][1]
        for stamp_ns, positions in self._setpoints:
            if stamp_ns < at_ns + self._period_ns:
                sent = positions
        numbers = (measured, sent, self._tool_of(measured), self._tool_of(sent))
        return Row(image, *(np.asarray(values, dtype=np.float32) for values in numbers))

    def _remember(
        self,
        past: deque[tuple[int, Positions]],
        names: Sequence[str],
        positions: Positions,
        stamp_ns: int,
    ) -> None:
        index = {name: i for i, name in enumerate(names)}
        missing = [name for name in self._joints if name not in index]
        if missing:
            raise DatasetError(f"joint {missing[0]} is missing from what the arm measures or is sent")
        past.append((stamp_ns, np.array([positions[index[name]] for name in self._joints])))
        while past[-1][0] - past[0][0] > REMEMBERED_NS:
            past.popleft()
