"""CUDA through its driver API: the device, a stream, pinned and device memory, captured graphs.

By `cuda-bindings` rather than torch.cuda: it is on PyPI for CUDA 11, 12 and 13, on x86-64 and aarch64, and
needs nothing but the driver's own libcuda; a torch that knows a Jetson's GPU exists for one JetPack each,
outside PyPI, and weighs gigabytes on a robot.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from perception.errors import ModelError, RuntimeUnavailable


@dataclass(frozen=True)
class Device:
    """The first GPU: its name, compute capability ("8.7") and the CUDA version of its driver ("12.6")."""

    name: str
    capability: str
    driver: str


def find_device() -> Device:
    """Raises RuntimeUnavailable where there is no GPU, no driver or no `cuda-bindings`, saying which."""
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        raise RuntimeUnavailable("cuda-bindings is not installed: pip install 'jepa-arm[tensorrt]'")
    from cuda.bindings import driver

    try:
        error, *_ = driver.cuInit(0)
    except RuntimeError as problem:  # libcuda is not there
        raise RuntimeUnavailable("no NVIDIA GPU here, or no driver for it (libcuda.so.1)") from problem
    if error != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeUnavailable(f"no NVIDIA GPU that can be used ({error.name}): `nvidia-smi` may tell more")
    attribute = driver.CUdevice_attribute
    device = _call("cuDeviceGet", 0)
    major = _call("cuDeviceGetAttribute", attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device)
    minor = _call("cuDeviceGetAttribute", attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device)
    version = _call("cuDriverGetVersion")
    name = _call("cuDeviceGetName", 128, device).partition(b"\0")[0].decode()
    return Device(name, f"{major}.{minor}", f"{version // 1000}.{version % 1000 // 10}")


class Stream:
    """One stream in the primary context of the first GPU, and the memory that is used on it.

    What it allocates lives as long as it does. Raises ModelError when a CUDA call fails.
    """

    def __init__(self) -> None:
        device = _call("cuDeviceGet", 0)
        self._context = _call("cuDevicePrimaryCtxRetain", device)
        self.enter()
        # Nothing here waits for, or is waited for by, the default stream.
        self._stream = _call("cuStreamCreate", 1)

    @property
    def handle(self) -> int:
        return int(self._stream)

    def enter(self) -> None:
        """Make the context this thread's own."""
        _call("cuCtxSetCurrent", self._context)

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array in page-locked memory, which the device reads and writes without a copy in between."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = _call("cuMemHostAlloc", size, 0)
        memory: Any = (ctypes.c_byte * size).from_address(int(address))
        return np.frombuffer(memory, dtype).reshape(shape)

    def device_buffer(self, size: int) -> int:
        """The address of `size` bytes on the device."""
        return int(_call("cuMemAlloc", size))

    def to_device(self, address: int, array: NDArray[Any]) -> None:
        _call("cuMemcpyHtoDAsync", address, array.ctypes.data, array.nbytes, self._stream)

    def to_host(self, array: NDArray[Any], address: int) -> None:
        _call("cuMemcpyDtoHAsync", array.ctypes.data, address, array.nbytes, self._stream)

    def copy(self, address: int, source: int, size: int) -> None:
        """From one place on the device to another."""
        _call("cuMemcpyAsync", address, source, size, self._stream)

    def wait_for(self, interface: Mapping[str, Any]) -> None:
        """Wait until what a `__cuda_array_interface__` tells of is written.

        Before its version 3 it did not say on which stream that is done: then all are waited for.
        """
        if "stream" not in interface:
            _call("cuCtxSynchronize")
        elif interface["stream"] is not None:
            _call("cuStreamSynchronize", interface["stream"])

    def synchronise(self) -> None:
        _call("cuStreamSynchronize", self._stream)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """What `work` puts on the stream, as one graph; the returned function launches it."""
        from cuda.bindings import driver

        # Other threads may go on allocating while this one captures.
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        _call("cuStreamBeginCapture", self._stream, mode)
        try:
            work()
        finally:
            graph = _call("cuStreamEndCapture", self._stream)
        # CUDA 11 calls it by another name.
        older = hasattr(driver, "cuGraphInstantiateWithFlags")
        launchable = _call("cuGraphInstantiateWithFlags" if older else "cuGraphInstantiate", graph, 0)
        return lambda: _call("cuGraphLaunch", launchable, self._stream)


def _call(name: str, *arguments: Any) -> Any:
    """What a function of the driver API gives, if anything. Raises ModelError naming it if it fails."""
    from cuda.bindings import driver

    error, *results = getattr(driver, name)(*arguments)
    if error != driver.CUresult.CUDA_SUCCESS:
        raise ModelError(f"CUDA: {name} failed with {error.name}")
    return results[0] if results else None
