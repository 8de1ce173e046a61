"""The runtimes by name, and what of them this machine offers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perception.errors import ModelError, RuntimeUnavailable
from perception.runtimes.contract import FrameRuntime, FrameSession, Runtime, Session, Variant
from perception.runtimes.onnx import OnnxRuntime
from perception.runtimes.openvino import OpenVino
from perception.runtimes.pytorch import PyTorch
from perception.runtimes.tensorrt import TensorRt

RUNTIMES: tuple[Runtime, ...] = (OnnxRuntime(), OpenVino(), PyTorch(), TensorRt())
# What needs no check: every other runtime is measured by it.
REFERENCE = OnnxRuntime().variants()[0]


@dataclass(frozen=True)
class Offer:
    """A runtime on this machine: its `variants`, the fastest first, or why there are none."""

    runtime: str
    variants: tuple[Variant, ...]
    missing: str = ""


def offers() -> tuple[Offer, ...]:
    """Every runtime's."""
    return tuple(offer_of(runtime) for runtime in RUNTIMES)


def offer_of(runtime: Runtime) -> Offer:
    try:
        return Offer(runtime.name, runtime.variants())
    except RuntimeUnavailable as error:
        return Offer(runtime.name, (), str(error))
    except (ImportError, OSError, RuntimeError) as error:
        # What a half-installed library raises when it is loaded.
        return Offer(runtime.name, (), f"{runtime.name} cannot be loaded: {' '.join(str(error).split())}")


def runtime_named(name: str) -> Runtime:
    """Raises ModelError for a name that is none."""
    for runtime in RUNTIMES:
        if runtime.name == name:
            return runtime
    names = ", ".join(runtime.name for runtime in RUNTIMES)
    raise ModelError(f"no runtime {name!r}; there are {names}")


def open_session(variant: Variant, path: Path, sha256: str | None = None) -> Session:
    """Open a graph with `variant`. Raises ModelError if it is missing, damaged or not `sha256`."""
    return runtime_named(variant.runtime).open(path, sha256, variant.precision)


def open_frame_session(
    variant: Variant, path: Path, sha256: str | None, height: int, width: int
) -> FrameSession:
    """Open an encoder for frames (height, width, 3). Raises ModelError as `open_session`, and for runtimes
    that have no graphs on a GPU."""
    runtime = runtime_named(variant.runtime)
    if not isinstance(runtime, FrameRuntime):
        able = " or ".join(other.name for other in RUNTIMES if isinstance(other, FrameRuntime))
        raise ModelError(f"{runtime.name} takes no frames on the GPU: choose {able}, or prepare() them first")
    return runtime.open_for_frames(path, sha256, variant.precision, height, width)
