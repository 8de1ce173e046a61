"""Engines are built by TensorRT-RTX, which needs no GPU for it, and kept; it takes every shipped graph."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from perception.errors import ModelError
from perception.runtimes.contract import random_rows
from perception.runtimes.cuda import Device
from perception.runtimes.frames import taking_frames
from perception.runtimes.onnx import OnnxSession
from perception.runtimes.tensorrt.engine import (
    Recipe,
    build,
    cached_engine,
    read_engine,
    recipe_of,
    write_engine,
)
from perception.runtimes.tensorrt.library import Library
from perception.runtimes.tensorrt.opset import in_opset_17
from perception.runtimes.tensorrt.precision import in_half_precision, in_int8

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "models").glob("*/*.onnx"))
rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'jepa-arm[dev]'")


@pytest.fixture
def library() -> Library:
    return Library(rtx, f"tensorrt_rtx {rtx.__version__}", Device("Orin", "8.7", "12.6"))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("graph", SHIPPED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_shipped_graph_parses_and_builds(graph: Path, precision: str) -> None:
    if precision == "int8":
        content = in_int8(graph, random_rows(OnnxSession(graph).inputs, 16))
    else:
        content = in_half_precision(graph) if precision == "fp16" else graph.read_bytes()
    steps: list[str] = []
    engine, _ = build(
        rtx, content, precision, (1, 32, 512), progress=lambda phase, done, total: steps.append(phase)
    )
    assert len(engine) > len(content) / 2
    assert "Building engine" in steps


@pytest.mark.parametrize("graph", SHIPPED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_is_rewritten_for_8_5_parses_and_builds_too(graph: Path) -> None:
    content = in_opset_17(graph.read_bytes())
    engine, _ = build(rtx, content, "fp32", (1, 32, 512))
    assert len(engine) > len(content) / 2


ENCODERS = [graph for graph in SHIPPED if graph.stem == "encoder"]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("graph", ENCODERS, ids=lambda path: path.parent.name)
def test_every_shipped_encoder_builds_with_preprocessing_before_it(graph: Path, precision: str) -> None:
    if precision == "int8":
        content = in_int8(graph, random_rows(OnnxSession(graph).inputs, 16))
    else:
        content = in_half_precision(graph) if precision == "fp16" else graph.read_bytes()
    engine, _ = build(rtx, taking_frames(content, 480, 640), precision, (1, 1, 1))
    assert len(engine) > len(content) / 2


def test_a_graph_of_unknown_operators_is_refused_with_the_reason(tiny_bundle: Path) -> None:
    import onnx

    model = onnx.load(tiny_bundle / "energy.onnx")
    model.graph.node[0].op_type = "Teleport"
    with pytest.raises(ModelError, match="TensorRT cannot parse the graph: Teleport .*Plugin not found"):
        build(rtx, model.SerializeToString(), "fp32", (1, 2, 4))


def test_an_engine_is_built_once_and_read_after(library: Library, tiny_bundle: Path) -> None:
    onnx, told = (tiny_bundle / "energy.onnx").read_bytes(), list[str]()
    recipe = recipe_of("energy", onnx, "fp32", library)
    first = cached_engine(library, recipe, onnx, told.append)
    assert cached_engine(library, recipe, onnx, told.append) == first
    assert told == ["building a TensorRT engine of energy in fp32 for Orin"]


def damage(content: bytes, how: str) -> bytes:
    cuts = {"empty": b"", "truncated": content[:-100], "header only": content[:200], "foreign": b"x" * 5000}
    flipped = content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]
    return {**cuts, "flipped": flipped}[how]


@pytest.mark.parametrize("how", ["empty", "truncated", "header only", "foreign", "flipped"])
def test_a_damaged_engine_is_built_again(library: Library, tiny_bundle: Path, how: str) -> None:
    onnx, told = (tiny_bundle / "energy.onnx").read_bytes(), list[str]()
    recipe = recipe_of("energy", onnx, "fp32", library)
    cached_engine(library, recipe, onnx, told.append)
    recipe.path.write_bytes(damage(recipe.path.read_bytes(), how))
    assert read_engine(recipe) is None
    cached_engine(library, recipe, onnx, told.append)
    assert len(told) == 2 and read_engine(recipe) is not None


def test_an_engine_of_another_gpu_under_our_name_is_not_ours(library: Library) -> None:
    recipe = recipe_of("energy", b"graph", "fp32", library)
    other = Recipe(**{**vars(recipe), "gpu": "Thor"})
    write_engine(other, b"engine")
    recipe.path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(other.path, recipe.path)
    assert read_engine(other) == b"engine" and read_engine(recipe) is None


BUILD = """
import sys
from pathlib import Path
import tensorrt_rtx as rtx
from perception.runtimes.cuda import Device
from perception.runtimes.tensorrt.engine import cached_engine, recipe_of
from perception.runtimes.tensorrt.library import Library

onnx = Path(sys.argv[1]).read_bytes()
library = Library(rtx, "1", Device("Orin", "8.7", "12.6"))
recipe = recipe_of("energy", onnx, "fp32", library)
print("ready", flush=True)
sys.stdin.readline()
engine = cached_engine(library, recipe, onnx, lambda line: print(line, flush=True))
print(len(engine))
"""


def test_two_processes_that_want_one_engine_build_it_once(tiny_bundle: Path) -> None:
    command = [sys.executable, "-c", BUILD, str(tiny_bundle / "energy.onnx")]
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    processes = [subprocess.Popen(command, **options) for _ in range(2)]  # type: ignore[call-overload]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate(timeout=120)[0].splitlines() for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert sum("building a TensorRT engine" in line for lines in told for line in lines) == 1, told
    assert told[0][-1] == told[1][-1]


def test_a_recipe_is_written_beside_its_engine(library: Library) -> None:
    recipe = recipe_of("energy", b"graph", "fp16", library)
    write_engine(recipe, b"engine")
    header = json.loads(recipe.path.read_bytes().split(b"\n")[1])
    assert (header["gpu"], header["capability"], header["driver"]) == ("Orin", "8.7", "12.6")
    assert header["library"].startswith("tensorrt_rtx ") and header["profile"] == [1, 32, 512]
