"""A GPU at the edge of the machine: CUDA's driver API and TensorRT's, emulated where there is neither.

What is put on the stream happens when somebody waits for it, and not before, so a wait that was forgotten is
seen. "Engines" are the ONNX files themselves, run by ONNX Runtime on the addresses that were set.
"""

from __future__ import annotations

import ctypes
import enum
import importlib.util
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml

from perception.dataset import load_dataset
from perception.runtimes.onnx import file_sha256
from planner.bundle import DESCRIPTION
from planner.held_out import FILE, sample_held_out

TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


class Result(enum.Enum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_NO_DEVICE = 100


@dataclass
class Layer:
    """ILayer of a network without types; layers of shapes are in integers."""

    operator: str
    name: str
    precision: str = ""

    @property
    def type(self) -> str:
        kinds = {
            "Add": "elementwise",
            "Erf": "unary",
            "ReduceMean": "reduce",
            "Sqrt": "unary",
            "Gemm": "product",
        }
        return kinds.get(self.operator, "other")

    def get_output_type(self, index: int) -> str:
        return "float32"


@dataclass
class Gpu:
    """What the test looks at and may set."""

    name: str = "Orin"
    capability: tuple[int, int] = (8, 7)
    version: int = 12060
    present: bool = True
    takes_engines: bool = True
    builds: list[bytes] = field(default_factory=list)
    demanded: set[str] = field(default_factory=set)
    layers: list[Layer] = field(default_factory=list)
    launches: int = 0
    captures: int = 0
    uploads: list[int] = field(default_factory=list)
    waits: list[int | None] = field(default_factory=list)
    memory: list[Any] = field(default_factory=list)
    queue: list[Callable[[], None]] = field(default_factory=list)
    recording: list[Callable[[], None]] | None = None

    def put(self, work: Callable[[], None]) -> None:
        (self.queue if self.recording is None else self.recording).append(work)

    def allocate(self, size: int) -> int:
        assert self.recording is None, "memory cannot be allocated while a graph is captured"
        block = (ctypes.c_byte * size)()
        ctypes.memset(block, 0x7F, size)
        self.memory.append(block)
        return ctypes.addressof(block)


def emulated_driver(gpu: Gpu) -> SimpleNamespace:
    """The functions of cuda.bindings.driver that we call, with their way of giving results."""
    ok = Result.CUDA_SUCCESS
    attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR=0, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR=1
    )

    def end_capture(stream: int) -> tuple[Result, Any]:
        graph, gpu.recording = gpu.recording, None
        gpu.captures += 1
        return ok, graph

    def launch(graph: list[Callable[[], None]], stream: int) -> tuple[Result]:
        gpu.launches += 1
        gpu.queue.extend(graph)
        return (ok,)

    def uploaded(to: int, source: int, size: int, stream: int) -> tuple[Result]:
        gpu.put(lambda: gpu.uploads.append(size))
        return copy(to, source, size, stream)

    def synchronise(stream: int) -> tuple[Result]:
        gpu.waits.append(stream)
        while gpu.queue:
            gpu.queue.pop(0)()
        return (ok,)

    def copy(to: int, source: int, size: int, stream: int) -> tuple[Result]:
        gpu.put(lambda: ctypes.memmove(to, source, size))
        return (ok,)

    return SimpleNamespace(
        CUresult=Result,
        CUdevice_attribute=attribute,
        CUstreamCaptureMode=SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1),
        cuInit=lambda flags: (ok if gpu.present else Result.CUDA_ERROR_NO_DEVICE,),
        cuDeviceGet=lambda index: (ok, index),
        cuDeviceGetName=lambda length, device: (ok, gpu.name.encode().ljust(length, b"\0")),
        cuDeviceGetAttribute=lambda which, device: (ok, gpu.capability[which]),
        cuDriverGetVersion=lambda: (ok, gpu.version),
        cuDevicePrimaryCtxRetain=lambda device: (ok, "context"),
        cuCtxSetCurrent=lambda context: (ok,),
        cuStreamCreate=lambda flags: (ok, 7),
        cuMemHostAlloc=lambda size, flags: (ok, gpu.allocate(size)),
        cuMemAlloc=lambda size: (ok, gpu.allocate(size)),
        cuMemcpyHtoDAsync=uploaded,
        cuMemcpyAsync=copy,
        cuCtxSynchronize=lambda: (gpu.waits.append(None), (ok,))[1],
        cuMemcpyDtoHAsync=copy,
        cuStreamSynchronize=synchronise,
        cuStreamBeginCapture=lambda stream, mode: (setattr(gpu, "recording", []), (ok,))[1],
        cuStreamEndCapture=end_capture,
        cuGraphInstantiate=lambda graph, flags: (ok, graph),
        cuGraphLaunch=launch,
    )


class Engine:
    """ICudaEngine over an ONNX model."""

    def __init__(self, gpu: Gpu, content: bytes) -> None:
        self.gpu, self.session = (
            gpu,
            onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]),
        )
        self.inputs, self.outputs = self.session.get_inputs(), self.session.get_outputs()
        self.ports = {node.name: node for node in (*self.inputs, *self.outputs)}
        self.num_io_tensors = len(self.ports)

    def get_tensor_name(self, index: int) -> str:
        return list(self.ports)[index]

    def get_tensor_dtype(self, name: str) -> str:
        return TYPES[self.ports[name].type]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *self.ports[name].shape[1:])

    def create_execution_context(self) -> Context:
        return Context(self)


class Context:
    """IExecutionContext: what it was told last is what it does; its first run allocates."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.rows, self.addresses, self.warm = engine, 0, {}, False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.rows = shape[0]
        return tuple(shape[1:]) == tuple(self.engine.ports[name].shape[1:])

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        gpu = self.engine.gpu
        if gpu.recording is not None and not self.warm:
            return False
        self.warm = True
        gpu.put(self._compute)
        return True

    def _compute(self) -> None:
        results = self.engine.session.run(
            None, {node.name: self._array(node, TYPES[node.type]) for node in self.engine.inputs}
        )
        for node, result in zip(self.engine.outputs, results, strict=True):
            self._array(node, "float32")[...] = result

    def _array(self, node: Any, dtype: str) -> Any:
        shape = (self.rows, *node.shape[1:])
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory: Any = (ctypes.c_byte * size).from_address(self.addresses[node.name])
        return np.frombuffer(memory, dtype).reshape(shape)


def emulated_tensorrt(gpu: Gpu, version: str = "10.3.0") -> ModuleType:
    """The names of TensorRT that we use. A network is its ONNX file, and so is what is built of it.

    That of 8 has no strongly typed networks, reads opset 17, and has layers: one for each node.
    """
    typed = not version.startswith("8.")

    class Logger:
        ERROR = "error"
        Severity = SimpleNamespace(ERROR="error", INTERNAL_ERROR="internal error")

        def __init__(self, *severity: str) -> None:
            pass

    class Parser:
        num_errors = 1

        def __init__(self, network: SimpleNamespace, logger: Logger) -> None:
            self.network = network

        def parse(self, content: bytes) -> bool:
            try:
                model = onnx.load_from_string(content)
            except Exception:
                return False
            if not typed and model.opset_import[0].version > 17:
                return False
            graph = model.graph
            self.network.layers = [Layer(node.op_type, node.name) for node in graph.node]
            self.network.num_layers = len(graph.node)
            self.network.get_layer = lambda index: self.network.layers[index]
            self.network.content, self.network.num_inputs = content, len(graph.input)
            ports = [
                SimpleNamespace(name=i.name, shape=[d.dim_value for d in i.type.tensor_type.shape.dim])
                for i in graph.input
            ]
            self.network.get_input = lambda index: ports[index]
            return True

        def get_error(self, index: int) -> SimpleNamespace:
            told = {"desc": lambda: "unknown operator", "node": lambda: 3}
            if typed:
                told |= {"node_operator": lambda: "Gelu", "node_name": lambda: "gelu_1"}
            return SimpleNamespace(**told)

    class Config:
        progress_monitor: Any = None

        def __init__(self) -> None:
            self.profiles: list[Any] = []
            self.demanded: set[str] = set()

        def set_memory_pool_limit(self, pool: str, size: int) -> None: ...
        def clear_flag(self, flag: str) -> None: ...
        def set_flag(self, flag: str) -> None:
            self.demanded.add(flag)

        def create_timing_cache(self, content: bytes) -> bytes:
            return content

        def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> None:
            self.timings = cache

        def get_timing_cache(self) -> SimpleNamespace:
            return SimpleNamespace(serialize=lambda: self.timings + b"t")

        def add_optimization_profile(self, profile: Any) -> None:
            self.profiles.append(profile)

    class Builder:
        def __init__(self, logger: Logger) -> None: ...
        def create_network(self, flags: int) -> SimpleNamespace:
            assert flags == (2 if typed else 1)
            return SimpleNamespace()

        def create_builder_config(self) -> Config:
            return Config()

        def create_optimization_profile(self) -> Any:
            return SimpleNamespace(set_shape=lambda name, least, typical, largest: None)

        def build_serialized_network(self, network: SimpleNamespace, config: Config) -> bytes:
            if config.progress_monitor is not None:
                config.progress_monitor.phase_start("Tactics", None, 1)
                config.progress_monitor.step_complete("Tactics", 0)
                config.progress_monitor.phase_finish("Tactics")
            gpu.builds.append(network.content)
            gpu.demanded, gpu.layers = config.demanded, network.layers
            return network.content

    class Runtime:
        def __init__(self, logger: Logger) -> None: ...
        def deserialize_cuda_engine(self, content: bytes) -> Engine | None:
            return Engine(gpu, content) if gpu.takes_engines else None

    module: Any = ModuleType("tensorrt")
    module.__spec__ = importlib.util.spec_from_loader("tensorrt", None)
    module.__version__ = version
    module.Logger, module.ILogger, module.OnnxParser = Logger, Logger, Parser
    module.Builder, module.Runtime, module.IProgressMonitor = Builder, Runtime, object
    creation = SimpleNamespace(STRONGLY_TYPED=1) if typed else SimpleNamespace(EXPLICIT_BATCH=0)
    module.NetworkDefinitionCreationFlag = creation
    module.MemoryPoolType = SimpleNamespace(WORKSPACE=0)
    module.BuilderFlag = SimpleNamespace(
        TF32="tf32", FP16="fp16", INT8="int8", OBEY_PRECISION_CONSTRAINTS="obey"
    )
    kinds = ("REDUCE", "UNARY", "ELEMENTWISE", "SOFTMAX")
    module.LayerType = SimpleNamespace(**{kind: kind.lower() for kind in kinds})
    module.DataType = SimpleNamespace(FLOAT="float32", UINT8="uint8")
    if not typed:
        del module.IProgressMonitor
    return module


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "jepa-arm"


@pytest.fixture(scope="session")
def sampled(tiny_bundle: Path, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with held-out frames in it. Read it only."""
    folder = tmp_path_factory.mktemp("sampled") / "panda-push"
    shutil.copytree(tiny_bundle, folder)
    sample_held_out(load_dataset(tiny_dataset)[1], 2, 0.02).write(folder / FILE)
    description = yaml.safe_load((folder / DESCRIPTION).read_text())
    description["held_out"] = {"file": FILE, "sha256": file_sha256(folder / FILE)}
    (folder / DESCRIPTION).write_text(yaml.safe_dump(description))
    return folder


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """A machine with a GPU, JetPack 6's TensorRT and its driver."""
    import cuda.bindings.driver  # so that monkeypatch has something to put back

    gpu = Gpu()
    driver: Any = emulated_driver(gpu)
    monkeypatch.setattr(cuda.bindings, "driver", driver)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", driver)
    monkeypatch.setitem(sys.modules, "tensorrt", emulated_tensorrt(gpu))
    return gpu


@pytest.fixture
def install_tensorrt(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Another version of TensorRT instead."""
    return lambda version: monkeypatch.setitem(sys.modules, "tensorrt", emulated_tensorrt(gpu, version))
