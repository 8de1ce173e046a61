"""Real-time priority for what must not wait for the rest of the machine."""

from __future__ import annotations

import os

# Above what others give real-time priority without need (1), below what the kernel keeps for itself (50).
PRIORITY = 10
# For a thread that shares an interpreter with one of the above, which waits while it waits. It takes this
# once its work is short: starting up with it would keep the rest of the machine waiting.
NEXT_PRIORITY = PRIORITY - 1
HOW_TO_PERMIT = (
    f"a busy machine may stop the arm; `@realtime - rtprio {PRIORITY}` in /etc/security/limits.conf permits "
    "it to that group (docs/arms.md, Control loops)"
)


def come_first(priority: int = PRIORITY) -> bool:
    """Give the calling thread real-time priority (SCHED_FIFO); False where that is not permitted.

    It takes root, CAP_SYS_NICE, or a line like `@realtime - rtprio 10` in /etc/security/limits.conf.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except PermissionError:
        return False
    return True
