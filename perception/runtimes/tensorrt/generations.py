"""What TensorRT 8 does otherwise than those after it: here, and nowhere else. All other calls they share.

From version 10 on a network takes its types from its file. Before, the file says what is computed, flags and
layers say how exactly, the parser ends at opset 17, and nobody can watch a build.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from perception.runtimes.frames import PREFIX, taking_frames
from perception.runtimes.tensorrt.opset import in_opset_17
from perception.runtimes.tensorrt.precision import graph_in


class Progress(Protocol):
    """Hears how far a build is: `done` of `total` steps of a phase that may be inside another."""

    def __call__(self, phase: str, done: int, total: int) -> None: ...


Frame = tuple[int, int]
"""Height and width of what a camera gives, for graphs that do the preprocessing too."""


class Typed:
    """TensorRT 10 and newer, TensorRT-RTX: precision is that of the file."""

    flags = "strongly typed, without TF32"

    def file(self, path: Path, precision: str, frame: Frame | None) -> bytes:
        return _taking(frame, graph_in(path, precision))

    def network(self, trt: ModuleType, builder: Any) -> Any:
        # (From version 11 on there is no other way, and no flag is needed.)
        return builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))

    def demand(self, trt: ModuleType, config: Any, network: Any, precision: str) -> None:
        """Nothing more: it is written in the file."""

    def reason(self, error: Any) -> str:
        return f"{error.node_operator()} {error.node_name()}: {error.desc()}"

    def watch(self, trt: ModuleType, config: Any, progress: Progress) -> None:
        config.progress_monitor = _monitor(trt, progress)


class Untyped:
    """TensorRT 8.5 and 8.6. In fp16, products of matrices and convolutions may be half; in int8, what lies
    between a Q and a DQ is quantised, and the rest is float32."""

    flags = "by flags, sums and functions in float32, without TF32"

    def file(self, path: Path, precision: str, frame: Frame | None) -> bytes:
        return in_opset_17(_taking(frame, graph_in(path, "fp32" if precision == "fp16" else precision)))

    def network(self, trt: ModuleType, builder: Any) -> Any:
        return builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))

    def demand(self, trt: ModuleType, config: Any, network: Any, precision: str) -> None:
        if precision == "int8":
            config.set_flag(trt.BuilderFlag.INT8)
        if precision != "fp16":
            return
        config.set_flag(trt.BuilderFlag.FP16)
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
        exact = (
            trt.LayerType.REDUCE,
            trt.LayerType.UNARY,
            trt.LayerType.ELEMENTWISE,
            trt.LayerType.SOFTMAX,
        )
        for index in range(network.num_layers):
            layer = network.get_layer(index)
            wanted = layer.type in exact or layer.name.startswith(PREFIX)
            # Those that reckon with shapes are in integers.
            if wanted and layer.get_output_type(0) == trt.DataType.FLOAT:
                layer.precision = trt.DataType.FLOAT

    def reason(self, error: Any) -> str:
        return f"node {error.node()}: {error.desc()}"

    def watch(self, trt: ModuleType, config: Any, progress: Progress) -> None:
        """It does not tell how far it is."""


def generation_of(trt: ModuleType) -> Typed | Untyped:
    typed = hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    return Typed() if typed else Untyped()


def _taking(frame: Frame | None, content: bytes) -> bytes:
    return content if frame is None else taking_frames(content, *frame)


def _monitor(trt: ModuleType, progress: Progress) -> Any:
    base: Any = trt.IProgressMonitor

    class Monitor(base):
        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self._steps[phase] = steps
            progress(phase, 0, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            progress(phase, step + 1, self._steps.get(phase, step + 1))
            return True

        def phase_finish(self, phase: str) -> None:
            progress(phase, self._steps.get(phase, 1), self._steps.pop(phase, 1))

    return Monitor()
