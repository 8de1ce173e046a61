"""TensorRT on an NVIDIA GPU: engines built on this machine, kept, and run as captured CUDA graphs."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

from perception.errors import RuntimeUnavailable
from perception.runtimes.cache import write_whole
from perception.runtimes.contract import Port, Variant
from perception.runtimes.frames import FRAME
from perception.runtimes.onnx import OnnxSession
from perception.runtimes.tensorrt.engine import Tell, cached_engine, recipe_of
from perception.runtimes.tensorrt.generations import Frame, Progress, generation_of
from perception.runtimes.tensorrt.library import find_library
from perception.runtimes.tensorrt.precision import PRECISIONS, Rows, in_int8, quantised
from perception.runtimes.tensorrt.session import EngineRefused, TensorRtSession

LOG = logging.getLogger(__name__)


class TensorRt:
    name = "tensorrt"

    def variants(self) -> tuple[Variant, ...]:
        library = find_library()
        if importlib.util.find_spec("onnx") is None:
            raise RuntimeUnavailable("onnx is not installed: pip install 'jepa-arm[tensorrt]'")
        device = library.device
        version = f"{library.version} on {device.name} (driver {device.driver})"
        return tuple(Variant(self.name, precision, version) for precision in PRECISIONS)

    def open(self, path: Path, sha256: str | None, precision: str) -> TensorRtSession:
        return self.prepare(path, sha256, precision, LOG.warning)

    def open_for_frames(
        self, path: Path, sha256: str | None, precision: str, height: int, width: int
    ) -> TensorRtSession:
        return self.prepare(path, sha256, precision, LOG.warning, frame=(height, width))

    def prepare(
        self,
        path: Path,
        sha256: str | None,
        precision: str,
        tell: Tell,
        progress: Progress | None = None,
        frame: Frame | None = None,
    ) -> TensorRtSession:
        """Open a graph, building its engine where none is kept; `tell` and `progress` hear of that."""
        signature = OnnxSession(path, sha256)
        library = find_library()
        onnx = generation_of(library.module).file(path, precision, frame)
        if frame is None:
            inputs, recipe = signature.inputs, recipe_of(path.stem, onnx, precision, library)
        else:
            # Frames come one by one, and a batch of them would take a gigabyte.
            inputs = (Port(FRAME, "uint8", (*frame, 3)),)
            name = f"{path.stem}-of-{frame[1]}x{frame[0]}"
            recipe = recipe_of(name, onnx, precision, library, (1, 1, 1))

        def session() -> TensorRtSession:
            engine = cached_engine(library, recipe, onnx, tell, progress)
            return TensorRtSession(library.module, engine, inputs, signature.outputs)

        try:
            return session()
        except EngineRefused:
            # Whole, and yet not taken: something that its recipe does not tell has changed.
            recipe.path.unlink(missing_ok=True)
            return session()


def quantise(path: Path, rows: Rows) -> None:
    """Quantise the graph at `path` by the ranges of `rows`, inputs by name, for `open` in int8."""
    write_whole(quantised(path), in_int8(path, rows))
