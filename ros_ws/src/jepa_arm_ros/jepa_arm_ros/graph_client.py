"""What clients of a running graph are made of: a node of the caller's process, and the gate's services.

    with GraphClient(domain_id, "listener") as client:
        client.node.create_subscription(...)
        client.spin(2.0)

`GateClient` knows what the safety gate does as well, stops it and resets it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import rclpy
from jepa_arm_interfaces.msg import SafetyStatus
from rclpy.client import Client
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.experimental.events_executor import EventsExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from std_srvs.srv import Trigger

from jepa_arm_ros import qos, signals
from jepa_arm_ros.errors import EpisodeError

if TYPE_CHECKING:
    from typing_extensions import Self

# How long is waited for anything, if nothing else is said.
ANSWER_TIMEOUT_S = 10.0
# In one piece, EventsExecutor would keep Python from seeing a signal.
SPIN_SLICE_S = 0.05


class GraphClient:
    """A node in ROS domain `domain_id`. One thread uses it; callbacks run while it spins. Signals stay the
    caller's.
    """

    def __init__(self, domain_id: int, name: str) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain_id, signal_handler_options=SignalHandlerOptions.NO)
        self.node: Node = rclpy.create_node(name, context=self._context)
        self._executor = _executor(self._context)
        self._executor.add_node(self.node)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._executor.remove_node(self.node)
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def spin(self, seconds: float) -> None:
        """Handle what comes in for so long."""
        self.spin_until(lambda: False, seconds)

    def spin_until(self, done: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Handle what comes in until `done()`; False if it is not within `timeout_s`."""
        deadline = time.monotonic() + (ANSWER_TIMEOUT_S if timeout_s is None else timeout_s)
        while not done():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            with signals.deferred():
                self._executor.spin_until_future_complete(Future(), min(left_s, SPIN_SLICE_S))
        return True

    def wait_for(self, future: Future, what: str, timeout_s: float | None = None) -> Any:
        """The result of `future`. Raises `EpisodeError`, naming `what` does not answer."""
        timeout_s = ANSWER_TIMEOUT_S if timeout_s is None else timeout_s
        if not self.spin_until(future.done, timeout_s):
            raise EpisodeError(f"{what} did not answer within {timeout_s:g} s")
        return future.result()

    def call(self, client: Client, request: Any) -> Any:
        """The answer of a service. Raises `EpisodeError` if there is none in time."""
        if not self.spin_until(client.service_is_ready):
            raise EpisodeError(f"there is no service {client.srv_name}: is the graph running in this domain?")
        return self.wait_for(client.call_async(request), f"service {client.srv_name}")


class GateClient(GraphClient):
    """Listens to the safety gate too: `safety` is what it last said of itself, None before it has."""

    def __init__(self, domain_id: int, name: str) -> None:
        super().__init__(domain_id, name)
        self.safety: SafetyStatus | None = None
        self._stop = self.node.create_client(Trigger, "safety/stop")
        self._reset = self.node.create_client(Trigger, "safety/reset")
        self.node.create_subscription(SafetyStatus, "safety/status", self._took_safety, qos.STATUS)

    @property
    def stopped(self) -> bool:
        """Whether the gate has stopped the arm, or does so now."""
        return self.safety is not None and self.safety.state in (SafetyStatus.STOPPING, SafetyStatus.STOPPED)

    def stop(self) -> None:
        """The operator's stop: the arm comes to rest and stays there until `reset_safety`.

        Raises `EpisodeError` if the gate does not answer.
        """
        self.call(self._stop, Trigger.Request())

    def reset_safety(self) -> None:
        """Make a stopped gate go on from the joints as measured. Raises `EpisodeError` if it refuses."""
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while not (answer := self.call(self._reset, Trigger.Request())).success:
            if time.monotonic() > deadline:
                raise EpisodeError(f"the safety gate does not reset: {answer.message}")
            self.spin(SPIN_SLICE_S)
        self.spin_until(lambda: self.safety is not None and not self.safety.reason)

    def _took_safety(self, message: SafetyStatus) -> None:
        self.safety = message


def _executor(context: rclpy.Context) -> Executor:
    try:
        return EventsExecutor(context=context)
    except (OSError, RuntimeError):
        # It dumps crashes to stderr, and refuses one that is closed or no file: an arm is stopped even so.
        return SingleThreadedExecutor(context=context)
