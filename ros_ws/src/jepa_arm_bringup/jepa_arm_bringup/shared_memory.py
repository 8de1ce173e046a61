"""Removing the shared memory that killed Fast DDS processes leave in /dev/shm, up to 35 MB each."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")


def remove_leaked_segments(folder: Path = SHARED_MEMORY) -> int:
    """Remove every Fast DDS segment that no living process holds. Returns how many there were.

    Each segment or port NAME has a file NAME_el that its users keep locked: whoever can lock it exclusively
    knows that they are gone.
    """
    removed = 0
    for lock_file in folder.glob("fastrtps_*_el"):
        name = lock_file.name.removesuffix("_el")
        try:
            descriptor = os.open(lock_file, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # gone meanwhile, or another user's
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # in use
        else:
            for leaked in (folder / name, folder / f"sem.{name}_mutex", lock_file):
                leaked.unlink(missing_ok=True)
            removed += 1
        finally:
            os.close(descriptor)
    return removed
