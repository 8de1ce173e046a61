"""Every runtime that this machine has, held to the contract and to ONNX Runtime, on our real graphs."""

from __future__ import annotations

import functools
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.encoder import GraphEncoder, check_encoder
from perception.errors import ModelError, RuntimeUnavailable
from perception.runtimes.batches import LARGEST, in_batches, padded_size
from perception.runtimes.contract import Port, Session, Variant, check_session, random_rows
from perception.runtimes.onnx import OnnxSession, file_sha256
from perception.runtimes.openvino import OpenVino
from perception.runtimes.pytorch import PyTorch
from perception.runtimes.registry import REFERENCE, RUNTIMES, Offer, offer_of, offers, open_session

GRAPHS = ("encoder", "predictor", "proposal", "energy")
SHIPPED = sorted((Path(__file__).parents[2] / "models").glob("*/encoder.onnx"))
ON_CPU = ("onnxruntime", "openvino", "torch")
# Relative to the largest output, or to 1. float32 differs by the order of sums; torch has weights rounded to
# half precision (11 bits); bfloat16 has 8 bits, which 5 layers and a soft minimum over 40 classes add up.
TOLERANCES = {
    "onnxruntime:fp32": 0.0,
    "openvino:fp32": 2e-5,
    "openvino:bf16": 5e-2,
    "torch:fp32": 5e-3,
}


def variants_here() -> list[Variant]:
    return [variant for offer in offers() if offer.runtime in ON_CPU for variant in offer.variants]


@pytest.fixture(scope="module", params=variants_here(), ids=lambda variant: variant.name)
def variant(request: pytest.FixtureRequest) -> Variant:
    return request.param


@functools.cache
def opened(variant: Variant, path: Path) -> Session:
    """A session that tests share, as opening one takes longer than running it."""
    return open_session(variant, path)


def gap(expected: Any, found: Any) -> float:
    """The largest difference, relative to the largest output."""
    pairs = zip(expected, found, strict=True)
    return max(float(np.abs(a - b).max() / max(1.0, float(np.abs(a).max()))) for a, b in pairs)


def test_the_runtimes_of_a_developer_s_machine_are_there() -> None:
    here = {offer.runtime for offer in offers() if offer.variants}
    assert here >= set(ON_CPU), [offer for offer in offers() if not offer.variants]


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_session_keeps_the_contract(variant: Variant, graph: str, tiny_bundle: Path) -> None:
    session = opened(variant, tiny_bundle / f"{graph}.onnx")
    # bfloat16 sums the rows of a batch in another order than one alone.
    check_session(session, tolerance=max(1e-4, TOLERANCES[variant.name] / 5))


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("rows", [1, 48, 200])
def test_runtimes_agree_on_random_inputs(variant: Variant, graph: str, rows: int, tiny_bundle: Path) -> None:
    path = tiny_bundle / f"{graph}.onnx"
    reference, session = opened(REFERENCE, path), opened(variant, path)
    assert (session.inputs, session.outputs) == (reference.inputs, reference.outputs)
    inputs = random_rows(session.inputs, rows, seed=rows)
    assert gap(reference.run(inputs), session.run(inputs)) <= TOLERANCES[variant.name]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_openvino_agrees_on_shipped_graphs(path: Path) -> None:
    for graph in GRAPHS:
        file = path.with_stem(graph)
        for variant in OpenVino().variants():
            session = open_session(variant, file)
            inputs = random_rows(session.inputs, 16)
            assert gap(OnnxSession(file).run(inputs), session.run(inputs)) <= TOLERANCES[variant.name], graph


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_torch_agrees_on_shipped_reflexes_of_one_answer_and_of_several(path: Path) -> None:
    file = path.with_stem("proposal")
    session = PyTorch().open(file, None, "fp32")
    inputs = random_rows(session.inputs, 16)
    # The weights beside the graphs are in half precision.
    assert gap(OnnxSession(file).run(inputs), session.run(inputs)) <= 0.01


def test_an_encoder_on_any_runtime_keeps_the_encoder_s_contract(variant: Variant, tiny_bundle: Path) -> None:
    path = tiny_bundle / "encoder.onnx"
    encoder = GraphEncoder(opened(variant, path), path, file_sha256(path))
    check_encoder(encoder, tolerance=max(1e-4, TOLERANCES[variant.name]))


def test_every_runtime_takes_arrays_that_are_not_contiguous(variant: Variant, tiny_bundle: Path) -> None:
    path = tiny_bundle / "energy.onnx"
    reference, session = opened(REFERENCE, path), opened(variant, path)
    rows = random_rows(session.inputs, 8)
    inputs = {
        "latent": rows["latent"][::2],
        "goal": np.broadcast_to(rows["goal"][0], (4, rows["goal"].shape[1])),
        "tool": np.asfortranarray(rows["tool"][:4]),
    }
    assert gap(reference.run(inputs), session.run(inputs)) <= TOLERANCES[variant.name]


@pytest.mark.parametrize("rows", (9, 14, 31, 32, 42, 96))
def test_a_prepared_batch_is_whole_whatever_pieces_it_goes_through(
    variant: Variant, tiny_bundle: Path, rows: int
) -> None:
    path = tiny_bundle / "predictor.onnx"
    reference, session = opened(REFERENCE, path), opened(variant, path)
    for size in (96, rows, 16):
        session.prepare(size)
    session.run(random_rows(session.inputs, 96, seed=1))
    inputs = random_rows(session.inputs, rows, seed=2)
    assert gap(reference.run(inputs), session.run(inputs)) <= TOLERANCES[variant.name]


def test_what_was_given_out_stays_when_the_session_runs_again(variant: Variant, tiny_bundle: Path) -> None:
    session = opened(variant, tiny_bundle / "predictor.onnx")
    first = session.run(random_rows(session.inputs, 4, seed=1))
    kept = [np.array(output) for output in first]
    session.run(random_rows(session.inputs, 4, seed=2))
    assert all(np.array_equal(one, other) for one, other in zip(first, kept, strict=True))


def test_a_damaged_a_foreign_and_a_missing_graph_are_named(
    variant: Variant, tiny_bundle: Path, tmp_path: Path
) -> None:
    graph = tmp_path / "encoder.onnx"
    with pytest.raises(ModelError, match=r"encoder\.onnx is missing"):
        open_session(variant, graph)
    shutil.copy(tiny_bundle / "encoder.onnx", graph)
    with pytest.raises(ModelError, match=r"encoder\.onnx is not the file .*sha256"):
        open_session(variant, graph, "0" * 64)
    graph.write_bytes(graph.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"encoder\.onnx cannot be read"):
        open_session(variant, graph)


def test_torch_names_weights_that_are_missing_or_of_another_model(tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "energy.onnx"
    shutil.copy(tiny_bundle / "energy.onnx", path)
    variant = PyTorch().variants()[0]
    with pytest.raises(ModelError, match=r"weights\.safetensors cannot be read"):
        open_session(variant, path)
    shutil.copy(SHIPPED[0].with_name("weights.safetensors"), path.parent)
    with pytest.raises(ModelError, match=r"weights\.safetensors does not hold this release's energy"):
        # Of another width of latents.
        open_session(variant, path)


def test_an_unknown_runtime_is_refused_with_those_there_are(tiny_bundle: Path) -> None:
    with pytest.raises(ModelError, match="no runtime 'caffe'; there are onnxruntime, openvino, torch"):
        open_session(Variant("caffe", "fp32", "1"), tiny_bundle / "encoder.onnx")


def test_a_signal_after_sessions_came_and_went_is_handled_and_crashes_nothing() -> None:
    """OpenVINO meddles with the stack that handlers of signals run on."""
    told = subprocess.run(
        [sys.executable, "-c", CTRL_C, *map(str, SHIPPED[:2])], capture_output=True, text=True
    )
    assert (told.returncode, told.stdout, told.stderr) == (0, "interrupted\n", "")


CTRL_C = """
import faulthandler, gc, signal, sys
from pathlib import Path
from perception.runtimes.registry import offers, open_session

faulthandler.enable()  # with a stack of its own
variants = [variant for offer in offers() for variant in offer.variants if offer.runtime != "tensorrt"]
for variant in variants:
    sessions = [open_session(variant, Path(path)) for path in sys.argv[1:]]
    while sessions:
        del sessions[0]
        gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize(
    ("runtime", "package", "extra"), [("openvino", "openvino", "openvino"), ("torch", "safetensors", "train")]
)
def test_a_runtime_that_is_not_installed_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, runtime: str, package: str, extra: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    (offer,) = [offer for offer in offers() if offer.runtime == runtime]
    assert offer.variants == () and f"pip install 'jepa-arm[{extra}]'" in offer.missing


def test_a_library_that_does_not_load_is_no_offer_and_no_crash() -> None:
    class Broken:
        name = "broken"

        def variants(self) -> tuple[Variant, ...]:
            raise ImportError("libbroken.so.1: cannot open\nshared object file")

        def open(self, path: Path, sha256: str | None, precision: str) -> Session:
            raise RuntimeUnavailable("never")

    assert offer_of(Broken()) == Offer(
        "broken", (), "broken cannot be loaded: libbroken.so.1: cannot open shared object file"
    )


def test_the_reference_is_onnx_runtime_in_full_precision() -> None:
    assert (REFERENCE.runtime, REFERENCE.precision) == ("onnxruntime", "fp32")
    assert RUNTIMES[0].name == "onnxruntime"


class Doubler:
    """A good session, for the broken ones to differ from."""

    inputs = (Port("x", "float32", (3,)),)
    outputs = (Port("y", "float32", (3,)),)

    def prepare(self, rows: int) -> None:
        pass

    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        from perception.runtimes.contract import check_inputs

        check_inputs(self.inputs, inputs)
        return [inputs["x"] * np.float32(2)]


class MeanOfBatch(Doubler):
    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        return [super().run(inputs)[0] - inputs["x"].mean(0)]


class Fickle(Doubler):
    calls = 0

    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        self.calls += 1
        return [super().run(inputs)[0] + np.float32(self.calls)]


class AnotherWhenPrepared(Doubler):
    prepared = 0

    def prepare(self, rows: int) -> None:
        self.prepared = 1

    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        return [super().run(inputs)[0] + np.float32(self.prepared)]


class OneRow(Doubler):
    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        return [super().run(inputs)[0][:1]]


class TakesAnything(Doubler):
    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        return [np.asarray(inputs.get("x", np.zeros((1, 3))), np.float32) * 2]


def test_a_session_that_keeps_the_contract_passes() -> None:
    check_session(Doubler())


@pytest.mark.parametrize(
    ("session", "promise"),
    [
        (MeanOfBatch(), "changes by .* with the batch"),
        (Fickle(), "two outputs for the same inputs"),
        (AnotherWhenPrepared(), "y changes by .* once its batches are prepared"),
        (OneRow(), "for 3 rows, promised"),
        (TakesAnything(), "without a ValueError"),
    ],
)
def test_a_broken_session_is_told_which_promise_it_broke(session: Session, promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        check_session(session)


@given(rows=st.integers(1, 3 * LARGEST))
def test_batches_are_few_sizes_and_give_every_row_its_own_output(rows: int) -> None:
    sizes = []

    def run(inputs: Mapping[str, Any]) -> list[Any]:
        sizes.append(len(inputs["x"]))
        return [inputs["x"] * 2]

    numbers = np.arange(1, rows + 1, dtype=np.float32)[:, None]
    (doubled,) = in_batches(run, {"x": numbers})
    np.testing.assert_array_equal(doubled, numbers * 2)
    assert all(size & (size - 1) == 0 and size <= LARGEST for size in sizes)


@given(rows=st.integers(1, LARGEST))
def test_a_padded_batch_is_less_than_twice_as_large(rows: int) -> None:
    assert rows <= padded_size(rows) < 2 * rows or rows == 1
