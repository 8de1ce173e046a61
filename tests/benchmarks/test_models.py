"""`bench --models`: rows side by side, the work in them, and what is left out as it would take too long."""

from __future__ import annotations

import json
import os
import time

import numpy as np
import pytest
import torch

import cli
from benchmarks import compare, roofline, timing, whole_plan
from benchmarks.errors import BenchmarkError
from benchmarks.models import (
    EAGER,
    ENCODERS,
    VIT_TINY,
    ClipEncoder,
    Limits,
    Row,
    chosen_models,
    eagerly,
    flops_of,
    parameter_bytes,
)
from benchmarks.roofline import Roofline
from perception.vjepa2.checkpoint import empty_encoder
from planner.optimisers.cem import Cem

CEILING = Roofline(bandwidth=1e9, rates={"fp32": 1e10})
ON_DEVICE = "frame there to latent"
STEPS = {"preprocess", "encoder", ON_DEVICE, "plan mode2", "frame to command", "plan 16x3x2"}


@pytest.fixture
def bench(tiny_bundle, tmp_path, monkeypatch):
    """Runs the command on some models, few times; gives its report and its page."""
    monkeypatch.setattr(compare, "Limits", lambda seconds, ceiling: Limits(5.0, ceiling))
    monkeypatch.setitem(roofline.COPIED_BYTES, "cpu", 1 << 20)
    monkeypatch.setitem(roofline.SIDE, "cpu", 128)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", ""))  # put back
    monkeypatch.setattr(timing, "ROUNDS", 2)
    monkeypatch.setattr(whole_plan, "SEARCH", Cem(samples=16, iterations=2, elites=4, std=0.2))
    monkeypatch.setattr(whole_plan, "HORIZON", 3)

    def run(models: str, *options: str, device: str = "cpu") -> tuple[dict, str]:
        command = ["bench", "--bundle", str(tiny_bundle), "--models", models, "--device", device, *options]
        command += ["--batch", "2", "--seconds", "0.01"]
        files = ["--json", str(tmp_path / "a" / "bench.json"), "--markdown", str(tmp_path / "bench.md")]
        assert cli.main([*command, *files]) == 0
        return json.loads((tmp_path / "a" / "bench.json").read_text()), (tmp_path / "bench.md").read_text()

    return run


def test_every_runtime_is_measured_beside_torch_eager_and_what_takes_too_long_is_told(bench):
    report, page = bench("bundle,tiny:2,vitg:16")
    rows = report["rows"]
    ours = [row for row in rows if row["model"] == "panda-push"]
    assert {row["step"] for row in ours} == STEPS
    for step in STEPS - {"preprocess"}:
        of_step = [row for row in ours if row["step"] == step]
        runtimes = {EAGER} if step == ON_DEVICE else {EAGER, "onnxruntime:fp32", "openvino:fp32"}
        assert {row["runtime"] for row in of_step} >= runtimes
        assert {row["batch"] for row in of_step} == ({1, 2} if step == "encoder" else {1})
    assert [row["runtime"] for row in ours if row["step"] == "plan 16x3x2"][-1] == whole_plan.WHOLE
    clips = [row for row in rows if row["model"] == "tiny"]
    assert {row["runtime"] for row in clips} >= {EAGER, "onnxruntime:fp32", "openvino:fp32"}
    for row in (*ours, *clips):
        assert 0 < row["p50_ms"] <= row["p99_ms"] and row["calls"] >= 2, row
        if row["step"] != "preprocess":
            assert row["gflop"] > 0 and row["mb"] > 0 and row["bound_by"] in ("memory", "compute")
            assert 0 < row["share_of_roofline"] and row["times_torch_eager"] > 0
        if row["runtime"] == EAGER:
            assert row["times_torch_eager"] == 1.0
        if row["runtime"] == "onnxruntime:fp32":
            assert row["times_onnxruntime"] == 1.0
    (giant,) = [row for row in rows if row["model"] == "vitg"]
    assert giant["left_out"].startswith("not run: at least ") and "p50_ms" not in giant
    assert report["roofline"]["gb_per_s"] > 0 and report["roofline"]["gflops"].keys() == {"fp32", "bf16"}
    assert report["device"] == "cpu" and report["machine"]["libraries"]["torch"]
    assert "busy" not in report and "busy" not in page
    lines = page.splitlines()
    assert len([line for line in lines if line.startswith("| ")]) == 1 + len(rows)
    assert any("vitg" in line and giant["left_out"] in line for line in lines)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="this process may use one core only")
def test_busy_neighbours_have_two_columns_of_the_page(bench):
    report, page = bench("tiny:2,vitg:16", "--busy")
    core, others = report["busy"]["core"], report["busy"]["busy_cores"]
    assert (
        f"measured on core {core}, beside a busy neighbour on each of {', '.join(map(str, others))}" in page
    )
    head, _, *lines = [line.split(" | ") for line in page.splitlines() if line.startswith("|")]
    assert head[-2:] == ["busy p50, ×", "busy p99, × |"]
    for row, line in zip(report["rows"], lines, strict=True):
        assert len(line) == len(head)
        if "left_out" in row:
            assert "busy" not in row and line[-2:] == ["", " |"]
        else:
            busy = row["busy"]
            assert busy["times_median"] == pytest.approx(busy["median_ms"] / row["p50_ms"], rel=0.02)
            assert line[-2:] == [f"{busy['times_median']:.2f}", f"{busy['times_p99']:.2f} |"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no NVIDIA GPU here")
def test_a_gpu_runs_eager_compiled_and_tensorrt(bench):
    report, _ = bench("bundle,tiny:2", device="cuda")
    assert {EAGER, "torch compiled"} <= {row["runtime"] for row in report["rows"] if "p50_ms" in row}
    assert "compute capability" in report["machine"]["accelerator"]


def test_the_work_of_an_encoder_is_that_of_its_shape():
    """Of ViT-Tiny: embedding, then per layer projections, MLP, and attention's two products."""
    tokens, width, hidden = 14 * 14, 192, 768
    embedding = 2 * tokens * width * (2 * 16 * 16 * 3)
    layer = 2 * tokens * width * (4 * width + 2 * hidden) + 4 * tokens**2 * width
    clip = ClipEncoder(empty_encoder(VIT_TINY))
    assert flops_of(clip, (1, 2, 224, 224, 3), torch.uint8) == embedding + 12 * layer


@pytest.mark.parametrize(("name", "millions"), [("vitl", 304), ("vith", 632), ("vitg", 1012)])
def test_the_encoders_of_v_jepa_2_have_their_published_sizes(name, millions):
    """Published as 300 M, 600 M and 1 B."""
    count = parameter_bytes(empty_encoder(ENCODERS[name])) / 4e6
    assert count == pytest.approx(millions, rel=0.01)


def test_the_roofline_is_what_takes_longer_of_computing_and_moving():
    assert CEILING.least_s(flops=10**10, moved=10**6, precision="fp32") == pytest.approx(1.0)
    assert CEILING.bound_by(10**10, 10**6, "fp32") == "compute"
    assert CEILING.least_s(flops=10**6, moved=2 * 10**9, precision="fp32") == pytest.approx(2.0)
    assert CEILING.bound_by(10**6, 2 * 10**9, "fp32") == "memory"
    assert CEILING.least_s(10**6, 10**6, "int8") is None and CEILING.bound_by(1, 1, "int8") == ""


def test_what_takes_too_long_by_its_work_is_never_run():
    calls = []
    heavy = Row("m", "s", 1, EAGER, "fp32", flops=10**11, moved=1, run=lambda: calls.append(1))
    tried = Limits(5.0, CEILING).tried(heavy)
    assert tried.run is None and tried.left_out == "not run: at least 10 s a call by its work"
    assert not calls


def test_what_takes_too_long_when_it_is_tried_is_not_repeated():
    calls = []

    def slow() -> None:
        calls.append(1)
        time.sleep(0.02)

    tried = Limits(0.01, CEILING).tried(Row("m", "s", 1, EAGER, "fp32", 1, 1, slow))
    assert tried.run is None and "no more were made" in tried.left_out
    assert len(calls) <= 2
    quick = Row("m", "s", 1, EAGER, "fp32", 1, 1, lambda: None)
    assert Limits(5.0, CEILING).tried(quick) == quick


def test_eager_is_eager_even_where_the_runtime_compiles():
    compiled_by = []

    def backend(graph, inputs):
        compiled_by.append(graph)
        return graph.forward

    twice = torch.compile(lambda x: 2 * x, backend=backend)
    call = eagerly(lambda: twice(torch.ones(2)).numpy())
    np.testing.assert_array_equal(call(), [2.0, 2.0])
    assert not compiled_by
    twice(torch.ones(2))
    assert compiled_by


def test_models_are_chosen_by_name_and_number_of_frames():
    assert chosen_models("bundle,vit-tiny,vitl:8,vitg") == [
        ("bundle", ()),
        ("vit-tiny", (2,)),
        ("vitl", (8,)),
        ("vitg", (2, 8, 16)),
    ]


@pytest.mark.parametrize("models", ["vitx", "vitl:3", "bundle:2", "", "vitl:", "vit-tiny:8"])
def test_models_that_there_are_not_are_refused_by_name(models):
    with pytest.raises(BenchmarkError, match="--models: no .* there are bundle, vit-tiny, vitl, vith, vitg"):
        chosen_models(models)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--models", "vitx"], "no 'vitx'"),
        (["--models", "bundle", "--batch", "0"], "--batch 0"),
        (["--markdown", "a.md"], "--device and --markdown are for --models"),
        (["--device", "cuda"], "--device and --markdown are for --models"),
    ],
)
def test_options_that_make_no_sense_are_one_line(tiny_bundle, options, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench", "--bundle", str(tiny_bundle), *options]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_an_error_and_never_the_processor(tiny_bundle, capsys):
    command = ["bench", "--bundle", str(tiny_bundle), "--models", "bundle", "--device", "cuda"]
    assert cli.main(command) == 2
    assert "torch finds no GPU here" in capsys.readouterr().err
