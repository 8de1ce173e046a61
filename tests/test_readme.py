"""README and docs are promises: what they link to is there, and the commands they show are understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import cli

ROOT = Path(cli.__file__).resolve().parent
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
NAMES = "|".join(row.name for row in cli.COMMANDS)
# In a block of commands, at the start of a README's table row, and in the middle of a sentence. What a reader
# fills in is left out.
IN_A_BLOCK = rf"^(?:\.venv/bin/)?jepa-arm ((?:{NAMES})\b[^#\n…]*)"
IN_A_TABLE = rf"^\| `((?:{NAMES})\b[^`…]*)`"
IN_A_SENTENCE = rf"`jepa-arm ((?:{NAMES})\b[^`…]*)`"


def relative(page: Path) -> str:
    return str(page.relative_to(ROOT))


def links(page: Path) -> set[str]:
    return set(re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")))


def commands(page: Path) -> set[str]:
    """Without the name of the program, in one line. A sentence may name a command without its options."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    complete = set(re.findall(IN_A_BLOCK, text, re.MULTILINE))
    if page == README:
        complete |= set(re.findall(IN_A_TABLE, text, re.MULTILINE))
    named = {match for match in re.findall(IN_A_SENTENCE, text) if " " in match}
    return {" ".join(command.split()) for command in complete | named}


LINKS = sorted((relative(page), link) for page in PAGES for link in links(page))
COMMANDS = sorted((relative(page), command) for page in PAGES for command in commands(page))


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_what_a_page_links_to_is_there(page, link):
    assert ((ROOT / page).parent / link).exists(), f"{page} links to {link}"


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_the_commands_of_a_page_are_understood(page, command):
    arguments = shlex.split(command)
    parsed = cli.make_parser(arguments).parse_args(arguments)
    assert vars(parsed)["_command"] == arguments[0]


def test_the_readme_shows_every_command():
    assert {command.split()[0] for command in commands(README)} == {row.name for row in cli.COMMANDS}


def test_the_page_on_jetsons_names_every_command_of_the_way():
    shown = {command.split()[0] for command in commands(ROOT / "docs" / "jetson.md")}
    assert shown >= {
        "doctor",
        "scan",
        "calibrate",
        "cameras",
        "collect",
        "train",
        "export",
        "build-engine",
        "stop",
    }
