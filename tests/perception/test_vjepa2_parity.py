"""V-JEPA 2 at tiny width against others who compute the same; `perception.vjepa2.parity` does real width."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from perception.vjepa2 import reference
from perception.vjepa2.ac_predictor import ActionPredictor
from perception.vjepa2.checkpoint import empty_encoder
from perception.vjepa2.config import GIANT, LARGE, MODELS, EncoderConfig
from perception.vjepa2.encoder import VideoEncoder
from perception.vjepa2.export import export_predictor
from perception.vjepa2.layers import normalised
from perception.vjepa2.parity import agreements, randomised, weights_of
from perception.vjepa2.pose import difference

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def predictor() -> ActionPredictor:
    torch.manual_seed(1)
    config = MODELS["tiny-ac"]
    assert config.predictor is not None
    return randomised(ActionPredictor(config.predictor, config.encoder))


def history(steps: int, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    features = torch.randn(batch, steps, 16, 64)
    return features, torch.randn(batch, steps, 7), torch.randn(batch, steps, 7)


def test_models_and_graphs_agree_with_transformers_the_equations_and_torch():
    rows = list(agreements("tiny", seed=0))
    assert len(rows) == 6
    for row in rows:
        assert row.gap <= TOLERANCE, row.what
        assert row.size > 0.5, f"{row.what}: outputs near zero agree easily"


@pytest.mark.parametrize("name, frames", [("tiny", 1), ("tiny", 4), ("tiny-2.1", 1), ("tiny-2.1", 4)])
def test_encoders_follow_the_equations_for_pictures_and_clips(name: str, frames: int):
    torch.manual_seed(frames)
    config = MODELS[name].encoder
    encoder = randomised(VideoEncoder(config))
    clip = torch.randn(1, 3, frames, 64, 64)
    theirs = reference.encode(
        weights_of(encoder),
        clip[0].permute(1, 2, 3, 0).double().numpy(),
        config.layers.depth,
        config.layers.heads,
        config.release,
    )
    with torch.no_grad():
        np.testing.assert_allclose(encoder(clip)[0].numpy(), theirs, atol=TOLERANCE)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_predictor_follows_the_equations(predictor: ActionPredictor, steps: int):
    torch.manual_seed(steps)
    inputs = history(steps)
    theirs = reference.predict(weights_of(predictor), *(value[0].double().numpy() for value in inputs), 2, 3)
    with torch.no_grad():
        np.testing.assert_allclose(predictor(*inputs)[0].numpy(), theirs, atol=TOLERANCE)


@pytest.mark.parametrize("changed", [0, 1, 2], ids=["features", "action", "state"])
def test_what_comes_later_does_not_change_a_prediction_and_what_is_there_does(
    predictor: ActionPredictor, changed: int
):
    torch.manual_seed(0)
    inputs = history(3)
    others = [value.clone() for value in inputs]
    others[changed][:, 1] += 1.0
    with torch.no_grad():
        before, after = predictor(*inputs), predictor(*others)
    assert torch.equal(before[:, 0], after[:, 0])
    for later in (1, 2):
        assert (before[:, later] - after[:, later]).abs().max() > 1e-3


def test_the_first_release_sees_a_picture_as_two_equal_frames():
    encoder = randomised(VideoEncoder(MODELS["tiny"].encoder))
    picture = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        single = encoder.encode_frames(picture)
        pixels = (picture / 255 - torch.tensor((0.485, 0.456, 0.406))) / torch.tensor((0.229, 0.224, 0.225))
        twice = encoder(pixels.permute(0, 3, 1, 2)[:, :, None].repeat(1, 1, 2, 1, 1))
    assert torch.allclose(single, twice, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 3, 3, 64, 64), (1, 3, 66, 64, 64), (1, 3, 2, 64, 80)])
def test_a_clip_that_does_not_fit_is_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="clip has 1 frame|expected frames of 64 px"):
        VideoEncoder(MODELS["tiny"].encoder)(torch.zeros(shape))


@pytest.mark.parametrize(
    "name, millions",
    [("vitl", 300), ("vith", 600), ("vitg", 1000), ("vitb-2.1", 80), ("vitl-2.1", 300), ("vitG-2.1", 1900)],
)
def test_the_published_encoders_have_their_published_size(name: str, millions: int):
    weights = empty_encoder(MODELS[name].encoder).state_dict().values()
    assert sum(value.numel() for value in weights) / 1e6 == pytest.approx(millions, rel=0.1)


def test_the_published_predictor_has_its_published_size():
    config = MODELS["vitg-ac"]
    assert config.predictor == LARGE and config.encoder.tokens_per_frame == 256
    with torch.device("meta"):
        predictor = ActionPredictor(LARGE, EncoderConfig(GIANT, 256))
    assert sum(value.numel() for value in predictor.state_dict().values()) / 1e6 == pytest.approx(
        305, rel=0.02
    )


def test_the_exported_graph_has_only_what_every_runtime_knows(predictor: ActionPredictor, tmp_path):
    exported = export_predictor(predictor, 3, tmp_path / "predictor.onnx")
    graph = onnx.load(exported.graph)
    assert [opset.version for opset in graph.opset_import if opset.domain == ""] == [20]
    assert {opset.domain for opset in graph.opset_import} == {""}
    assert not graph.functions and "Attention" not in {node.op_type for node in graph.graph.node}
    types = {onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in graph.graph.initializer}
    assert "DOUBLE" not in types, "TensorRT has no float64"
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in graph.graph.input
    }
    assert shapes["latents"] == ["batch", 3, 1024] and shapes["actions"] == ["batch", 3, 7]


@torch.no_grad()
def test_real_frames_of_a_franka_go_through_encoder_and_predictor(
    franka: tuple[np.ndarray, np.ndarray], predictor: ActionPredictor
):
    frames, poses = franka
    encoder = randomised(VideoEncoder(MODELS["tiny-ac"].encoder))
    small = torch.from_numpy(frames.reshape(2, 64, 4, 64, 4, 3).mean((2, 4)).astype(np.uint8))
    features = normalised(encoder.encode_frames(small))
    assert (features[0] - features[1]).abs().mean() > 0.01, "the arm moves between the two"
    action = torch.from_numpy(difference(poses[0], poses[1])).float()
    state = torch.from_numpy(poses[0]).float()
    imagined = normalised(predictor(features[None, :1], action[None, None], state[None, None]))
    assert imagined.shape == (1, 1, 16, 64) and torch.isfinite(imagined).all()
    stayed = normalised(predictor(features[None, :1], 0 * action[None, None], state[None, None]))
    assert (imagined - stayed).abs().max() > 1e-3, "the action counts"
