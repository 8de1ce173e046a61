"""Parameters are declared once, described, bounded, and read into a frozen dataclass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import FrozenInstanceError, dataclass

import pytest
import rclpy
from jepa_arm_ros.errors import ParameterError
from jepa_arm_ros.parameters import parameter, read_parameters
from rclpy.node import Node
from rclpy.parameter import Parameter

pytestmark = pytest.mark.ros


@dataclass(frozen=True)
class Example:
    name: str = parameter("panda", "what it is called")
    count: int = parameter(3, "how many", low=1, high=5)
    rate_hz: float = parameter(10.0, "how often [Hz]", low=0.5, high=20.0)


@pytest.fixture
def make_node(own_domain: int) -> Iterator[object]:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=own_domain)
    nodes: list[Node] = []

    def make(**overrides: object) -> Node:
        given = [Parameter(name, value=value) for name, value in overrides.items()]
        nodes.append(Node("example", context=context, parameter_overrides=given))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_what_is_not_given_has_its_default_and_nothing_changes_later(make_node) -> None:
    node = make_node(count=5)
    example = read_parameters(node, Example)
    assert example == Example("panda", 5, 10.0)
    with pytest.raises(FrozenInstanceError):
        example.count = 4
    assert not node.set_parameters([Parameter("count", value=4)])[0].successful


def test_every_parameter_is_described_with_its_range(make_node) -> None:
    node = make_node()
    read_parameters(node, Example)
    assert node.describe_parameter("name").description == "what it is called"
    assert node.describe_parameter("count").integer_range[0].to_value == 5
    assert node.describe_parameter("rate_hz").floating_point_range[0].from_value == 0.5


@pytest.mark.parametrize(
    "overrides, words",
    [
        ({"name": 7}, "example: parameter name is 7, expected str: what it is called"),
        ({"count": 6}, "parameter count is 6, expected int from 1 to 5"),
        ({"count": 0}, "parameter count is 0, expected int from 1 to 5"),
        ({"rate_hz": 20.5}, "parameter rate_hz is 20.5, expected float from 0.5 to 20"),
        ({"rate_hz": 10}, "(write 1.0, not 1)"),
        ({"rate": 10.0}, "unknown parameter rate; known: count, name, rate_hz"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_was_expected(
    make_node, overrides: dict[str, object], words: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        read_parameters(make_node(**overrides), Example)
    assert words in str(caught.value)


def test_parameters_that_ros_itself_knows_are_not_unknown(make_node) -> None:
    node = make_node(**{"use_sim_time": False, "qos_overrides./camera.subscription.depth": 5})
    assert read_parameters(node, Example) == Example()
