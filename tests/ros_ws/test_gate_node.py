"""The gate as a node: emergency stops, floods of commands, and what its status counts."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from jepa_arm_bringup.domain import running_domains
from jepa_arm_bringup.graph import Graph
from jepa_arm_interfaces.msg import SafetyStatus
from jepa_arm_ros import qos
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

import cli

from .conftest import Operator, Peer, now_ns
from .lone_gate import LoneGate, lone_gate  # noqa: F401

pytestmark = pytest.mark.ros

MOST_S = 0.2


def reset(peer: Peer) -> Trigger.Response:
    client = peer.node.create_client(Trigger, "safety/reset")
    assert peer.spin_until(client.service_is_ready)
    answer = client.call_async(Trigger.Request())
    assert peer.spin_until(answer.done)
    return answer.result()


def counters(status: SafetyStatus) -> dict[str, int]:
    return dict(zip(status.counter_names, status.counter_values))


def test_an_emergency_stop_on_its_topic_is_latched_until_released_and_reset(
    lone_gate: LoneGate,  # noqa: F811
) -> None:
    peer = lone_gate.peer
    button = peer.node.create_publisher(Bool, "safety/e_stop", qos.STATUS)
    assert peer.spin_until(lambda: button.get_subscription_count() > 0)
    button.publish(Bool(data=True))
    stopped = SafetyStatus.STOPPED
    assert lone_gate.plan_until(SafetyStatus.CALM, lambda: lone_gate.status.state == stopped)
    assert lone_gate.status.reason == "e_stop"
    assert counters(lone_gate.status)["e_stop"] >= 1
    assert not reset(peer).success
    button.publish(Bool(data=False))
    assert peer.spin_until(lambda: reset(peer).success)
    assert lone_gate.plan_until(SafetyStatus.CALM, lambda: lone_gate.moved > 1e-4)


def test_an_emergency_stop_of_ones_own_is_asked_by_the_node(
    peer: Peer,
    start_node: Callable[..., object],
    activate: Callable[..., str],
    own_domain: int,
    tmp_path: Path,
) -> None:
    button = tmp_path / "pressed"
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {"BUTTON_FILE": str(button), "PYTHONPATH": path}
    gate = LoneGate(peer)
    parameters = LoneGate.PATIENCE | {"e_stop": "file_button:FileButton"}
    start_node("gate_node", own_domain, environment=environment, **parameters)
    assert activate("gate", own_domain) == "active"
    assert gate.plan_until(SafetyStatus.CALM, lambda: gate.moved > 1e-4)
    button.touch()
    assert peer.spin_until(lambda: gate.status.state == SafetyStatus.STOPPED)
    assert (gate.status.reason, gate.status.text) == ("e_stop", "FileButton is pressed")
    assert reset(peer).message == "FileButton is pressed; release it, then reset"
    button.unlink()
    assert reset(peer).success


def test_a_flooded_gate_brings_the_arm_to_rest_within_200_ms(
    peer: Peer, start_node: Callable[..., object], activate: Callable[..., str], own_domain: int
) -> None:
    gate = LoneGate(peer)
    start_node("gate_node", own_domain, **LoneGate.PATIENCE | {"max_command_rate_hz": 200.0})
    assert activate("gate", own_domain) == "active"
    planner = peer.node.create_timer(0.05, lambda: gate.plan(SafetyStatus.CALM))
    assert peer.spin_until(lambda: gate.moved > 1e-4)
    planner.cancel()
    began_at = time.monotonic()
    flood = gate.command()  # made once: the arm of this test follows nothing while it sends them
    for _ in range(1000):
        gate.commands.publish(flood)
    assert peer.spin_until(lambda: gate.status.state == SafetyStatus.STOPPED)
    assert gate.status.reason == "command_rate"
    assert gate.moved_at - began_at <= MOST_S


def test_a_gate_that_was_held_up_while_the_arm_moved_stops_it_until_reset(
    peer: Peer,
    start_node: Callable[..., subprocess.Popen[str]],
    activate: Callable[..., str],
    own_domain: int,
) -> None:
    gate = LoneGate(peer)
    process = start_node("gate_node", own_domain, **LoneGate.PATIENCE | {"max_late_s": 0.1})
    assert activate("gate", own_domain) == "active"
    assert gate.plan_until(SafetyStatus.CALM, lambda: gate.moved > 1e-4)
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.15)  # the fault itself
    process.send_signal(signal.SIGCONT)
    assert peer.spin_until(lambda: gate.status.state == SafetyStatus.STOPPED)
    assert gate.status.reason == "deadline_missed"
    assert "held up for" in gate.status.text and "at most 100 ms" in gate.status.text
    assert reset(peer).success
    assert gate.plan_until(SafetyStatus.CALM, lambda: gate.moved > 1e-4)


def test_one_command_stops_the_arm_from_any_terminal_and_lets_it_go_on(
    running_graph: Graph, operator: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    assert running_graph.domain_id in running_domains()
    operator.pursue_until_moving()
    stop_ns = now_ns()
    assert cli.main(["stop", "--domain-id", str(running_graph.domain_id)]) == 0
    assert operator.seconds_until_rest(stop_ns, watch_s=3.0) >= 0.0
    assert operator.stops_for("operator_stop")
    assert cli.main(["stop", "--reset", "--domain-id", str(running_graph.domain_id)]) == 0
    assert "ready" in capsys.readouterr().out
    operator.wait_until_moving()


def test_where_no_graph_runs_the_command_says_so(
    own_domain: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jepa_arm_bringup.stop.ANSWERS_WITHIN_S", 0.3)
    assert cli.main(["stop", "--domain-id", str(own_domain)]) == 1
    assert "no safety gate answers at safety/stop" in capsys.readouterr().out
    monkeypatch.setattr("jepa_arm_bringup.domain.running_domains", lambda: [])
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)
    assert cli.main(["stop"]) == 2
    assert "no jepa-arm graph runs on this machine" in capsys.readouterr().err
