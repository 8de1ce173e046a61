"""Bringing lifecycle nodes to active, again and again if they are started again."""

from __future__ import annotations

import time

import rclpy
from jepa_arm_ros import signals
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

# A service of a killed process is listed until DDS forgets it, and a request that comes too early is lost:
# so every request is repeated until it is answered.
ASK_AGAIN_S = 0.3
LOST_AFTER_S = 2.0
NEXT_TRANSITION = {
    State.PRIMARY_STATE_UNCONFIGURED: Transition.TRANSITION_CONFIGURE,
    State.PRIMARY_STATE_INACTIVE: Transition.TRANSITION_ACTIVATE,
}


class LifecycleManager:
    """Drives the nodes `names` of one domain. Used by one thread, which calls `spin` and `poll`."""

    def __init__(self, domain_id: int, names: tuple[str, ...]) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain_id, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node("jepa_arm_manager", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._managed = {name: _Managed(self._node, name) for name in names}

    def spin(self, timeout_s: float) -> None:
        with signals.deferred():
            self._executor.spin_once(timeout_sec=timeout_s)

    def started(self, name: str) -> None:
        """The process of `name` is new: begin with it from the start."""
        self._managed[name].restart()

    def poll(self, name: str) -> str:
        """Drive the node on; "starting", "configuring", "active" or "failed"."""
        return self._managed[name].poll()

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)


class _Managed:
    """One node on its way to active."""

    def __init__(self, node: Node, name: str) -> None:
        self._get = node.create_client(GetState, f"{name}/get_state")
        self._change = node.create_client(ChangeState, f"{name}/change_state")
        self.restart()

    def restart(self) -> None:
        self.phase = "starting"
        self._question: Future | None = None
        self._asked_at = 0.0
        self._transition: Future | None = None
        self._changed_at = 0.0

    def poll(self) -> str:
        if self.phase in ("active", "failed"):
            return self.phase
        now = time.monotonic()
        if self._transition is not None and self._transition.done():
            succeeded = self._transition.result().success
            self._transition = self._question = None
            if not succeeded:
                self.phase = "failed"
                return self.phase
        if self._question is not None and self._question.done():
            state = self._question.result().current_state.id
            self._question = None
            self._take_state(state, now)
        elif self._question is None or now - self._asked_at > ASK_AGAIN_S:
            self._ask(now)
        return self.phase

    def _ask(self, now: float) -> None:
        if self._question is not None:
            self._get.remove_pending_request(self._question)
            self._question = None
        if self._get.service_is_ready() and self._change.service_is_ready():
            self._question = self._get.call_async(GetState.Request())
            self._asked_at = now

    def _take_state(self, state: int, now: float) -> None:
        if state == State.PRIMARY_STATE_ACTIVE:
            self.phase = "active"
        elif state in NEXT_TRANSITION:
            # Asked well after the transition was requested and still the old state: the request was lost.
            # Not sooner: a busy node may answer the question first, and rclpy ends a node that is asked for
            # the same transition twice.
            lost = self._transition is not None and self._asked_at - self._changed_at > LOST_AFTER_S
            if self._transition is None or lost:
                request = ChangeState.Request(transition=Transition(id=NEXT_TRANSITION[state]))
                self._transition = self._change.call_async(request)
                self._changed_at = now
                self.phase = "configuring"
