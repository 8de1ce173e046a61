"""Arrays that are in a GPU's memory already, whoever put them there: by DLPack, or by CUDA's array interface.

Both say where the numbers are, and that is all that is taken: nothing is copied, no other library is needed.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.runtimes.contract import DLPACK_CPU, CudaArray, DLPackArray, Form, Pixels
from perception.runtimes.cuda import Stream

CUDA, CUDA_MANAGED = 2, 13
KINDS = {0: "int", 1: "uint", 2: "float"}


@dataclass(frozen=True)
class DeviceArray(Form):
    """Numbers, one row after the other, at `address` on the first GPU as long as `owner` lives."""

    address: int
    owner: Any

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def as_row(self) -> DeviceArray:
        """The only row of a batch."""
        return replace(self, shape=(1, *self.shape))


def find_array(source: Pixels, stream: Stream) -> NDArray[Any] | DeviceArray:
    """Where `source` is; whatever is still being written to it comes first on `stream`.

    Raises ValueError if it is on neither the processor nor the first GPU, or is not C-contiguous.
    """
    if isinstance(source, np.ndarray):
        return source
    if isinstance(source, DLPackArray):
        kind, index = source.__dlpack_device__()
        if kind == DLPACK_CPU:
            return np.from_dlpack(source)
        if kind not in (CUDA, CUDA_MANAGED) or index:
            raise ValueError(f"the array is on device {kind}:{index} of DLPack, not on the first GPU")
        return _from_capsule(source.__dlpack__(stream=stream.handle))
    if isinstance(source, CudaArray):
        return _from_interface(source, stream)
    raise ValueError(f"a {type(source).__name__} has neither __dlpack__ nor __cuda_array_interface__")


class _Tensor(ctypes.Structure):
    """DLTensor, which a capsule's DLManagedTensor begins with."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def _from_capsule(capsule: Any) -> DeviceArray:
    """Our owner is the capsule: not taken over, it gives the memory back when it goes."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = _Tensor.from_address(pointer(capsule, b"dltensor"))
    shape = tuple(tensor.shape[: tensor.ndim])
    dtype = f"{KINDS.get(tensor.code, 'other')}{tensor.bits}"
    if tensor.strides:
        _check_contiguous(shape, tuple(tensor.strides[: tensor.ndim]), 1)
    return DeviceArray(shape, dtype, (tensor.data or 0) + tensor.byte_offset, capsule)


def _from_interface(source: CudaArray, stream: Stream) -> DeviceArray:
    told = source.__cuda_array_interface__
    dtype, shape = np.dtype(told["typestr"]), tuple(told["shape"])
    if told.get("strides") is not None:
        _check_contiguous(shape, tuple(told["strides"]), dtype.itemsize)
    stream.wait_for(told)
    return DeviceArray(shape, dtype.name, int(told["data"][0]), source)


def _check_contiguous(shape: tuple[int, ...], strides: tuple[int, ...], item: int) -> None:
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length > 1 and stride != item:
            raise ValueError(f"an array {shape} with strides {strides} is not C-contiguous: copy it first")
        item *= length
