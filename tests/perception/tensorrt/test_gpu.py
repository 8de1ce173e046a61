"""On a real GPU. Skipped, with the reason, where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.errors import RuntimeUnavailable
from perception.runtimes.contract import check_session, random_rows
from perception.runtimes.onnx import OnnxSession
from perception.runtimes.tensorrt import TensorRt

try:
    TensorRt().variants()
    MISSING = ""
except RuntimeUnavailable as error:
    MISSING = str(error)

GRAPHS = ("encoder", "predictor", "proposal", "energy")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(MISSING), reason=f"needs a GPU: {MISSING}")]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_engines_keep_the_contract_and_agree(graph: str, precision: str, tiny_bundle: Path) -> None:
    path = tiny_bundle / f"{graph}.onnx"
    session, reference = TensorRt().open(path, None, precision), OnnxSession(path)
    check_session(session, tolerance=1e-2)
    inputs = random_rows(session.inputs, 48)
    for found, expected in zip(session.run(inputs), reference.run(inputs), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4 if precision == "fp32" else 5e-2)


@pytest.mark.parametrize("graph", GRAPHS)
def test_torch_on_cuda_keeps_the_contract_and_agrees(graph: str, tiny_bundle: Path) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    from perception.runtimes.pytorch import TorchSession

    path = tiny_bundle / f"{graph}.onnx"
    session, reference = TorchSession(path), OnnxSession(path)
    check_session(session, tolerance=1e-3)
    inputs = random_rows(session.inputs, 48)
    for found, expected in zip(session.run(inputs), reference.run(inputs), strict=True):
        np.testing.assert_allclose(found, expected, atol=5e-3)


@pytest.mark.parametrize("runtime", ["torch", "tensorrt:fp32", "tensorrt:fp16"])
def test_a_frame_that_torch_has_on_cuda_gives_the_latent_of_the_prepared_picture(
    runtime: str, tiny_bundle: Path
) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    from perception.preprocessing import prepare
    from perception.runtimes.registry import offers
    from planner.bundle import load_bundle

    found = [variant for offer in offers() for variant in offer.variants]
    (variant,) = [one for one in found if one.name == runtime or one.runtime == runtime]
    bundle = load_bundle(tiny_bundle)
    encoder, camera = bundle.on(variant).frame_encoder(), bundle.camera
    for seed in range(4):
        shape = (camera.height, camera.width, 3)
        frame = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        expected = bundle.encoder().encode(prepare(frame, bundle.info.image_size)[None])[0]
        # Still on its way when it is handed over: whoever reads it too early reads zeros.
        there = torch.zeros(shape, dtype=torch.uint8, device="cuda")
        torch.cuda._sleep(100_000_000)
        there.copy_(torch.from_numpy(frame).pin_memory(), non_blocking=True)
        latent = encoder.encode(there)
        np.testing.assert_allclose(latent, expected, atol=5e-2 if variant.precision == "fp16" else 5e-3)
