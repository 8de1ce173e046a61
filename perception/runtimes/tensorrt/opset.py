"""A graph in opset 17, the last that the parser of TensorRT 8.5 reads; our graphs are written in opset 20.

Operators that this parser has not (Gelu, LayerNormalization) become those that they are defined by, whatever
reads pixels reads them as numbers, and `onnx` rewrites the rest. Needs `onnx`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from perception.errors import ModelError

OPSET = 17
# Newer attributes that say nothing about reductions with axes, and of types that we have.
NEWER = ("noop_with_empty_axes", "saturate")


def in_opset_17(content: bytes) -> bytes:
    """The ONNX model `content`, rewritten. Raises ModelError for one that cannot be."""
    import onnx
    from onnx import version_converter

    model = onnx.load_from_string(content)
    _read_pixels_as_numbers(model.graph)
    nodes: list[Any] = []
    for node in model.graph.node:
        expand = {"Gelu": _gelu, "LayerNormalization": _layer_norm}.get(node.op_type)
        nodes += [node] if expand is None else expand(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    try:
        older = version_converter.convert_version(model, OPSET)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"a graph of a newer opset cannot be rewritten in {OPSET} for TensorRT 8.5: {reason}"
        ) from error
    for node in older.graph.node:
        known = [attribute for attribute in node.attribute if attribute.name not in NEWER]
        del node.attribute[:]
        node.attribute.extend(known)
    return older.SerializeToString()


def _read_pixels_as_numbers(graph: Any) -> None:
    """Let what reads a uint8 input read its Cast to float instead: TensorRT 8.5 does nothing else with it."""
    import onnx

    pixels = {port.name for port in graph.input if port.type.tensor_type.elem_type == onnx.TensorProto.UINT8}
    casts = {node.input[0]: node for node in graph.node if node.op_type == "Cast" and node.input[0] in pixels}
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in casts and node.op_type != "Cast":
                node.input[index] = casts[name].output[0]
    # Inputs come before those who read them.
    first = list(casts.values())
    rest = [node for node in graph.node if not any(node is cast for cast in first)]
    ordered = [type(node).FromString(node.SerializeToString()) for node in (*first, *rest)]
    del graph.node[:]
    graph.node.extend(ordered)


class _Body:
    """The nodes that stand for one node, in its place; names begin with its output's."""

    def __init__(self, node: Any) -> None:
        self.nodes: list[Any] = []
        self._name = node.output[0]

    def constant(self, value: Any) -> str:
        from onnx import numpy_helper

        return self.add("Constant", (), value=numpy_helper.from_array(np.array(value)))

    def add(self, operator: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        from onnx import helper

        output = output or f"{self._name}/{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output


def _gelu(node: Any) -> list[Any]:
    if any(attribute.s == b"tanh" for attribute in node.attribute):
        raise ModelError(f"{node.name}: Gelu by tanh is not known in opset {OPSET}")
    (given,) = node.input
    body = _Body(node)
    bent = body.add("Erf", [body.add("Mul", [given, body.constant(np.float32(1 / math.sqrt(2)))])])
    share = body.add(
        "Mul", [body.add("Add", [bent, body.constant(np.float32(1))]), body.constant(np.float32(0.5))]
    )
    body.add("Mul", [given, share], node.output[0])
    return body.nodes


def _layer_norm(node: Any) -> list[Any]:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if "axis" in attributes and attributes["axis"].i != -1:
        raise ModelError(f"{node.name}: LayerNormalization of other axes than the last is not known")
    epsilon = attributes["epsilon"].f if "epsilon" in attributes else 1e-5
    given, scale, *bias = node.input
    body = _Body(node)
    last = body.constant(np.array([-1], np.int64))
    centred = body.add("Sub", [given, body.add("ReduceMean", [given, last], keepdims=1)])
    variance = body.add("ReduceMean", [body.add("Mul", [centred, centred]), last], keepdims=1)
    deviation = body.add("Sqrt", [body.add("Add", [variance, body.constant(np.float32(epsilon))])])
    normal = body.add("Div", [centred, deviation])
    body.add("Mul", [normal, scale], "" if bias else node.output[0])
    if bias:
        body.add("Add", [body.nodes[-1].output[0], bias[0]], node.output[0])
    return body.nodes
