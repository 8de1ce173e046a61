"""Every name of TensorRT and CUDA that we use is there, in the versions that robots have.

The bindings of JetPack 6's version and of the newest are in folders of their own (`make setup`). They link to
libraries that only NVIDIA has; functions that do nothing take their place, so that the classes can be seen.
Those of JetPack 5's version come with half a gigabyte of libraries: their names are in a file beside this.
"""

from __future__ import annotations

import ast
import inspect
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from perception.runtimes import cuda
from perception.runtimes.contract import random_rows
from perception.runtimes.onnx import OnnxSession
from perception.runtimes.tensorrt import engine, generations, library, session
from perception.runtimes.tensorrt.opset import in_opset_17
from perception.runtimes.tensorrt.precision import in_int8

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "models").glob("*/*.onnx"))
BINDINGS = Path(sys.prefix) / "tensorrt-bindings"
# What each variable of our code is, there.
CLASSES = {
    "trt": "",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "error": "ParserError",
    "config": "IBuilderConfig",
    "shapes": "IOptimizationProfile",
    "layer": "ILayer",
    "port": "ITensor",
    "config.get_timing_cache()": "ITimingCache",
    "engine": "ICudaEngine",
    "runtime": "Runtime",
    "context": "IExecutionContext",
}
SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
LOOK = """
import ctypes, importlib, json, sys
for stub in sys.argv[2:]:
    ctypes.CDLL(stub, mode=ctypes.RTLD_GLOBAL)
module = importlib.import_module(sys.argv[1])
missing = []
for name in json.load(sys.stdin):
    found = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        missing.append(name)
print(json.dumps([module.__version__, missing]))
"""


def names_used(generation: type = generations.Typed) -> set[str]:
    """Dotted names under the module, such as `Builder.create_network`, that our code uses."""
    others = {
        generations.Typed: [generations.Untyped],
        generations.Untyped: [generations.Typed, generations._monitor],
    }[generation]
    left_out = {other.__name__ for other in others}
    names = set()
    for module in (engine, session, library, generations):
        tree = ast.parse(inspect.getsource(module))
        tree.body = [node for node in tree.body if getattr(node, "name", "") not in left_out]
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                owner = ast.unparse(node.value).removeprefix("self._")
                # An enumeration's member: trt.BuilderFlag.TF32
                prefix, _, rest = owner.partition(".")
                if owner in CLASSES:
                    names.add(f"{CLASSES[owner]}.{node.attr}".lstrip("."))
                elif prefix == "trt" and rest:
                    names.add(f"{rest}.{node.attr}")
    # `port` is one of ours, too.
    return names - {"ITensor.row", "ITensor.dtype"}


def look(module: str, names: set[str], path: Path | None = None, stubs: Sequence[Path] = ()) -> list[str]:
    """Which of `names` a fresh Python does not find in `module`."""
    ran = subprocess.run(
        [sys.executable, "-c", LOOK, module, *map(str, stubs)],
        input=json.dumps(sorted(names)),
        capture_output=True,
        text=True,
        timeout=60,
        cwd=path,
    )
    assert ran.returncode == 0, ran.stderr
    version, missing = json.loads(ran.stdout)
    print(f"{module} {version}: {len(names)} names")
    return missing


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """For each version, the libraries that its bindings link to."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ to make stub libraries with")
    folder = tmp_path_factory.mktemp("stubs")
    source = folder / "stub.cpp"
    source.write_text("".join(f'extern "C" void* {name}() {{ return nullptr; }}\n' for name in SYMBOLS))
    made: dict[str, list[Path]] = {}
    for version in ("10.3", "11.4"):
        major = version.partition(".")[0]
        for name in ("nvinfer", "nvonnxparser", "nvinfer_plugin"):
            stub = folder / f"lib{name}.so.{major}"
            soname = f"-Wl,-soname,{stub.name}"
            subprocess.run([compiler, "-shared", "-fPIC", soname, "-o", stub, source], check=True)
            made.setdefault(version, []).append(stub)
    return made


def test_the_names_we_look_for_are_those_of_a_whole_backend() -> None:
    names = names_used()
    assert names >= {
        "Builder.build_serialized_network",
        "IBuilderConfig.set_timing_cache",
        "ICudaEngine.get_tensor_dtype",
        "IExecutionContext.execute_async_v3",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "OnnxParser.parse",
        "Runtime.deserialize_cuda_engine",
        "IProgressMonitor",
    }
    assert len(names) > 35, sorted(names)


@pytest.mark.parametrize("version", ["10.3", "11.4"])
def test_every_tensorrt_name_is_in_the_bindings(version: str, stubs: dict[str, list[Path]]) -> None:
    folder = BINDINGS / version
    if not folder.is_dir():
        pytest.skip(f"no bindings of TensorRT {version} in {folder}: `make setup` gets them for this Python")
    assert look("tensorrt_bindings", names_used(), folder, stubs[version]) == []
    assert look("tensorrt_bindings", {"Builder.fold_laundry"}, folder, stubs[version]) != []


def in_8_5() -> dict[str, set[str]]:
    """The names in TensorRT 8.5, by class."""
    lines = Path(__file__).with_name("tensorrt-8.5.3.1.txt").read_text().splitlines()
    rows = [line.split(": ") for line in lines if not line.startswith("#")]
    return {owner: set(names.split()) for owner, names in rows}


def test_every_tensorrt_name_is_in_8_5() -> None:
    there, used = in_8_5(), names_used(generations.Untyped)
    assert used >= {"BuilderFlag.OBEY_PRECISION_CONSTRAINTS", "ILayer.precision", "DataType.UINT8"}
    known = {f"{owner}.{name}" for owner, names in there.items() for name in names} | there["module"]
    known.add("__name__")  # a module has it, and `dir` did not tell
    assert used - known == set()
    assert "STRONGLY_TYPED" not in there["NetworkDefinitionCreationFlag"]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("graph", SHIPPED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_shipped_graph_can_be_written_in_operators_of_8_5(graph: Path, precision: str) -> None:
    import onnx

    content = graph.read_bytes()
    if precision == "int8":
        content = in_int8(graph, random_rows(OnnxSession(graph).inputs, 16))
    model = onnx.load_from_string(in_opset_17(content))
    onnx.checker.check_model(model, full_check=True)
    assert {node.op_type for node in model.graph.node} <= in_8_5()["operators"]
    uint8 = onnx.TensorProto.UINT8
    pixels = {port.name for port in model.graph.input if port.type.tensor_type.elem_type == uint8}
    assert {node.op_type for node in model.graph.node if pixels & {*node.input}} <= {"Cast"}
    assert [opset.version for opset in model.opset_import] == [17]


def test_every_tensorrt_name_is_in_tensorrt_rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'jepa-arm[dev]'")
    assert look("tensorrt_rtx", names_used()) == []


def test_every_cuda_name_is_in_cuda_bindings() -> None:
    from cuda.bindings import driver

    tree = ast.parse(inspect.getsource(cuda))
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    called = {text for text in strings if isinstance(text, str) and text.startswith("cu") and text.isalnum()}
    called -= {"cuda", "cuGraphInstantiateWithFlags"}  # the latter is CUDA 11's
    assert len(called) > 12
    assert [name for name in sorted(called) if not hasattr(driver, name)] == []
