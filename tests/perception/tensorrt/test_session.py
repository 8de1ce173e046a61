"""TensorRT on an emulated GPU: what is copied, captured and waited for, and the whole way to a plan.

A real GPU is used by the tests marked `gpu`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cli
from perception.errors import ModelError, RuntimeUnavailable
from perception.runtimes import registry
from perception.runtimes.contract import check_session, random_rows
from perception.runtimes.onnx import OnnxRuntime, OnnxSession
from perception.runtimes.registry import offers
from perception.runtimes.tensorrt import TensorRt
from planner.accuracy import measure_accuracy
from planner.bundle import load_bundle
from planner.runtimes import on_runtime

GRAPHS = ("encoder", "predictor", "proposal", "energy")


def open_fp32(path: Path) -> Any:
    return TensorRt().prepare(path, None, "fp32", lambda line: None)


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_session_keeps_the_contract_and_agrees(gpu: Any, tiny_bundle: Path, graph: str) -> None:
    path = tiny_bundle / f"{graph}.onnx"
    session, reference = open_fp32(path), OnnxSession(path)
    check_session(session)
    for rows in (1, 5, 48, 700):
        inputs = random_rows(session.inputs, rows)
        for found, expected in zip(session.run(inputs), reference.run(inputs), strict=True):
            np.testing.assert_allclose(found, expected, atol=2e-5)


def test_what_was_given_out_stays_when_the_buffers_are_used_again(gpu: Any, tiny_bundle: Path) -> None:
    session = open_fp32(tiny_bundle / "predictor.onnx")
    first = session.run(random_rows(session.inputs, 4, seed=1))
    kept = [np.array(output) for output in first]
    session.run(random_rows(session.inputs, 4, seed=2))
    assert all(np.array_equal(one, other) for one, other in zip(first, kept, strict=True))


def test_each_size_of_batch_is_captured_once_and_then_only_launched(gpu: Any, tiny_bundle: Path) -> None:
    session = open_fp32(tiny_bundle / "energy.onnx")
    for rows in (5, 6, 8, 7, 5):
        session.run(random_rows(session.inputs, rows))
    assert (gpu.captures, gpu.launches) == (1, 5)
    held = len(gpu.memory)
    session.run(random_rows(session.inputs, 200))
    session.run(random_rows(session.inputs, 200))
    assert (gpu.captures, gpu.launches) == (2, 7)
    assert len(gpu.memory) == held + 2 * 4  # host and device, for three inputs and an output


def test_a_kept_engine_is_used_and_one_that_is_not_taken_is_built_again_once(
    gpu: Any, tiny_bundle: Path
) -> None:
    path = tiny_bundle / "energy.onnx"
    open_fp32(path), open_fp32(path)
    assert len(gpu.builds) == 1
    gpu.takes_engines = False
    with pytest.raises(ModelError, match="TensorRT does not take the engine"):
        open_fp32(path)
    assert len(gpu.builds) == 2


def test_another_gpu_driver_library_graph_or_precision_has_another_engine(
    gpu: Any, install_tensorrt: Callable[[str], None], tiny_bundle: Path, tmp_path: Path
) -> None:
    path = tmp_path / "energy.onnx"
    shutil.copy(tiny_bundle / "energy.onnx", path)
    open_fp32(path)
    gpu.name = "Thor"
    open_fp32(path)
    gpu.capability = (11, 0)
    open_fp32(path)
    gpu.version = 13000
    open_fp32(path)
    install_tensorrt("11.4.0")
    open_fp32(path)
    TensorRt().prepare(path, None, "fp16", lambda line: None)
    shutil.copy(tiny_bundle / "proposal.onnx", path)
    open_fp32(path)
    assert len(gpu.builds) == 7
    open_fp32(path)
    assert len(gpu.builds) == 7


def test_half_precision_is_in_the_file_and_near_enough(gpu: Any, sampled: Path) -> None:
    half = next(variant for variant in TensorRt().variants() if variant.precision == "fp16")
    bundle = load_bundle(sampled)
    frames = bundle.held_out()
    assert frames is not None
    accuracy = measure_accuracy(bundle.on(half), frames)
    assert accuracy.passes, accuracy.why_not
    assert accuracy.cosine < 1 - 1e-9, "nothing was rounded"
    assert all(b"_cast" in content for content in gpu.builds) and len(gpu.builds) == 4


def test_build_engine_builds_all_and_says_how_exact_they_are(
    gpu: Any, sampled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["build-engine", str(sampled)]) == 0
    told = capsys.readouterr().out
    assert len(gpu.builds) == 4
    assert "building a TensorRT engine of encoder in fp16 for Orin" in told
    assert "latent cosine" in told and "try it: --runtime tensorrt:fp16" in told
    assert cli.main(["build-engine", str(sampled)]) == 0
    assert len(gpu.builds) == 4


def test_int8_is_quantised_by_build_engine_and_judged(
    gpu: Any, sampled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sampled / "energy.onnx"
    with pytest.raises(ModelError, match=r"has not been quantised: run `jepa-arm build-engine .* int8`"):
        TensorRt().open(path, None, "int8")
    code = cli.main(["build-engine", str(sampled), "--precision", "int8"])
    told = capsys.readouterr().out
    assert "latent cosine" in told and (code == 0) == ("try it: --runtime tensorrt:int8" in told)
    assert all(b"QuantizeLinear" in content for content in gpu.builds) and len(gpu.builds) == 4
    check_session(TensorRt().open(path, None, "int8"))


def test_auto_takes_tensorrt_into_account_and_falls_back_without_a_gpu(
    gpu: Any, sampled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "RUNTIMES", (OnnxRuntime(), TensorRt()))
    told: list[str] = []
    bundle = load_bundle(sampled)
    on_runtime(bundle, "auto", tell=told.append)
    assert gpu.launches > 0 and "tensorrt:int8: " in told[1] and "build-engine" in told[1]
    gpu.present = False
    assert on_runtime(bundle, "auto", tell=told.append).variant.runtime != "tensorrt"
    assert "tensorrt: no NVIDIA GPU" in told[-1]


def test_what_was_learned_about_timing_is_handed_to_the_next_build(
    gpu: Any, tiny_bundle: Path, cache: Path
) -> None:
    for graph in ("energy", "proposal"):
        open_fp32(tiny_bundle / f"{graph}.onnx")
    (timing,) = (cache / "engines").glob("timing-*.cache")
    assert timing.read_bytes() == b"tt"


def test_without_a_gpu_nothing_is_loaded_and_one_line_says_so(
    gpu: Any, sampled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu.present = False
    with pytest.raises(RuntimeUnavailable, match=r"no NVIDIA GPU that can be used \(CUDA_ERROR_NO_DEVICE\)"):
        TensorRt().variants()
    assert cli.main(["build-engine", str(sampled)]) == 2
    assert capsys.readouterr().err.startswith("jepa-arm: error: no NVIDIA GPU that can be used")


@pytest.mark.parametrize("graph", GRAPHS)
def test_8_5_takes_the_graph_in_an_older_opset_and_agrees(
    install_tensorrt: Callable[[str], None], tiny_bundle: Path, graph: str
) -> None:
    install_tensorrt("8.5.2.2")
    path = tiny_bundle / f"{graph}.onnx"
    session, reference = open_fp32(path), OnnxSession(path)
    check_session(session)
    inputs = random_rows(session.inputs, 48)
    for found, expected in zip(session.run(inputs), reference.run(inputs), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_8_5_is_told_what_may_be_half_and_what_is_quantised(
    gpu: Any,
    install_tensorrt: Callable[[str], None],
    sampled: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install_tensorrt("8.5.2.2")
    path = sampled / "energy.onnx"
    open_fp32(path)
    assert not gpu.demanded and not any(layer.precision for layer in gpu.layers)
    TensorRt().prepare(path, None, "fp16", lambda line: None, lambda phase, done, total: None)
    assert gpu.demanded == {"fp16", "obey"}
    exact = {layer.operator for layer in gpu.layers if layer.precision == "float32"}
    assert exact == {"Add", "Erf", "ReduceMean", "Sqrt"}
    cli.main(["build-engine", str(sampled), "--precision", "int8"])
    assert gpu.demanded == {"int8"} and b"QuantizeLinear" in gpu.builds[-1]
    assert "latent cosine" in capsys.readouterr().out


def test_a_tensorrt_too_old_says_which_is_needed(
    install_tensorrt: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    install_tensorrt("8.4.1.5")
    monkeypatch.setattr("perception.runtimes.tensorrt.library.MODULES", ("tensorrt",))
    (offer,) = [offer for offer in offers() if offer.runtime == "tensorrt"]
    assert "TensorRT 8.4.1.5 runs engines in another way" in offer.missing
    assert "install TensorRT 8.5 (JetPack 5.1) or newer" in offer.missing


@pytest.mark.parametrize(
    ("version", "reason"),
    [("10.3.0", "Gelu gelu_1: unknown operator"), ("8.5.2.2", "node 3: unknown operator")],
)
def test_a_graph_that_tensorrt_does_not_take_is_an_error_with_its_reason(
    install_tensorrt: Callable[[str], None], version: str, reason: str
) -> None:
    from perception.runtimes.tensorrt.engine import build
    from perception.runtimes.tensorrt.library import find_library

    install_tensorrt(version)
    with pytest.raises(ModelError, match=f"cannot parse the graph: {reason}"):
        build(find_library().module, b"nonsense", "fp32", (1, 2, 4))
