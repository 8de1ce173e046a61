"""What every node's `main` does: start, spin until told to stop, and say clearly why it could not."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

import rclpy
from rclpy.experimental.events_executor import EventsExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

# EventsExecutor.spin() neither returns on a signal nor lets Python see one: spin in slices instead.
SPIN_SLICE_S = 0.2


def run_node(make_node: Callable[[], Node]) -> int:
    """Spin the node until SIGINT or SIGTERM. Returns the exit code: 2 for what the user can mend."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    stop: Future = Future()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.done() or stop.set_result(None))
    try:
        node = make_node()
    except (ValueError, OSError) as error:
        rclpy.logging.get_logger("jepa_arm").fatal(str(error))
        rclpy.shutdown()
        return 2
    executor = EventsExecutor()
    executor.add_node(node)
    try:
        while not stop.done():
            executor.spin_until_future_complete(stop, SPIN_SLICE_S)
    finally:
        executor.remove_node(node)
        node.destroy_node()
        rclpy.shutdown()
    return 0


def exit_with(make_node: Callable[[], Node]) -> None:
    sys.exit(run_node(make_node))
