"""Surprise over the graph: what the planner asks of the gate slows, holds and stops the arm."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from jepa_arm_interfaces.msg import PlanStatus, SafetyStatus
from jepa_arm_ros import qos
from jepa_arm_ros.messages import image_message
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image

from hardware.camera.contract import Frame

from .conftest import ANSWERS_WITHIN_S, Operator, now_ns
from .lone_gate import LoneGate, lone_gate  # noqa: F401

pytestmark = pytest.mark.ros


@pytest.mark.parametrize("level, share", [(SafetyStatus.SLOW, 0.5), (SafetyStatus.HOLD, 0.0)])
def test_the_gate_takes_the_planners_caution_and_goes_on_when_it_is_calm_again(
    lone_gate: LoneGate,  # noqa: F811
    level: int,
    share: float,
) -> None:
    assert lone_gate.plan_until(level, lambda: lone_gate.status.caution == level)
    assert lone_gate.status.speed_share == share
    if level == SafetyStatus.HOLD:
        assert lone_gate.plan_until(level, lambda: lone_gate.moved == 0.0)
    assert lone_gate.status.state == SafetyStatus.ACTIVE
    calm = SafetyStatus.CALM
    assert lone_gate.plan_until(calm, lambda: lone_gate.status.caution == calm and lone_gate.moved > 1e-4)
    assert lone_gate.status.reason == ""


@pytest.mark.parametrize("level, reason", [(SafetyStatus.STOP, "surprise"), (200, "unknown_caution")])
def test_the_gate_stops_for_a_surprise_and_for_a_level_that_is_none(
    lone_gate: LoneGate,  # noqa: F811
    level: int,
    reason: str,
) -> None:
    lone_gate.plan(level)
    stopped = SafetyStatus.STOPPED
    assert lone_gate.plan_until(SafetyStatus.CALM, lambda: lone_gate.status.state == stopped)
    assert lone_gate.status.reason == reason and lone_gate.status.speed_share == 0.0


@pytest.fixture
def plans(operator: Operator) -> Iterator[Publisher]:
    """Speaks where the planner does."""
    publisher = operator.node.create_publisher(PlanStatus, "planner/status", qos.RECORD)
    # The gate and the operator listen.
    assert operator.spin_until(lambda: publisher.get_subscription_count() >= 2, ANSWERS_WITHIN_S)
    yield publisher
    operator.node.destroy_publisher(publisher)


def test_a_hold_brings_the_arm_to_rest_and_it_goes_on_by_itself(operator: Operator, plans: Publisher) -> None:
    operator.pursue_until_moving()
    asked_ns = now_ns()
    plans.publish(PlanStatus(caution=SafetyStatus.HOLD))
    assert operator.spin_until(lambda: operator.safety.caution == SafetyStatus.HOLD, ANSWERS_WITHIN_S)
    assert operator.safety.speed_share == 0.0
    assert operator.seconds_until_rest(asked_ns, watch_s=0.9) <= 0.2
    assert operator.spin_until(lambda: operator.safety.caution == SafetyStatus.CALM, ANSWERS_WITHIN_S)
    operator.wait_until_moving()
    assert operator.safety.reason == ""


def test_a_surprise_stops_the_arm_until_reset(operator: Operator, plans: Publisher) -> None:
    operator.pursue_until_moving()
    asked_ns = now_ns()
    plans.publish(PlanStatus(caution=SafetyStatus.STOP))
    assert operator.stops_for("surprise")
    assert operator.seconds_until_rest(asked_ns) <= 0.2
    operator.reset_safety()
    operator.wait_until_moving()


def test_pictures_that_turn_black_stop_the_arm(operator: Operator) -> None:
    operator.pursue_until_moving()
    pictures = operator.node.create_publisher(Image, "camera/image_raw", qos.IMAGE)
    assert operator.spin_until(lambda: pictures.get_subscription_count() >= 2, ANSWERS_WITHIN_S)
    operator.pause_camera(True)
    black = np.zeros((128, 128, 3), np.uint8)
    operator.reset_safety()
    assert operator.stops_for(
        "surprise", meanwhile=lambda: pictures.publish(image_message(Frame(black, now_ns(), "camera")))
    )
    operator.node.destroy_publisher(pictures)
