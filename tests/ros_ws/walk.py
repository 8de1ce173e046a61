"""The commands of docs/first-arm.md, for a test that walks its way: each is taken from the page itself."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping

from .up_command import ROOT

PAGE = ROOT / "docs" / "first-arm.md"
IN_A_BLOCK = r"^jepa-arm ([^#\n]+)"


class Walk:
    """`take` gives a command of the page as the test runs it; `left` are those that nobody took.

    `here` says what a word of the page is on this desk: a port, a camera, a path.
    """

    def __init__(self, here: Mapping[str, str]) -> None:
        text = PAGE.read_text(encoding="utf-8").replace("\\\n", " ")
        self.left = [" ".join(line.split()) for line in re.findall(IN_A_BLOCK, text, re.MULTILINE)]
        self._here = here

    def take(self, *words: str, **options: object) -> list[str]:
        """The arguments of the first command left that begins with the first of `words` and has the others in
        it. `options` are set to what a test needs: a length that it can wait for, a domain."""
        beginning, *others = words
        for command in self.left:
            if command.startswith(beginning) and all(word in command for word in others):
                self.left.remove(command)
                return self.here(command, **options)
        raise AssertionError(f"{PAGE.name} has no command {' … '.join(words)}; left are {self.left}")

    def here(self, command: str, **options: object) -> list[str]:
        arguments = [self._here.get(word, word) for word in shlex.split(command)]
        for name, value in options.items():
            option = f"--{name.replace('_', '-')}"
            if option not in arguments:
                arguments += [option, ""]
            arguments[arguments.index(option) + 1] = str(value)
        return arguments

    def leave(self, commands: Iterable[str]) -> None:
        """Those that a test cannot run, by what they begin with."""
        for beginning in commands:
            found = [command for command in self.left if command.startswith(beginning)]
            assert found, f"{PAGE.name} has no command {beginning}"
            self.left = [command for command in self.left if command not in found]
