"""ONNX Runtime: graphs checked against their sha256, one thread, no spinning."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from perception.encoder import EncoderSpec
from perception.errors import ModelError


def file_sha256(path: Path) -> str:
    """The hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):  # some are larger than the memory
            digest.update(piece)
    return digest.hexdigest()


def open_graph(path: Path, sha256: str | None = None) -> onnxruntime.InferenceSession:
    """Load an ONNX graph for the CPU. Raises ModelError if it is missing, damaged or not `sha256`."""
    if not path.is_file():
        raise ModelError(f"graph {path} is missing: export the bundle again, or check it out of git again")
    if sha256 is not None and file_sha256(path) != sha256:
        raise ModelError(
            f"graph {path} is not the file its bundle names (sha256 differs): export the bundle again, "
            "or check it out of git again"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Spinning threads collapse as soon as another process wants the core.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime raises its own unexported classes, all straight from Exception.
        raise ModelError(f"graph {path} cannot be read by ONNX Runtime: {error}") from error


class OnnxEncoder:
    """The `Encoder` contract on ONNX Runtime; input `image` uint8 NHWC, output `latent`."""

    def __init__(self, path: Path, sha256: str | None = None) -> None:
        self._session = open_graph(path, sha256)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        signature = [(node.name, node.type, len(node.shape)) for node in (*inputs, *outputs)]
        if signature != [("image", "tensor(uint8)", 4), ("latent", "tensor(float)", 2)]:
            raise ModelError(
                f"graph {path} is no encoder: it has {signature}, not a uint8 image in and a latent out; "
                "name the encoder of a bundle"
            )
        self._spec = EncoderSpec(
            image_size=inputs[0].shape[1], latent_dim=outputs[0].shape[1], sha256=sha256 or file_sha256(path)
        )

    @property
    def spec(self) -> EncoderSpec:
        return self._spec

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        size = self._spec.image_size
        if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
            raise ValueError(f"expected uint8 (N, {size}, {size}, 3), got {images.dtype} {images.shape}")
        (latents,) = self._session.run(None, {"image": images})
        return np.asarray(latents, dtype=np.float32)
