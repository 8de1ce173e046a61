"""What an encoder promises (image → latent), and a checker that holds any encoder to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from perception.errors import ModelError
from perception.runtimes.contract import Port, Session


@dataclass(frozen=True)
class EncoderSpec:
    """`image_size` in pixels, `latent_dim` D, and the sha256 that names this very encoder."""

    image_size: int
    latent_dim: int
    sha256: str


@runtime_checkable
class Encoder(Protocol):
    """Images to latents. The same image gives the same latent, alone or in a batch."""

    @property
    def spec(self) -> EncoderSpec: ...

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode uint8 (N, S, S, 3) RGB images into float32 (N, D) latents."""
        ...


class GraphEncoder:
    """An encoder's graph, open in any runtime: `image` uint8 in, `latent` out.

    `path` and `sha256` are the graph's own. Raises ModelError if it is no encoder.
    """

    def __init__(self, session: Session, path: Path, sha256: str) -> None:
        ports = [(port.name, port.dtype, len(port.row)) for port in (*session.inputs, *session.outputs)]
        if ports != [("image", "uint8", 3), ("latent", "float32", 1)]:
            raise ModelError(
                f"graph {path} is no encoder: it has {ports}, not a uint8 image in and a latent out; "
                "name the encoder of a bundle"
            )
        session.prepare(1)  # camera frames come one by one
        self._session = session
        self._image: Port = session.inputs[0]
        self._spec = EncoderSpec(self._image.row[0], session.outputs[0].row[0], sha256)

    @property
    def spec(self) -> EncoderSpec:
        return self._spec

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        if images.dtype != np.uint8 or images.shape[1:] != self._image.row:
            size = self._spec.image_size
            raise ValueError(f"expected uint8 (N, {size}, {size}, 3), got {images.dtype} {images.shape}")
        (latents,) = self._session.run({"image": images})
        return latents


def check_encoder(encoder: Encoder, tolerance: float = 1e-4) -> None:
    """Raise AssertionError, naming the broken promise, if `encoder` does not behave as an Encoder."""
    if not isinstance(encoder, Encoder):
        raise AssertionError(f"{type(encoder).__name__} lacks spec or encode")
    size, dim = encoder.spec.image_size, encoder.spec.latent_dim
    images = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    latents = encoder.encode(images)
    if not isinstance(latents, np.ndarray):
        raise AssertionError(f"encode() gave a {type(latents).__name__}, expected an array")
    if latents.shape != (3, dim) or latents.dtype != np.float32:
        raise AssertionError(f"encode() gave {latents.dtype} {latents.shape}, expected float32 {(3, dim)}")
    if not np.all(np.isfinite(latents)):
        raise AssertionError("encode() gave latents that are not finite")
    if not np.array_equal(latents, encoder.encode(images)):
        raise AssertionError("encode() gave two latents for the same images")
    alone = encoder.encode(images[1:2])[0]
    gap = float(np.abs(alone - latents[1]).max())
    if gap > tolerance:
        raise AssertionError(f"an image's latent changes by {gap:.2g} with the batch it is in")
    try:
        encoder.encode(images[:, : size // 2])
    except ValueError:
        return
    raise AssertionError("encode() took images of the wrong size without a ValueError")
