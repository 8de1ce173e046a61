"""Removing the shared memory that killed Fast DDS processes leave in /dev/shm, up to 35 MB each."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")


def remove_leaked_segments(folder: Path = SHARED_MEMORY) -> int:
    """Remove every Fast DDS segment whose owner is gone. Returns how many there were.

    A segment or port NAME comes with a semaphore and with a file NAME_el that its owner keeps locked and
    removes in the end. A port without that file has no owner; it lives on while another process maps it.
    """
    mapped = _mapped_files()
    removed = 0
    for name in {_segment_of(path.name) for path in folder.glob("*fastrtps_*")}:
        owner = folder / f"{name}_el"
        if _is_locked(owner) if owner.exists() else str(folder / name) in mapped:
            continue
        for leaked in (folder / name, folder / f"sem.{name}_mutex", owner):
            with suppress(OSError):  # gone meanwhile, or another user's
                leaked.unlink()
        removed += 1
    return removed


def _segment_of(file_name: str) -> str:
    return file_name.removeprefix("sem.").removesuffix("_mutex").removesuffix("_el")


def _is_locked(lock_file: Path) -> bool:
    """Whether a living process holds it, in this container or another."""
    try:
        descriptor = os.open(lock_file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # another user's
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _mapped_files() -> set[str]:
    """The Fast DDS files that other processes of this machine have mapped or open."""
    files: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        try:
            maps = (process / "maps").read_text(errors="replace")
            files.update(line.split()[-1] for line in maps.splitlines() if "fastrtps_" in line)
            files.update(
                target for fd in (process / "fd").iterdir() if "fastrtps_" in (target := os.readlink(fd))
            )
        except OSError:
            continue  # ended meanwhile, or another user's
    return files
