"""A frame encoder gives the latent of the picture that `prepare` makes, wherever the frame is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from perception.errors import ModelError
from perception.preprocessing import prepare
from perception.runtimes.frames import taking_frames
from perception.runtimes.modules import OfFrames
from perception.runtimes.pytorch import PyTorch
from planner.bundle import load_bundle

SHIPPED = sorted((Path(__file__).parents[2] / "models").glob("*/encoder.onnx"))


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(st.integers(0, 2**32 - 1), st.integers(16, 130), st.integers(16, 130), st.integers(1, 16))
@settings(deadline=None, max_examples=200)
def test_tensors_are_prepared_as_pictures_are(seed: int, height: int, width: int, size: int) -> None:
    frame = noise(height, width, seed)
    found = OfFrames(nn.Identity(), height, width, size).prepare(torch.from_numpy(frame)[None])[0]
    gap = np.abs(prepare(frame, size).astype(int) - found.numpy())
    assert found.dtype == torch.uint8 and gap.max() <= 1
    if min(height, width) % size == 0:
        assert not gap.any()


@pytest.mark.parametrize(("height", "width"), [(480, 640), (128, 128), (64, 64), (97, 131), (256, 192)])
def test_preprocessing_in_the_graph_is_that_before_it(height: int, width: int) -> None:
    path = SHIPPED[0]
    size = onnxruntime.InferenceSession(path).get_inputs()[0].shape[1]
    if min(height, width) < size:
        with pytest.raises(ValueError, match="the encoder needs at least"):
            taking_frames(path.read_bytes(), height, width)
        return
    session = onnxruntime.InferenceSession(taking_frames(path.read_bytes(), height, width))
    frames = np.stack([noise(height, width, seed) for seed in range(3)])
    images = np.stack([prepare(frame, size) for frame in frames])
    (expected,) = onnxruntime.InferenceSession(path).run(None, {"image": images})
    (found,) = session.run(None, {"frame": frames})
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_torch_takes_frames_from_any_library_that_shares_memory(tiny_bundle: Path) -> None:
    (variant,) = PyTorch().variants()
    bundle = load_bundle(tiny_bundle).on(variant)
    encoder, camera, size = bundle.frame_encoder(), bundle.camera, bundle.info.image_size
    frame = noise(camera.height, camera.width)
    expected = bundle.encoder().encode(prepare(frame, size)[None])[0]
    tensor = torch.from_numpy(frame)
    planes_first = tensor.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    for given_frame in (frame, tensor, planes_first):
        np.testing.assert_allclose(encoder.encode(given_frame), expected, atol=2e-5)
    for wrong in (tensor[:-1], tensor.float(), tensor[..., 0], frame[:, :-1]):
        with pytest.raises(ValueError, match="expected frame uint8"):
            encoder.encode(wrong)


def test_runtimes_of_the_processor_say_which_take_such_frames(tiny_bundle: Path) -> None:
    with pytest.raises(ModelError, match="onnxruntime takes no frames on the GPU: choose torch or tensorrt"):
        load_bundle(tiny_bundle).frame_encoder()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this torch has CUDA")
def test_a_frame_on_a_gpu_that_torch_cannot_reach_is_refused(tiny_bundle: Path) -> None:
    class OnGpu:
        __cuda_array_interface__ = {"shape": (4, 4, 3), "typestr": "|u1", "data": (0, False), "version": 3}

    encoder = load_bundle(tiny_bundle).on(PyTorch().variants()[0]).frame_encoder()
    with pytest.raises(ValueError, match="the frame is on a GPU, and this torch has no CUDA"):
        encoder.encode(OnGpu())
