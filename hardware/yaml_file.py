"""Files that people write, robot files and arm files: read with errors that say what is wrong, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError


def read_yaml(path: Path, error: type[Exception]) -> Any:
    """What the file holds. Raises `error`, naming it, if it cannot be read or is not YAML."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as reason:
        raise error(f"{path}: cannot be read ({reason}); check the path and its permissions") from reason
    except yaml.YAMLError as reason:
        raise error(f"{path}: not valid YAML ({' '.join(str(reason).split())})") from reason


def first_problem(error: ValidationError, example: str) -> str:
    """One sentence for the first thing wrong, naming the key as it is written in the file.

    `example` is a file that shows every key.
    """
    problem: Any = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"]) or "top level"
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key; correct its spelling or remove it"
    if problem["type"] == "missing":
        return f"{key}: missing key; add it ({example} shows every key)"
    reason = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{key}: {reason}"
    return f"{key}: {reason[:1].lower()}{reason[1:]}, got {problem['input']!r}"
