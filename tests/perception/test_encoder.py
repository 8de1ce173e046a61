from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.encoder import Encoder, EncoderSpec, GraphEncoder, check_encoder
from perception.errors import ModelError
from perception.runtimes.onnx import OnnxSession, file_sha256


def open_encoder(path: Path, sha256: str | None = None) -> GraphEncoder:
    return GraphEncoder(OnnxSession(path, sha256), path, file_sha256(path))


class MeanColour:
    """A good encoder of 8 px pictures, for the broken ones to differ from."""

    spec = EncoderSpec(image_size=8, latent_dim=3, sha256="0" * 64)

    def encode(self, images: np.ndarray) -> np.ndarray:
        if images.shape[1:] != (8, 8, 3):
            raise ValueError(f"expected (N, 8, 8, 3), got {images.shape}")
        return images.mean((1, 2)).astype(np.float32)


class WithoutSpec:
    def encode(self, images: np.ndarray) -> np.ndarray:
        return MeanColour().encode(images)


class TooNarrow(MeanColour):
    def encode(self, images: np.ndarray) -> np.ndarray:
        return super().encode(images)[:, :2]


class InDoublePrecision(MeanColour):
    def encode(self, images: np.ndarray) -> np.ndarray:
        return super().encode(images).astype(np.float64)


class AsLists(MeanColour):
    def encode(self, images: np.ndarray) -> np.ndarray:
        return super().encode(images).tolist()


class NotFinite(MeanColour):
    def encode(self, images: np.ndarray) -> np.ndarray:
        return super().encode(images) * np.float32("nan")


class Fickle(MeanColour):
    calls = 0

    def encode(self, images: np.ndarray) -> np.ndarray:
        self.calls += 1
        return super().encode(images) + np.float32(self.calls)


class NormalisedOverTheBatch(MeanColour):
    def encode(self, images: np.ndarray) -> np.ndarray:
        latents = super().encode(images)
        return latents - latents.mean(0)


class TakesAnySize(MeanColour):
    def encode(self, images: np.ndarray) -> np.ndarray:
        return images.mean((1, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def encoder_file(tiny_bundle: Path) -> Path:
    return tiny_bundle / "encoder.onnx"


def test_the_onnx_encoder_keeps_the_contract(encoder_file: Path) -> None:
    encoder = open_encoder(encoder_file)
    check_encoder(encoder)
    assert encoder.spec == EncoderSpec(64, 16, file_sha256(encoder_file))


def test_an_encoder_that_keeps_the_contract_passes() -> None:
    check_encoder(MeanColour())


@pytest.mark.parametrize(
    ("encoder", "promise"),
    [
        (WithoutSpec(), "lacks spec or encode"),
        (TooNarrow(), r"gave float32 \(3, 2\), expected float32 \(3, 3\)"),
        (InDoublePrecision(), "gave float64"),
        (AsLists(), "gave a list"),
        (NotFinite(), "not finite"),
        (Fickle(), "two latents for the same images"),
        (NormalisedOverTheBatch(), "changes by .* with the batch"),
        (TakesAnySize(), "wrong size without a ValueError"),
    ],
)
def test_a_broken_encoder_is_told_which_promise_it_broke(encoder: Encoder, promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        check_encoder(encoder)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 64, 64, 3), np.float32),
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((1, 32, 64, 3), np.uint8),
    ],
)
def test_the_onnx_encoder_refuses_what_is_not_its_input(encoder_file: Path, images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        open_encoder(encoder_file).encode(images)


def test_a_missing_graph_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.onnx is missing"):
        OnnxSession(tmp_path / "gone.onnx")


@pytest.mark.parametrize("content", [b"", b"not a graph at all", None])
def test_a_truncated_or_foreign_graph_is_named(
    encoder_file: Path, tmp_path: Path, content: bytes | None
) -> None:
    graph = tmp_path / "encoder.onnx"
    whole = encoder_file.read_bytes()
    graph.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ModelError, match=r"encoder\.onnx cannot be read"):
        open_encoder(graph)


def test_a_graph_that_is_not_the_promised_one_is_refused(encoder_file: Path) -> None:
    assert open_encoder(encoder_file, file_sha256(encoder_file)).spec.sha256 == file_sha256(encoder_file)
    with pytest.raises(ModelError, match=r"encoder\.onnx is not the file .*sha256"):
        open_encoder(encoder_file, "0" * 64)


@pytest.mark.parametrize("graph", ["predictor.onnx", "energy.onnx"])
def test_a_graph_that_is_no_encoder_is_refused(tiny_bundle: Path, graph: str) -> None:
    with pytest.raises(ModelError, match=f"{graph} is no encoder"):
        open_encoder(tiny_bundle / graph)
