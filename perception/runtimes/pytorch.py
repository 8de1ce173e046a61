"""PyTorch: the modules that were trained, eager on the CPU, compiled into CUDA graphs where there is CUDA."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import RuntimeUnavailable
from perception.runtimes.batches import in_batches
from perception.runtimes.contract import (
    DLPACK_CPU,
    DLPackArray,
    Form,
    Pixels,
    Port,
    Variant,
    check_inputs,
    random_rows,
)
from perception.runtimes.onnx import OnnxSession, file_sha256

# Its code is as much a part of what runs as the library is.
MODEL = Path(__file__).parent.parent / "jepa" / "model.py"


def device_here() -> str:
    """Where torch runs graphs on this machine: "cuda" or "cpu". Needs torch."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


class TorchSession:
    """A graph's module. Raises ModelError if the weights beside it are missing or not of this release."""

    def __init__(self, path: Path, sha256: str | None = None) -> None:
        import torch

        from perception.runtimes.modules import load_module

        # Where another process wants the core, torch's threads wait for one another.
        torch.set_num_threads(1)
        signature = OnnxSession(path, sha256)
        self.inputs: tuple[Port, ...] = signature.inputs
        self.outputs: tuple[Port, ...] = signature.outputs
        rows = {port.name: port.row for port in (*self.inputs, *self.outputs)}
        self._device = torch.device(device_here())
        module: Callable[..., Any] = load_module(path, rows).to(self._device)
        on_cuda = self._device.type == "cuda"
        self._module = torch.compile(module, mode="reduce-overhead", dynamic=False) if on_cuda else module

    def prepare(self, rows: int) -> None:
        self.run(random_rows(self.inputs, rows))  # which on CUDA compiles and captures

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[np.float32]]:
        check_inputs(self.inputs, inputs)
        return in_batches(self._run, inputs) if self._device.type == "cuda" else self._run(inputs)

    def _run(self, inputs: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[np.float32]]:
        import torch

        with torch.inference_mode():
            rows = [torch.tensor(inputs[port.name], device=self._device) for port in self.inputs]
            outputs = self._module(*rows)
            return [out.cpu().numpy() for out in (outputs if isinstance(outputs, tuple) else (outputs,))]


class TorchFrameSession:
    """An encoder's module with preprocessing before it, for frames (height, width, 3).

    Raises ModelError as TorchSession does, and ValueError if frames are smaller than the encoder's images.
    """

    def __init__(self, path: Path, sha256: str | None, height: int, width: int) -> None:
        import torch

        from perception.runtimes.modules import OfFrames, open_module

        torch.set_num_threads(1)
        self._port = Port("frame", "uint8", (height, width, 3))
        self._device = torch.device(device_here())
        size = OnnxSession(path, sha256).inputs[0].row[0]
        module: Callable[..., Any] = OfFrames(open_module(path), height, width, size).to(self._device)
        on_cuda = self._device.type == "cuda"
        self._module = torch.compile(module, mode="reduce-overhead", dynamic=False) if on_cuda else module

    def encode(self, frame: Pixels) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            row = _tensor(frame)[None]
            form = Form(tuple(row.shape), str(row.dtype).removeprefix("torch."))
            check_inputs((self._port,), {self._port.name: form})
            latent: NDArray[np.float32] = self._module(row.to(self._device))[0].cpu().numpy()
            return latent


def _tensor(array: Pixels) -> Any:
    """`array` as a tensor where it is. What is being written to it comes before what torch does next."""
    import torch

    if isinstance(array, np.ndarray):
        return torch.tensor(array)
    here = isinstance(array, DLPackArray) and array.__dlpack_device__()[0] == DLPACK_CPU
    if not here and not torch.cuda.is_available():
        raise ValueError("the frame is on a GPU, and this torch has no CUDA")
    if isinstance(array, DLPackArray):
        return torch.from_dlpack(array)
    # Which stream it is written on, torch does not ask.
    torch.cuda.synchronize()
    return torch.as_tensor(array, device="cuda")


class PyTorch:
    name = "torch"

    def variants(self) -> tuple[Variant, ...]:
        missing = [name for name in ("torch", "safetensors") if importlib.util.find_spec(name) is None]
        if missing:
            raise RuntimeUnavailable(f"{missing[0]} is not installed: pip install 'jepa-arm[train]'")
        import torch

        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        return (
            Variant(
                self.name, "fp32", f"torch {torch.__version__} on {device}, model {file_sha256(MODEL)[:8]}"
            ),
        )

    def open(self, path: Path, sha256: str | None, precision: str) -> TorchSession:
        return TorchSession(path, sha256)

    def open_for_frames(
        self, path: Path, sha256: str | None, precision: str, height: int, width: int
    ) -> TorchFrameSession:
        return TorchFrameSession(path, sha256, height, width)
