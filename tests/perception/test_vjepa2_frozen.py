"""`jepa-arm train --encoder vjepa2-…`: features computed once, a small model on top, an ordinary bundle."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import cli
from perception.dataset import load_dataset
from perception.encoder import check_encoder
from perception.errors import DatasetError, TrainingError
from perception.jepa.config import TrainConfig
from perception.jepa.trainer import Trainer, read_checkpoint
from perception.vjepa2 import frozen
from perception.vjepa2.config import TINY, EncoderConfig
from perception.vjepa2.encoder import VideoEncoder
from perception.vjepa2.frozen import FrozenFeatures, Readout, kept_features, load_frozen
from perception.vjepa2.layers import normalised
from perception.vjepa2.parity import randomised
from planner.bundle import Bundle, load_bundle
from planner.mpc import RecedingHorizon, make_planner

SETTINGS = {
    "latent_dim": 16,
    "max_steps": 20,
    "batch": 4,
    "together": 2,
    "steps": 3,
    "head_batch": 16,
    "head_steps": 3,
}


@pytest.fixture(scope="module")
def data(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(tiny_dataset, tmp_path_factory.mktemp("frozen") / "panda-push")


@pytest.fixture(scope="module")
def run(data: Path, vjepa2_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "config.yaml").write_text(yaml.safe_dump(SETTINGS))
    command = ["train", "--data", str(data), "--out", str(folder / "run")]
    command += ["--config", str(folder / "config.yaml")]
    assert cli.main([*command, "--encoder", "vjepa2-tiny", "--encoder-weights", str(vjepa2_file)]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("models") / "frozen"
    assert cli.main(["export", "--run", str(run), "--out", str(out)]) == 0
    return load_bundle(out)


def settings(weights: Path | None, encoder: str = "vjepa2-tiny") -> TrainConfig:
    values: dict[str, Any] = {**SETTINGS, "encoder": encoder, "encoder_weights": weights and str(weights)}
    return TrainConfig(**values)


def test_the_bundle_sees_what_was_trained_on(bundle: Bundle, run: Path, data: Path, vjepa2_file: Path):
    info, episodes = load_dataset(data)
    features = kept_features(data, info, load_frozen("vjepa2-tiny", str(vjepa2_file)))
    assert features.shape == (8, 41, 16 * 64) and features.dtype == np.float16
    readout = Readout(features.shape[-1], 16).eval()
    readout.load_state_dict(read_checkpoint(run / "checkpoint.pt")["models"]["encoder"])
    with torch.no_grad():
        trained = readout(torch.from_numpy(features[3, ::8]))
    found = bundle.encoder().encode(episodes.frames[3, ::8])
    np.testing.assert_allclose(found, trained.numpy(), atol=0.02)
    assert np.abs(found - found[0]).max() > 0.1, "different pictures, different latents"
    check_encoder(bundle.encoder())


def test_it_plans_like_any_other_bundle(bundle: Bundle, data: Path):
    _, episodes = load_dataset(data)
    latents = bundle.encoder().encode(episodes.frames[0, :4])
    loop = RecedingHorizon(bundle, make_planner("mode2", bundle))
    loop.begin(latents[-1])
    for i, latent in enumerate(latents[:3]):
        loop.observe(latent, episodes.tool[0, i], 10**9 + i * 10**8)
    decision = loop.decide()
    assert decision is not None and np.isfinite(decision.action).all() and np.isfinite(decision.steps_to_go)


def test_the_card_says_how_to_make_it_again(bundle: Bundle, vjepa2_file: Path):
    card = (bundle.path / "README.md").read_text()
    assert "encoder: vjepa2-tiny" in card and f"encoder_weights: {vjepa2_file}" in card


def test_features_are_computed_once_and_only_where_they_are_missing(
    run: Path, data: Path, vjepa2_file: Path, monkeypatch: pytest.MonkeyPatch
):
    info, _ = load_dataset(data)
    encoder = load_frozen("vjepa2-tiny", str(vjepa2_file))
    before = kept_features(data, info, encoder)
    computed = []
    compute = frozen._features
    monkeypatch.setattr(frozen, "_features", lambda *given: computed.append(1) or compute(*given))
    np.testing.assert_array_equal(kept_features(data, info, encoder), before)
    assert computed == []
    (lost,) = (data / "features").rglob("shard-00001.npy")
    lost.unlink()
    np.testing.assert_array_equal(kept_features(data, info, encoder), before)
    assert computed == [1]


def test_features_that_are_damaged_are_refused(data: Path, vjepa2_file: Path, tmp_path: Path):
    copy = shutil.copytree(data, tmp_path / "data")
    info, _ = load_dataset(copy)
    encoder = load_frozen("vjepa2-tiny", str(vjepa2_file))
    kept_features(copy, info, encoder)
    (file,) = (copy / "features").rglob("shard-00000.npy")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="is damaged .*delete it, it is then computed again"):
        kept_features(copy, info, encoder)
    np.save(file, np.zeros((2, 41, 1024), np.float16))
    with pytest.raises(DatasetError, match="not of this dataset"):
        kept_features(copy, info, encoder)


def test_a_run_goes_on_with_the_same_weights_only(run: Path, data: Path, vjepa2_file: Path, tmp_path: Path):
    copy = shutil.copytree(run, tmp_path / "run")
    assert Trainer.begin(data, copy, settings(vjepa2_file)).head_step == 3
    content = torch.load(vjepa2_file, weights_only=True)
    content["encoder"]["module.backbone.norm.bias"] += 0.1
    other = tmp_path / "other.pt"
    torch.save(content, other)
    state = read_checkpoint(copy / "checkpoint.pt")
    state["config"]["encoder_weights"] = str(other)
    torch.save(state, copy / "checkpoint.pt")
    with pytest.raises(TrainingError, match=r"belongs to a run with another frozen encoder \(sha256\)"):
        Trainer.begin(data, copy, settings(other))
    with pytest.raises(TrainingError, match="is not the file that the run was trained with"):
        load_frozen("vjepa2-tiny", str(other), state["frozen"]["sha256"])


def test_an_encoder_that_cannot_be_used_is_refused(
    data: Path, vjepa2_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("dinov3", "vjepa2-vitg-ac", "tiny"):
        with pytest.raises(TrainingError, match=f"no encoder '{name}'; there are vjepa2-vitl, vjepa2-vith"):
            Trainer.begin(data, tmp_path, settings(vjepa2_file, name))
    with pytest.raises(TrainingError, match="needs its official file: name it with --encoder-weights"):
        Trainer.begin(data, tmp_path, settings(None))
    monkeypatch.setattr(frozen, "LARGEST_BYTES", 700_000)
    with pytest.raises(TrainingError, match="0.0 GB of weights, an ONNX file 2: take a smaller encoder"):
        Trainer.begin(data, tmp_path, settings(vjepa2_file))


def test_pictures_of_any_size_are_seen_as_the_encoder_was_trained(vjepa2_file: Path):
    features = load_frozen("vjepa2-tiny", str(vjepa2_file)).features
    small = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    large = torch.nn.functional.interpolate(
        small.permute(0, 3, 1, 2).float(), (64, 64), mode="bilinear", align_corners=False
    )
    with torch.no_grad():
        found, expected = features(small), features(large.permute(0, 2, 3, 1))
    assert torch.allclose(found, expected, atol=1e-5)


def test_features_are_means_over_the_cells_of_a_picture():
    torch.manual_seed(0)
    encoder = randomised(VideoEncoder(EncoderConfig(TINY, 128)))
    picture = torch.randint(0, 256, (1, 128, 128, 3), dtype=torch.uint8)
    with torch.no_grad():
        tokens = normalised(encoder.encode_frames(picture)).reshape(8, 8, 64)
        found = FrozenFeatures(encoder)(picture).reshape(4, 4, 64)
    for row, column in np.ndindex(4, 4):
        cell = tokens[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        assert torch.allclose(found[row, column], cell.mean((0, 1)), atol=1e-6)
