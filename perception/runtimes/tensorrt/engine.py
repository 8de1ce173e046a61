"""Building engines: one ONNX file → the serialised engine for this GPU and this version of TensorRT.

A build takes seconds to minutes, so engines are kept (`cached_engine`), never shipped. An engine belongs to
one GPU, driver, TensorRT and file: all of that is its key, and the kept file says whose it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from perception.errors import ModelError
from perception.runtimes.batches import LARGEST
from perception.runtimes.cache import cache_folder, key_of, write_whole
from perception.runtimes.tensorrt.generations import Progress, generation_of
from perception.runtimes.tensorrt.library import Library

MAGIC = b"jepa-arm engine 1\n"
# What is tuned for: candidates of Mode-2's refinement.
TYPICAL_ROWS = 32
WORKSPACE_BYTES = 1 << 30

Profile = tuple[int, int, int]
"""Rows of a batch: the least, what is tuned for, the most."""
Tell = Callable[[str], object]


@dataclass(frozen=True)
class Recipe:
    """What an engine is built from and for; anything else in here makes another engine."""

    graph: str
    onnx_sha256: str
    precision: str
    library: str
    gpu: str
    capability: str
    driver: str
    flags: str
    profile: Profile

    @property
    def path(self) -> Path:
        return cache_folder() / "engines" / f"{self.graph}-{self.precision}-{key_of(asdict(self))}.engine"


def recipe_of(
    graph: str,
    onnx: bytes,
    precision: str,
    library: Library,
    profile: Profile = (1, TYPICAL_ROWS, LARGEST),
) -> Recipe:
    device, flags = library.device, generation_of(library.module).flags
    return Recipe(
        graph,
        hashlib.sha256(onnx).hexdigest(),
        precision,
        library.version,
        device.name,
        device.capability,
        device.driver,
        flags,
        profile,
    )


def cached_engine(
    library: Library, recipe: Recipe, onnx: bytes, tell: Tell, progress: Progress | None = None
) -> bytes:
    """The engine of `recipe`: the one that is kept, or built now. Of two processes one builds, one waits."""
    engine = read_engine(recipe)
    if engine is not None:
        return engine
    with _alone(recipe.path, tell):
        engine = read_engine(recipe)  # built by whoever we waited for
        if engine is not None:
            return engine
        tell(f"building a TensorRT engine of {recipe.graph} in {recipe.precision} for {recipe.gpu}")
        timing = _timing_cache(recipe)
        known = timing.read_bytes() if timing.exists() else b""
        engine, learned = build(library.module, onnx, recipe.precision, recipe.profile, known, progress)
        if learned:
            write_whole(timing, learned)
        write_engine(recipe, engine)
        return engine


def _timing_cache(recipe: Recipe) -> Path:
    """Shared by all engines for this GPU; one that TensorRT does not take as its own it ignores."""
    key = key_of([recipe.library, recipe.gpu, recipe.driver])
    return cache_folder() / "engines" / f"timing-{key}.cache"


def read_engine(recipe: Recipe) -> bytes | None:
    """The kept engine, or nothing where there is none, it is truncated, or it is another recipe's."""
    try:
        content = recipe.path.read_bytes()
    except OSError:
        return None
    header, _, engine = content.removeprefix(MAGIC).partition(b"\n")
    try:
        known = json.loads(header)
    except ValueError:
        return None
    ours = {**json.loads(json.dumps(asdict(recipe))), "sha256": hashlib.sha256(engine).hexdigest()}
    return engine if content.startswith(MAGIC) and known == ours else None


def write_engine(recipe: Recipe, engine: bytes) -> None:
    header = json.dumps({**asdict(recipe), "sha256": hashlib.sha256(engine).hexdigest()})
    write_whole(recipe.path, MAGIC + header.encode() + b"\n" + engine)


def build(
    trt: ModuleType,
    onnx: bytes,
    precision: str,
    profile: Profile,
    timings: bytes = b"",
    progress: Progress | None = None,
) -> tuple[bytes, bytes]:
    """The serialised engine of an ONNX model, written for `precision`, for batches from `profile`'s least to
    its largest, and what was learned about timing. Raises ModelError if TensorRT takes no such graph.
    """
    logger, generation = _logger(trt), generation_of(trt)
    builder = trt.Builder(logger)
    network = generation.network(trt, builder)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        reasons = [generation.reason(error) for error in errors]
        raise ModelError(f"TensorRT cannot parse the graph: {'; '.join(reasons) or logger.last}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    # TF32 rounds factors to 11 bits, which is not what fp32 says.
    config.clear_flag(trt.BuilderFlag.TF32)
    generation.demand(trt, config, network, precision)
    # TensorRT-RTX times nothing before it runs on the GPU.
    learns = trt.__name__ != "tensorrt_rtx"
    if learns:
        config.set_timing_cache(config.create_timing_cache(timings), True)
    if progress is not None:
        generation.watch(trt, config, progress)
    shapes = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        port = network.get_input(index)
        row = tuple(port.shape)[1:]
        shapes.set_shape(port.name, *((rows, *row) for rows in profile))
    config.add_optimization_profile(shapes)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ModelError(f"TensorRT cannot build an engine: {logger.last or 'it does not say why'}")
    learned = bytes(memoryview(config.get_timing_cache().serialize())) if learns else b""
    return bytes(memoryview(engine)), learned


@contextlib.contextmanager
def _alone(path: Path, tell: Tell) -> Iterator[None]:
    """Hold the lock of `path`; the system lets it go if this process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(f"another process is building {path.stem}: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _logger(trt: ModuleType) -> Any:
    """TensorRT's messages, of which the last error is kept: it is the reason that nothing else gives."""

    base: Any = trt.ILogger

    class Logger(base):
        def __init__(self) -> None:
            super().__init__()
            self.last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.last = " ".join(message.split())

    return Logger()
