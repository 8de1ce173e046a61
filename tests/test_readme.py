"""The README is a promise: what it links to is there, and the commands it shows are understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import cli

ROOT = Path(cli.__file__).resolve().parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINKS = sorted(set(re.findall(r"\]\(([^)#:]+)\)", README)))
NAMES = "|".join(row.name for row in cli.COMMANDS)
COMMANDS = sorted(
    {
        line.strip()
        for line in re.findall(rf"^(?:\.venv/bin/)?jepa-arm ((?:{NAMES})\b[^#\n]*)", README, re.MULTILINE)
    }
    | set(re.findall(rf"^\| `((?:{NAMES})\b[^`]*)`", README, re.MULTILINE))
)


@pytest.mark.parametrize("link", LINKS)
def test_what_the_readme_links_to_is_there(link):
    assert (ROOT / link).exists(), f"README.md links to {link}"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_readme_are_understood(command):
    arguments = shlex.split(command)
    parsed = cli.make_parser(arguments).parse_args(arguments)
    assert vars(parsed)["_command"] == arguments[0]


def test_the_readme_shows_every_command():
    assert {command.split()[0] for command in COMMANDS} == {row.name for row in cli.COMMANDS}
