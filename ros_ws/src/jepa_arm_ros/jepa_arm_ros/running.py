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

from hardware.arm.priority import NEXT_PRIORITY, come_first

# EventsExecutor.spin() neither returns on a signal nor lets Python see one: spin in slices instead.
SPIN_SLICE_S = 0.2


def run_node(make_node: Callable[[], Node], urgent: bool = False) -> int:
    """Spin the node until SIGINT or SIGTERM. Returns the exit code: 2 for what the user can mend.

    An `urgent` node spins with real-time priority, where that is permitted: a control loop in its process
    waits for its callbacks, as Python runs one thread at a time.
    """
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
    if urgent:
        come_first(NEXT_PRIORITY)
    try:
        while not stop.done():
            executor.spin_until_future_complete(stop, SPIN_SLICE_S)
    finally:
        executor.remove_node(node)
        node.destroy_node()
        rclpy.shutdown()
    return 0


def exit_with(make_node: Callable[[], Node], urgent: bool = False) -> None:
    sys.exit(run_node(make_node, urgent))
