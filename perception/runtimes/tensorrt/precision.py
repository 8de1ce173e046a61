"""The precision of a network, written into its ONNX file: strongly typed networks take it from there.

fp16   weights and layers cast to half precision; what sums or exponentiates stays in float32
int8   weights and the activations between layers quantised (Q/DQ, symmetric as TensorRT wants it), by the
       ranges that held-out data has

Inputs and outputs keep their types. Needs `onnx`.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import ModelError
from perception.runtimes.cache import cache_folder
from perception.runtimes.onnx import file_sha256

PRECISIONS = ("fp16", "fp32", "int8")
# Sums over many numbers, and what comes right after them, lose what half precision rounds off.
IN_FLOAT32 = ("ReduceMean", "Pow", "Sqrt", "LayerNormalization", "LogSoftmax", "ReduceLogSumExp")
QUANTISED = ("Conv", "Gemm", "MatMul")
CALIBRATION_ROWS = 256

Rows = Mapping[str, NDArray[Any]]


def graph_in(path: Path, precision: str) -> bytes:
    """The ONNX graph at `path` in a precision. Raises ModelError in int8, if it was not quantised before."""
    if precision == "fp16":
        return in_half_precision(path)
    if precision == "int8":
        try:
            return quantised(path).read_bytes()
        except FileNotFoundError as error:
            raise ModelError(
                f"{path} has not been quantised: run `jepa-arm build-engine {path.parent} --precision int8`"
            ) from error
    return path.read_bytes()


def quantised(path: Path) -> Path:
    """Where the graph at `path` is kept in int8."""
    return cache_folder() / "int8" / f"{path.stem}-{file_sha256(path)[:32]}.onnx"


def in_half_precision(graph: Path) -> bytes:
    """The ONNX graph at `graph`, cast to fp16."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(graph), keep_io_types=True, op_block_list=list(IN_FLOAT32))
    return model.SerializeToString()


def in_int8(graph: Path, calibration: Rows) -> bytes:
    """The ONNX graph at `graph` with Q/DQ nodes whose ranges are those of `calibration`, inputs by name."""
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static

    count = min(CALIBRATION_ROWS, min(map(len, calibration.values())))
    # Spread over all there are.
    chosen = {
        name: array[np.linspace(0, len(array) - 1, count).astype(int)] for name, array in calibration.items()
    }
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises a step that export has done already
    try:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / graph.name
            quantize_static(
                graph,
                out,
                _Reader(chosen),
                op_types_to_quantize=list(QUANTISED),
                per_channel=True,
                weight_type=QuantType.QInt8,
                activation_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
            )
            return out.read_bytes()
    finally:
        root.setLevel(level)


class _Reader:
    """Hands out all rows at once, as the quantiser asks for batches until there are none."""

    def __init__(self, rows: Rows) -> None:
        self._batches = iter([dict(rows)])

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._batches, None)
