"""What is remembered about this machine between runs, in ~/.cache/jepa-arm, which can always be deleted."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "jepa-arm"


def key_of(parts: Any) -> str:
    """A name for whatever JSON can hold: the same for equal `parts`, another for others."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Names this processor and what it can do, which for a virtual machine may be another at each start."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return platform.machine()
    told = [line for line in lines if line.startswith(("model name", "flags", "CPU part", "Features"))]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under another name and rename it: who reads `path` finds all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def recall(path: Path) -> dict[str, Any] | None:
    """What was remembered in `path`, or nothing where that cannot be read."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
