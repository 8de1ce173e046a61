"""What a runtime promises (an ONNX graph of a bundle → a session that runs it), and a checker for all.

session = runtime.open(path, sha256, "fp32")
(latent,) = session.run({"image": images})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

# Beside a bundle's graphs: the weights that training goes on from, and what torch runs.
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Port:
    """An input or output of a graph: its name, `dtype` ("uint8" or "float32") and the shape of one row."""

    name: str
    dtype: str
    row: tuple[int, ...]


@dataclass(frozen=True)
class Form:
    """Shape and type of an array, wherever it is."""

    shape: tuple[int, ...]
    dtype: str

    def __len__(self) -> int:
        return self.shape[0]


@dataclass(frozen=True)
class Variant:
    """A way to run graphs on this machine: a runtime at a precision; `version` tells all it stands on."""

    runtime: str
    precision: str
    version: str

    @property
    def name(self) -> str:
        return f"{self.runtime}:{self.precision}"


@runtime_checkable
class Session(Protocol):
    """An open graph. Rows are independent: each gives the same outputs alone or in a batch of any size.

    Calls are not thread-safe.
    """

    @property
    def inputs(self) -> tuple[Port, ...]: ...

    @property
    def outputs(self) -> tuple[Port, ...]: ...

    def prepare(self, rows: int) -> None:
        """Make batches of `rows` as fast as they can be. Others work too, but may be slower, and the first
        of them may take long."""
        ...

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[np.float32]]:
        """Arrays (N, *row) by input name to float32 arrays (N, *row), in the order of `outputs`.

        Raises ValueError for other names, types or shapes.
        """
        ...


DLPACK_CPU = 1
"""DLPack's number for the computer's own memory."""


@runtime_checkable
class DLPackArray(Protocol):
    """A torch or CuPy array, a decoded picture and the like, in whatever memory."""

    def __dlpack__(self, *, stream: Any = None) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...


@runtime_checkable
class CudaArray(Protocol):
    """An image of jetson-utils, a Numba array and the like, in the memory of a GPU."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...


Pixels = NDArray[np.uint8] | DLPackArray | CudaArray


@runtime_checkable
class FrameSession(Protocol):
    """An encoder's graph that takes a camera's frames as they are, open where it runs; not thread-safe."""

    def encode(self, frame: Pixels) -> NDArray[np.float32]:
        """The latent (D,) of a uint8 (H, W, 3) RGB frame, in the computer's memory or on the GPU already.

        Preprocessing is that of `perception.preprocessing.prepare`, done on the device. Raises ValueError
        for frames of another type or size, on another device, or with gaps between their rows.
        """
        ...


@runtime_checkable
class FrameRuntime(Protocol):
    """A runtime that can have its graphs on a GPU, and takes frames that are there."""

    def open_for_frames(
        self, path: Path, sha256: str | None, precision: str, height: int, width: int
    ) -> FrameSession:
        """Open the encoder at `path` for frames (height, width, 3). Raises ModelError as `open` does, and
        ValueError if frames are smaller than its images."""
        ...


class Runtime(Protocol):
    """What runs graphs. A runtime that cannot work on this machine offers no variants and says why."""

    @property
    def name(self) -> str: ...

    def variants(self) -> tuple[Variant, ...]:
        """What can be used here, the fastest first. Raises RuntimeUnavailable, saying what is missing."""
        ...

    def open(self, path: Path, sha256: str | None, precision: str) -> Session:
        """Open the ONNX graph at `path`. Raises ModelError if it is missing, damaged or not `sha256`."""
        ...


def check_inputs(ports: Sequence[Port], inputs: Mapping[str, NDArray[Any] | Form]) -> int:
    """The number of rows. Raises ValueError unless `inputs` are what `ports` take."""
    rows = -1
    for port in ports:
        array = inputs.get(port.name)
        if array is None or array.shape[1:] != port.row or array.dtype != port.dtype or not len(array):
            found = "nothing" if array is None else f"{array.dtype} {array.shape}"
            raise ValueError(f"expected {port.name} {port.dtype} (N, {_shown(port.row)}), got {found}")
        if rows not in (-1, len(array)):
            raise ValueError(f"{port.name} has {len(array)} rows, {ports[0].name} has {rows}")
        rows = len(array)
    if len(inputs) > len(ports):
        unknown = ", ".join(sorted(set(inputs) - {port.name for port in ports}))
        raise ValueError(f"the graph has no input {unknown}")
    return rows


def random_rows(ports: Sequence[Port], count: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Inputs of `count` rows: uniform pixels, normally distributed numbers."""
    rng = np.random.default_rng(seed)
    return {
        port.name: rng.integers(0, 256, (count, *port.row), dtype=np.uint8)
        if port.dtype == "uint8"
        else rng.standard_normal((count, *port.row), dtype=np.float32)
        for port in ports
    }


def check_session(session: Session, tolerance: float = 1e-4) -> None:
    """Raise AssertionError, naming the broken promise, if `session` does not behave as a Session.

    A row may differ by `tolerance`, relative to the largest output, with the batch it is in.
    """
    if not isinstance(session, Session):
        raise AssertionError(f"{type(session).__name__} lacks inputs, outputs or run")
    for count in (3, 70, 1):
        rows = random_rows(session.inputs, count)
        outputs = [np.array(output) for output in session.run(rows)]
        found = [(output.dtype.name, output.shape) for output in outputs]
        promised = [("float32", (count, *port.row)) for port in session.outputs]
        if found != promised:
            raise AssertionError(f"run() gave {found} for {count} rows, promised {promised}")
        if not all(np.isfinite(output).all() for output in outputs):
            raise AssertionError("run() gave outputs that are not finite")
        again = session.run(rows)
        if not all(np.array_equal(one, other) for one, other in zip(outputs, again, strict=True)):
            raise AssertionError("run() gave two outputs for the same inputs")
        session.prepare(count)
        for port, before, after in zip(session.outputs, outputs, session.run(rows), strict=True):
            if (gap := _gap(after, before)) > tolerance:
                raise AssertionError(f"{port.name} changes by {gap:.2g} once its batches are prepared")
        alone = session.run({name: array[-1:] for name, array in rows.items()})
        for port, one, all_rows in zip(session.outputs, alone, outputs, strict=True):
            if (gap := _gap(one[0], all_rows[-1], all_rows)) > tolerance:
                raise AssertionError(f"a row's {port.name} changes by {gap:.2g} with the batch it is in")
    _check_refusals(session)


def _gap(one: NDArray[Any], other: NDArray[Any], among: NDArray[Any] | None = None) -> float:
    """The largest difference, relative to the largest number in `among` or in `other`."""
    return float(np.abs(one - other).max() / max(1.0, float(np.abs(other if among is None else among).max())))


def _check_refusals(session: Session) -> None:
    rows = random_rows(session.inputs, 2)
    first = session.inputs[0].name
    wrong: dict[str, dict[str, NDArray[Any]]] = {
        "a missing input": {name: array for name, array in rows.items() if name != first},
        "an unknown input": {**rows, "unknown": rows[first]},
        "rows of the wrong shape": {**rows, first: rows[first][..., :-1]},
        "the wrong type": {**rows, first: rows[first].astype(np.float64)},
        "no rows at all": {name: array[:0] for name, array in rows.items()},
    }
    for what, inputs in wrong.items():
        try:
            session.run(inputs)
        except ValueError:
            continue
        raise AssertionError(f"run() took {what} without a ValueError")


def _shown(row: tuple[int, ...]) -> str:
    return ", ".join(map(str, row)) or "no numbers"
