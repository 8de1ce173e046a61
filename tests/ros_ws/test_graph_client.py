"""Whoever does not answer a client of the graph is named, and a planner that does not is stopped."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from jepa_arm_interfaces.action import PursueGoal
from jepa_arm_interfaces.msg import SafetyStatus
from jepa_arm_ros import qos
from jepa_arm_ros.errors import EpisodeError
from jepa_arm_ros.goal_client import GoalClient
from jepa_arm_ros.graph_client import GateClient
from rclpy.action import ActionServer
from std_srvs.srv import Trigger

from .conftest import ANSWERS_WITHIN_S, Peer

pytestmark = pytest.mark.ros

PICTURE = np.zeros((128, 128, 3), np.uint8)


class Gate:
    """A gate that says it is idle, refuses so many resets, and answers once it runs."""

    def __init__(self, domain_id: int, refusals: int = 0) -> None:
        self.asked: list[str] = []
        self._refusals = refusals
        self._peer = Peer(domain_id)
        node = self._peer.node
        self._status = node.create_publisher(SafetyStatus, "safety/status", qos.STATUS)
        node.create_service(Trigger, "safety/stop", self._on_stop)
        node.create_service(Trigger, "safety/reset", self._on_reset)
        self._status.publish(SafetyStatus(state=SafetyStatus.IDLE))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._spin)

    def run(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._peer.close()

    def _spin(self) -> None:
        self._peer.spin_until(self._ended.is_set, 10 * ANSWERS_WITHIN_S)

    def _on_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.asked.append("stop")
        stopped = SafetyStatus(state=SafetyStatus.STOPPED, reason="operator_stop", text="stopped")
        self._status.publish(stopped)
        response.success = True
        return response

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.asked.append("reset")
        response.success = self.asked.count("reset") > self._refusals
        response.message = "the arm is still coming to rest"
        if response.success:
            self._status.publish(SafetyStatus(state=SafetyStatus.IDLE))
        return response


@pytest.fixture
def gate(own_domain: int) -> Iterator[Gate]:
    gate = Gate(own_domain, refusals=3)
    yield gate
    gate.close()


@pytest.fixture
def silent_planner(peer: Peer) -> Iterator[ActionServer]:
    """It is there, and never does anything: nobody spins its node."""
    server = ActionServer(peer.node, PursueGoal, "pursue_goal", lambda handle: PursueGoal.Result())
    yield server
    server.destroy()


def test_a_stopped_gate_is_asked_until_it_resets(gate: Gate, own_domain: int) -> None:
    gate.run()
    with GateClient(own_domain, "someone") as client:
        client.stop()
        assert client.spin_until(lambda: client.stopped)
        client.reset_safety()
        assert not client.stopped and gate.asked == ["stop", *["reset"] * 4]


def test_what_a_signal_raises_within_a_callback_is_raised_after_it(own_domain: int) -> None:
    """Raised within, it would be lost in what calls Python from C++, or come out as some other error."""
    whole: list[bool] = []

    def on_timer() -> None:
        signal.raise_signal(signal.SIGINT)
        whole.append(True)

    with GateClient(own_domain, "someone") as client:
        client.node.create_timer(0.01, on_timer)
        with pytest.raises(KeyboardInterrupt):
            client.spin_until(lambda: False)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert whole


def test_a_gate_that_goes_on_refusing_is_named_with_its_reason(
    own_domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(own_domain, refusals=10_000)
    gate.run()
    try:
        with GateClient(own_domain, "someone") as client:
            client.stop()
            monkeypatch.setattr("jepa_arm_ros.graph_client.ANSWER_TIMEOUT_S", 1.0)
            with pytest.raises(EpisodeError, match="does not reset: the arm is still coming to rest"):
                client.reset_safety()
            assert client.stopped
    finally:
        gate.close()


def test_a_service_that_nobody_offers_or_answers_is_named(
    own_domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jepa_arm_ros.graph_client.ANSWER_TIMEOUT_S", 1.0)
    with GateClient(own_domain, "someone") as client:
        with pytest.raises(EpisodeError, match="there is no service safety/stop: is the graph running"):
            client.stop()
        gate = Gate(own_domain)  # which nobody spins
        try:
            with pytest.raises(EpisodeError, match="service safety/stop did not answer within 1 s"):
                client.stop()
        finally:
            gate.close()


def refusal(domain_id: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is told when the planner does not answer to a goal."""
    with GoalClient(domain_id) as client:
        client.wait_ready()
        monkeypatch.setattr("jepa_arm_ros.graph_client.ANSWER_TIMEOUT_S", 1.0)
        with pytest.raises(EpisodeError, match="the planner does not answer to the goal") as told:
            client.pursue(PICTURE)
    return str(told.value)


@pytest.mark.usefixtures("silent_planner")
def test_the_gate_stops_an_arm_whose_planner_is_silent(
    gate: Gate, own_domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.run()
    assert "the gate was told to stop the arm" in refusal(own_domain, monkeypatch)
    assert gate.asked == ["stop"]


@pytest.mark.usefixtures("silent_planner", "gate")
def test_a_person_is_told_to_stop_an_arm_whose_planner_and_gate_are_silent(
    own_domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "nor does the gate: use the arm's own emergency stop" in refusal(own_domain, monkeypatch)
