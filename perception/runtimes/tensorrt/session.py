"""Running an engine: pinned buffers, one stream, and a captured graph for each size of batch.

A captured graph belongs to the execution context and the shapes that it was captured with, so every size of
batch, a power of two, has a context, buffers and a graph of its own. A call then costs a copy into pinned
memory, one launch, and a copy out. Inputs that are on the device already are copied there: a captured graph
reads from where it read when it was captured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import ModelError
from perception.runtimes.batches import in_batches
from perception.runtimes.contract import Pixels, Port, check_inputs, random_rows
from perception.runtimes.cuda import Stream
from perception.runtimes.device_array import DeviceArray, find_array


class EngineRefused(ModelError):
    """TensorRT does not take an engine, or its ports are not those of its graph: it was built for another."""


class TensorRtSession:
    """An engine on the first GPU. Raises EngineRefused if it is not one for this GPU and these ports."""

    def __init__(
        self, trt: ModuleType, engine: bytes, inputs: tuple[Port, ...], outputs: tuple[Port, ...]
    ) -> None:
        self.inputs, self.outputs = inputs, outputs
        self._trt = trt
        self._stream = Stream()
        self._logger = trt.Logger(trt.Logger.ERROR)
        # The engine needs its runtime as long as it lives.
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise EngineRefused("TensorRT does not take the engine: it was built for another GPU or version")
        found = self._ports()
        if found != {port.name: (port.dtype, port.row) for port in (*inputs, *outputs)}:
            raise EngineRefused(f"the engine has {found}, which are not the ports of its graph")
        self._lanes: dict[tuple[int, frozenset[str]], Lane] = {}

    def prepare(self, rows: int) -> None:
        self.run(random_rows(self.inputs, rows))  # which allocates and captures

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[np.float32]]:
        check_inputs(self.inputs, inputs)
        self._stream.enter()
        return in_batches(self._run, inputs)

    def encode(self, frame: Pixels) -> NDArray[np.float32]:
        """The only output of one row of the only input. Raises ValueError for another shape or type."""
        self._stream.enter()
        found, (port,) = find_array(frame, self._stream), self.inputs
        row = {port.name: found.as_row() if isinstance(found, DeviceArray) else found[None]}
        check_inputs(self.inputs, row)
        return self._run(row)[0][0]

    def _run(self, inputs: Mapping[str, NDArray[Any] | DeviceArray]) -> Sequence[NDArray[np.float32]]:
        rows = len(inputs[self.inputs[0].name])
        there = frozenset(name for name, array in inputs.items() if isinstance(array, DeviceArray))
        if (rows, there) not in self._lanes:
            context = self._engine.create_execution_context()
            lane = Lane(self._stream, context, self.inputs, self.outputs, rows, there)
            self._lanes[rows, there] = lane
        return self._lanes[rows, there].run(inputs)

    def _ports(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        # Not by trt.nptype: that of 8.5 fails with numpy from 1.24 on.
        dtypes = {self._trt.DataType.FLOAT: "float32", self._trt.DataType.UINT8: "uint8"}
        engine, ports = self._engine, {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            dtype = engine.get_tensor_dtype(name)
            ports[name] = (dtypes.get(dtype, str(dtype)), tuple(engine.get_tensor_shape(name))[1:])
        return ports


class Lane:
    """An execution context for batches of `rows`, with its buffers and, after its first run, its graph.

    The inputs named in `there` come from the device.
    """

    def __init__(
        self,
        stream: Stream,
        context: Any,
        inputs: Sequence[Port],
        outputs: Sequence[Port],
        rows: int,
        there: frozenset[str],
    ) -> None:
        self._stream, self._context = stream, context
        self._inputs = [self._buffer(port, rows) for port in inputs]
        self._outputs = [self._buffer(port, rows) for port in outputs]
        self._there = there
        self._names = [port.name for port in inputs]
        for port in inputs:
            if not context.set_input_shape(port.name, (rows, *port.row)):
                raise ModelError(f"TensorRT does not take {rows} rows of {port.name}")
        for port, (_, address) in zip((*inputs, *outputs), (*self._inputs, *self._outputs), strict=True):
            context.set_tensor_address(port.name, address)
        self._launch: Callable[[], None] | None = None

    def run(self, inputs: Mapping[str, NDArray[Any] | DeviceArray]) -> Sequence[NDArray[np.float32]]:
        for name, (host, address) in zip(self._names, self._inputs, strict=True):
            given = inputs[name]
            if isinstance(given, DeviceArray):
                self._stream.copy(address, given.address, given.nbytes)
            else:
                host[...] = given
        if self._launch is None:
            # The first run of new shapes allocates, which cannot be captured.
            self._work()
            self._stream.synchronise()
            self._launch = self._stream.capture(self._work)
        self._launch()
        self._stream.synchronise()
        # The buffers are written again by the next call.
        return [host.copy() for host, _ in self._outputs]

    def _work(self) -> None:
        for name, (host, address) in zip(self._names, self._inputs, strict=True):
            if name not in self._there:
                self._stream.to_device(address, host)
        if not self._context.execute_async_v3(self._stream.handle):
            raise ModelError("TensorRT could not run the engine")
        for host, address in self._outputs:
            self._stream.to_host(host, address)

    def _buffer(self, port: Port, rows: int) -> tuple[NDArray[Any], int]:
        host = self._stream.pinned((rows, *port.row), port.dtype)
        return host, self._stream.device_buffer(host.nbytes)
