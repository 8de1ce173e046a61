"""Node parameters as a frozen dataclass: declared with their descriptions and ranges, then read once.

@dataclass(frozen=True)
class EncoderParameters:
    bundle: str = parameter("", "folder of the world-model bundle")
    max_frame_age_s: float = parameter(0.1, "older frames are dropped [s]", low=0.01, high=10.0)

parameters = read_parameters(node, EncoderParameters)
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterException, InvalidParameterTypeException, ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from jepa_arm_ros.errors import ParameterError

P = TypeVar("P")

TYPES = {
    bool: Parameter.Type.BOOL,
    int: Parameter.Type.INTEGER,
    float: Parameter.Type.DOUBLE,
    str: Parameter.Type.STRING,
}
# Parameters that rclpy itself understands; they are not a node's own.
BUILT_IN = ("use_sim_time", "start_type_description_service", "qos_overrides")


def parameter(default: Any, description: str, low: float | None = None, high: float | None = None) -> Any:
    """A field of a parameters dataclass. `low` and `high` bound numbers; both ends are allowed."""
    return dataclasses.field(default=default, metadata={"description": description, "low": low, "high": high})


def read_parameters(node: Node, kind: type[P]) -> P:
    """Declare the fields of `kind` on `node` and read them. Raises `ParameterError` naming what is wrong.

    The parameters are read-only: a node takes them up at start, and says so to whoever sets them later.
    """
    hints = get_type_hints(kind)
    values = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        values[field.name] = _declare(node, field, hints[field.name])
    _refuse_unknown(node, set(values))
    return kind(**values)


def _declare(node: Node, field: dataclasses.Field[Any], kind: type) -> Any:
    low, high = field.metadata["low"], field.metadata["high"]
    descriptor = ParameterDescriptor(description=field.metadata["description"], read_only=True)
    if low is not None and kind is float:
        descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
    if low is not None and kind is int:
        descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
    try:
        node.declare_parameter(field.name, field.default, descriptor)
    except (
        InvalidParameterTypeException,
        InvalidParameterException,
        ParameterException,
        ValueError,
    ) as error:
        given = node._parameter_overrides.get(field.name)
        shown = "?" if given is None else repr(given.value)
        between = "" if low is None else f" from {low:g} to {high:g}"
        number = " (write 1.0, not 1)" if kind is float and given and isinstance(given.value, int) else ""
        raise ParameterError(
            f"{node.get_name()}: parameter {field.name} is {shown}, "
            f"expected {kind.__name__}{between}{number}: {field.metadata['description']}"
        ) from error
    return node.get_parameter(field.name).value


def _refuse_unknown(node: Node, known: set[str]) -> None:
    unknown = [name for name in node._parameter_overrides if name.split(".")[0] not in (*known, *BUILT_IN)]
    if unknown:
        raise ParameterError(
            f"{node.get_name()}: unknown parameter {unknown[0]}; known: {', '.join(sorted(known))}"
        )


def import_factory(node: Node, name: str, value: str) -> Callable[..., Any]:
    """The callable that a `module:callable` parameter names. Raises `ParameterError` if there is none."""
    module, _, attribute = value.partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ParameterError(
            f"{node.get_name()}: parameter {name} is {value!r}, which names nothing that can be imported "
            f"({error}); write it as module:callable"
        ) from error
    return factory
