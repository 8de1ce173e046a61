"""ONNX Runtime: the default, and what all others are measured by. One thread, no spinning."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from perception.errors import ModelError
from perception.runtimes.contract import Port, Variant, check_inputs

DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


def file_sha256(path: Path) -> str:
    """The hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):  # some are larger than the memory
            digest.update(piece)
    return digest.hexdigest()


def check_file(path: Path, sha256: str | None = None) -> None:
    """Raise ModelError if the graph is missing or not `sha256`."""
    if not path.is_file():
        raise ModelError(f"graph {path} is missing: export the bundle again, or check it out of git again")
    if sha256 is not None and file_sha256(path) != sha256:
        raise ModelError(
            f"graph {path} is not the file its bundle names (sha256 differs): export the bundle again, "
            "or check it out of git again"
        )


class OnnxSession:
    """A graph on ONNX Runtime. Raises ModelError if it is missing, damaged or not `sha256`."""

    def __init__(self, path: Path, sha256: str | None = None) -> None:
        check_file(path, sha256)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # Spinning threads collapse as soon as another process wants the core.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # onnxruntime raises its own unexported classes, all straight from Exception.
            raise ModelError(f"graph {path} cannot be read by ONNX Runtime: {error}") from error
        self.inputs = tuple(map(_port, self._session.get_inputs()))
        self.outputs = tuple(map(_port, self._session.get_outputs()))

    def prepare(self, rows: int) -> None:
        """Batches of all sizes are alike."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[np.float32]]:
        check_inputs(self.inputs, inputs)
        return self._session.run(None, inputs)


class OnnxRuntime:
    name = "onnxruntime"

    def variants(self) -> tuple[Variant, ...]:
        return (Variant(self.name, "fp32", f"onnxruntime {onnxruntime.__version__}"),)

    def open(self, path: Path, sha256: str | None, precision: str) -> OnnxSession:
        return OnnxSession(path, sha256)


def _port(node: Any) -> Port:
    return Port(node.name, DTYPES.get(node.type, node.type), tuple(node.shape[1:]))
