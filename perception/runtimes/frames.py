"""An encoder's graph that takes a camera's frames as they are: preprocessing, in ONNX, in front of it.

So it is done where the graph runs. Needs `onnx`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from perception.preprocessing import shrinking

FRAME = "frame"
# Names of the nodes begin with it; they are computed in float32 whatever the encoder is in.
PREFIX = "preprocessing/"


def taking_frames(content: bytes, height: int, width: int) -> bytes:
    """The ONNX encoder `content` (`image` uint8 (N, S, S, 3) in) with `frame` uint8 (N, height, width, 3) in.

    Raises ValueError for frames that are smaller than S.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_from_string(content)
    graph = model.graph
    (image,) = graph.input
    size = image.type.tensor_type.shape.dim[1].dim_value
    how = shrinking(height, width, size)
    nodes: list[Any] = []

    def add(operator: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        output = output or f"{PREFIX}{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [output], name=f"{PREFIX}{operator}", **attributes))
        nodes[-1].name += f"_{len(nodes)}"
        return output

    def constant(value: Any) -> str:
        name = f"{PREFIX}constant_{len(graph.initializer)}"
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    # Bytes first become numbers: TensorRT does nothing else with them.
    numbers = add("Cast", [FRAME], to=TensorProto.FLOAT)
    begin, end = [how.top, how.left], [how.top + how.side, how.left + how.side]
    square = add("Slice", [numbers, *(constant(np.array(ends, np.int64)) for ends in (begin, end, [1, 2]))])
    planes = add("Transpose", [square], perm=[0, 3, 1, 2])
    if how.side != size:
        rows = add("MatMul", [constant(how.weights), planes])
        sums = add("MatMul", [rows, constant(np.ascontiguousarray(how.weights.T))])
        levels = add("Mul", [sums, constant(np.float32(how.scale))])
        if how.ties_up:
            planes = add("Floor", [add("Add", [levels, constant(np.float32(0.5))])])
        else:
            planes = add("Round", [levels])
    add("Transpose", [planes], image.name, perm=[0, 2, 3, 1])
    rest = [node.SerializeToString() for node in graph.node]
    del graph.node[:]
    graph.node.extend([*nodes, *map(onnx.NodeProto.FromString, rest)])
    image.name = FRAME
    for dim, length in zip(image.type.tensor_type.shape.dim[1:], (height, width, 3), strict=True):
        dim.dim_value = length
    return model.SerializeToString()
