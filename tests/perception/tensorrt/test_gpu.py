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
