"""Keys of the terminal, one by one and at once; of whatever standard input is where that is no terminal."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty

READ_SIZE = 1024
SEQUENCES = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1b[C": "right",
    b"\x1b[D": "left",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\x1bOC": "right",
    b"\x1bOD": "left",
    b"\r": "enter",
    b"\n": "enter",
}


class Terminal:
    """While open, keys need no Enter and are not echoed. Ctrl-C stays what it is."""

    def __init__(self) -> None:
        self._file = sys.stdin.fileno()
        self._before: list | None = None
        self._listening = True

    def __enter__(self) -> Terminal:
        if os.isatty(self._file):
            self._before = termios.tcgetattr(self._file)
            tty.setcbreak(self._file)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            termios.tcsetattr(self._file, termios.TCSADRAIN, self._before)
            self._before = None

    def keys(self) -> list[str]:
        """The keys pressed since the last call: characters, "enter", "up", "down", "left", "right"."""
        pressed = b""
        while self._listening and select.select([self._file], [], [], 0.0)[0]:
            read = os.read(self._file, READ_SIZE)
            self._listening = bool(read)
            pressed += read
        return parsed(pressed)


def parsed(pressed: bytes) -> list[str]:
    keys = []
    while pressed:
        found = next((sequence for sequence in SEQUENCES if pressed.startswith(sequence)), None)
        keys.append(SEQUENCES[found] if found else pressed[:1].decode("ascii", "replace"))
        pressed = pressed[len(found) if found else 1 :]
    return keys
