"""OpenVINO on the CPU: bfloat16 where the CPU computes in it, else float32. One thread, bound to no core."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import ModelError, RuntimeUnavailable
from perception.runtimes.contract import Port, Variant, check_inputs
from perception.runtimes.onnx import OnnxSession

# Sizes that graphs are compiled for are multiples of this, where that costs little.
STEP = 16
HINTS = {"bf16": "bf16", "fp32": "f32"}


@functools.cache
def _core() -> Any:
    """The process's only one, never given up.

    Each gives the thread that makes it another stack for signal handlers, and the one before back when it
    goes. Of several, the last to go gives back one that is no more: the next signal, Ctrl-C say, is a crash.
    """
    import openvino

    return openvino.Core()


class OpenVinoSession:
    """A graph on OpenVINO. Raises ModelError if it is missing, damaged or not `sha256`."""

    def __init__(self, path: Path, sha256: str | None = None, precision: str = "fp32") -> None:
        # Tells a damaged file, a foreign one and the shapes the same way for every runtime.
        signature = OnnxSession(path, sha256)
        self.inputs: tuple[Port, ...] = signature.inputs
        self.outputs: tuple[Port, ...] = signature.outputs
        self._settings = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # A thread bound to one core stands still while a neighbour has it.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            self._model = _core().read_model(path)
            self._any_size = self._compiled(self._model).create_infer_request()
        except RuntimeError as error:
            raise ModelError(f"graph {path} cannot be read by OpenVINO: {error}") from error
        self._prepared: dict[int, _FixedSize] = {}
        self._of_size: dict[int, _FixedSize] = {}

    def prepare(self, rows: int) -> None:
        """A graph whose sizes are known beforehand runs small batches in two thirds of the time."""
        size = _size_for(rows)
        if size not in self._of_size:
            model = self._model.clone()
            model.reshape({port.name: [size, *port.row] for port in self.inputs})
            self._of_size[size] = _FixedSize(self._compiled(model), size)
        self._prepared[rows] = self._of_size[size]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[np.float32]]:
        rows = check_inputs(self.inputs, inputs)
        if rows in self._prepared:
            return self._prepared[rows].run(inputs, rows)
        contiguous = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        results = self._any_size.infer(contiguous, share_inputs=True, share_outputs=False)
        # In the graph's own order; looking each up by its name takes a fifth of a small call.
        return results.to_tuple()

    def _compiled(self, model: Any) -> Any:
        return _core().compile_model(model, "CPU", self._settings)


def _size_for(rows: int) -> int:
    """The size of the graph that takes batches of `rows`, in one piece or in two.

    Each size has its own copy of the weights, and copies push one another out of the cache. So batches a
    little smaller than a multiple of STEP share its graph, and those of two halves share the half's: a plan
    is 3 % quicker than with a size for each.
    """
    whole = -(-rows // STEP) * STEP
    size = whole if whole - rows <= rows // 6 else rows
    return size // 2 if size % (2 * STEP) == 0 else size


class _FixedSize:
    """A graph for batches of one size, compiled, with places of its own for what goes in and comes out."""

    def __init__(self, compiled: Any, size: int) -> None:
        self._size = size
        self._request = compiled.create_infer_request()
        self._inputs = {port.any_name: self._request.get_tensor(port).data for port in compiled.inputs}
        self._outputs = [self._request.get_tensor(port).data for port in compiled.outputs]

    def run(self, inputs: Mapping[str, NDArray[Any]], rows: int) -> Sequence[NDArray[np.float32]]:
        """The outputs of all `rows`, in as many pieces as it takes."""
        if rows <= self._size:
            return self._run_piece(inputs, slice(rows))
        firsts = range(0, rows, self._size)
        pieces = [self._run_piece(inputs, slice(first, min(first + self._size, rows))) for first in firsts]
        return [np.concatenate(outputs) for outputs in zip(*pieces, strict=True)]

    def _run_piece(self, inputs: Mapping[str, NDArray[Any]], part: slice) -> Sequence[NDArray[np.float32]]:
        """What an earlier call left in the rows that a smaller piece does not fill is harmless."""
        count = part.stop - (part.start or 0)
        for name, place in self._inputs.items():
            place[:count] = inputs[name][part]
        self._request.infer()
        return [place[:count].copy() for place in self._outputs]


class OpenVino:
    name = "openvino"

    def variants(self) -> tuple[Variant, ...]:
        if importlib.util.find_spec("openvino") is None:
            raise RuntimeUnavailable("OpenVINO is not installed: pip install 'jepa-arm[openvino]'")
        import openvino

        capabilities = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        precisions = ("bf16", "fp32") if "BF16" in capabilities else ("fp32",)
        version = f"openvino {openvino.__version__.partition('-')[0]}"
        return tuple(Variant(self.name, precision, version) for precision in precisions)

    def open(self, path: Path, sha256: str | None, precision: str) -> OpenVinoSession:
        return OpenVinoSession(path, sha256, precision)
