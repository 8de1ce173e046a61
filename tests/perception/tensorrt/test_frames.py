"""Frames that are on the GPU already are found there, waited for, and encoded without being uploaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perception.preprocessing import prepare
from perception.runtimes.cuda import Stream
from perception.runtimes.device_array import DeviceArray, find_array
from perception.runtimes.onnx import OnnxSession
from perception.runtimes.tensorrt import TensorRt

HEIGHT, WIDTH = 96, 128
STREAM = 7  # the emulated one


class ByInterface:
    """What CuPy, Numba and jetson-utils offer. The emulated GPU's memory is the computer's."""

    def __init__(self, array: np.ndarray, **told: Any) -> None:
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "strides": None if array.flags.c_contiguous else array.strides,
            "version": 3,
            **told,
        }


class ByDlpack:
    """What torch offers, said to be on a device."""

    def __init__(self, array: np.ndarray, kind: int = 2, index: int = 0) -> None:
        self.array, self.device, self.streams = array, (kind, index), list[int]()

    def __dlpack__(self, *, stream: int) -> Any:
        self.streams.append(stream)
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


OFFERS = {"interface": ByInterface, "dlpack": ByDlpack}


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_an_array_is_found_where_it_is(gpu: Any, offer: Any) -> None:
    array = noise()
    found = find_array(offer(array[:40]), Stream())
    assert isinstance(found, DeviceArray)
    assert (found.shape, found.dtype, found.address) == ((40, WIDTH, 3), "uint8", array.ctypes.data)
    assert found.nbytes == 40 * WIDTH * 3
    inside = find_array(offer(np.zeros((5, 4), np.float32)[1:]), Stream())
    assert isinstance(inside, DeviceArray) and inside.dtype == "float32"


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_an_array_with_gaps_is_refused(gpu: Any, offer: Any) -> None:
    with pytest.raises(ValueError, match="not C-contiguous: copy it first"):
        find_array(offer(noise()[:, 3:90]), Stream())


def test_arrays_in_the_computer_s_memory_stay_there_and_other_devices_are_refused(gpu: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'jepa-arm[train]'")
    array = noise()
    for source in (array, torch.from_numpy(array)):
        found = find_array(source, Stream())
        assert isinstance(found, np.ndarray) and found.ctypes.data == array.ctypes.data
    with pytest.raises(ValueError, match="on device 2:1 of DLPack, not on the first GPU"):
        find_array(ByDlpack(array, index=1), Stream())
    with pytest.raises(ValueError, match="a list has neither __dlpack__ nor __cuda_array_interface__"):
        find_array([1, 2], Stream())  # type: ignore[arg-type]


def test_what_is_still_being_written_is_waited_for(gpu: Any) -> None:
    by_dlpack = ByDlpack(noise())
    find_array(by_dlpack, Stream())
    assert by_dlpack.streams == [STREAM] and gpu.waits == []
    find_array(ByInterface(noise(), stream=21), Stream())
    assert gpu.waits == [21]
    find_array(ByInterface(noise(), stream=None), Stream())
    assert gpu.waits == [21], "it says that there is nothing to wait for"
    find_array(ByInterface(noise(), version=2), Stream())
    assert gpu.waits == [21, None], "it does not say on which stream: all are waited for"


@pytest.mark.parametrize("version", ["10.3.0", "8.5.2.2"])
def test_a_frame_on_the_gpu_has_the_latent_of_the_prepared_picture(
    gpu: Any, install_tensorrt: Any, tiny_bundle: Path, version: str
) -> None:
    install_tensorrt(version)
    path = tiny_bundle / "encoder.onnx"
    session = TensorRt().open_for_frames(path, None, "fp32", HEIGHT, WIDTH)
    reference = OnnxSession(path)
    size = reference.inputs[0].row[0]
    for seed in range(3):
        (expected,) = reference.run({"image": prepare(noise(seed), size)[None]})
        for given in (ByDlpack(noise(seed)), ByInterface(noise(seed)), noise(seed)):
            np.testing.assert_allclose(session.encode(given), expected[0], atol=2e-5)


def test_a_frame_on_the_gpu_is_never_uploaded_and_its_graph_captured_once(
    gpu: Any, tiny_bundle: Path
) -> None:
    session = TensorRt().open_for_frames(tiny_bundle / "encoder.onnx", None, "fp32", HEIGHT, WIDTH)
    first = session.encode(ByDlpack(noise(1)))
    kept = first.copy()
    assert not np.array_equal(session.encode(ByInterface(noise(2))), first)
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(session.encode(ByDlpack(noise(1))), first)
    assert gpu.uploads == [] and (gpu.captures, gpu.launches) == (1, 3)
    session.encode(noise(1))
    assert set(gpu.uploads) == {HEIGHT * WIDTH * 3}


def test_other_frames_are_refused(gpu: Any, tiny_bundle: Path) -> None:
    path = tiny_bundle / "encoder.onnx"
    session = TensorRt().open_for_frames(path, None, "fp32", HEIGHT, WIDTH)
    for wrong in (noise()[:90], noise().astype(np.float32), noise()[..., :1].copy()):
        for given in (wrong, ByDlpack(wrong), ByInterface(wrong)):
            with pytest.raises(ValueError, match=r"expected frame uint8 \(N, 96, 128, 3\)"):
                session.encode(given)
    with pytest.raises(ValueError, match="the encoder needs at least"):
        TensorRt().open_for_frames(path, None, "fp32", 8, 8)


def test_in_half_precision_preprocessing_stays_exact(
    gpu: Any, install_tensorrt: Any, tiny_bundle: Path
) -> None:
    import onnx

    path = tiny_bundle / "encoder.onnx"
    TensorRt().open_for_frames(path, None, "fp16", HEIGHT, WIDTH)
    graph = onnx.load_from_string(gpu.builds[-1]).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    weights = [types[name] for name in types if name.startswith("preprocessing/")]
    assert weights and onnx.TensorProto.FLOAT16 not in weights and onnx.TensorProto.FLOAT16 in types.values()
    install_tensorrt("8.5.2.2")
    TensorRt().open_for_frames(path, None, "fp16", HEIGHT, WIDTH)
    layers = [layer for layer in gpu.layers if layer.name.startswith("preprocessing/")]
    assert layers and {layer.precision for layer in layers} == {"float32"}
