"""`jepa-arm train --from BUNDLE`: what of it a training begins with, and what it refuses to begin with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import cli
from perception.dataset import DatasetInfo
from perception.errors import TrainingError
from perception.jepa.config import TrainConfig
from perception.jepa.trainer import CHECKPOINT, Trainer, read_checkpoint

HALF = 2e-3  # bundles hold their weights in half precision


@pytest.fixture
def config(tiny_state: dict[str, Any], tiny_bundle: Path) -> TrainConfig:
    """Another seed than the bundle's: weights that agree with it are from it."""
    return TrainConfig(**{**tiny_state["config"], "seed": 3, "begin_from": str(tiny_bundle)})


def as_in(bundle: dict[str, Any], trainer: Trainer, out: Path) -> set[str]:
    """Which models have the bundle's weights."""
    trainer.save()
    models = read_checkpoint(out / CHECKPOINT)["models"]
    return {
        name
        for name, state in models.items()
        if all(
            value.shape == bundle[name][key].shape
            and torch.allclose(value.float(), bundle[name][key].float(), rtol=HALF, atol=HALF)
            for key, value in state.items()
        )
    }


def test_a_training_of_the_same_task_begins_with_all_of_the_bundle(
    tiny_dataset: Path, tiny_state: dict[str, Any], config: TrainConfig, tmp_path: Path
) -> None:
    trainer = Trainer.begin(tiny_dataset, tmp_path, config)
    assert as_in(tiny_state["models"], trainer, tmp_path) == set(tiny_state["models"])


def test_what_depends_on_other_actions_begins_anew_and_is_named(
    make_dataset: Callable[..., DatasetInfo],
    tiny_state: dict[str, Any],
    config: TrainConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_dataset(tmp_path / "data", axes=("x", "y", "z"), fixed={})
    trainer = Trainer.begin(tmp_path / "data", tmp_path / "run", config)
    assert as_in(tiny_state["models"], trainer, tmp_path / "run") == {"encoder", "energy", "displacement"}
    assert "from scratch: inverse, predictor, proposal" in capsys.readouterr().out


def test_a_run_that_is_gone_on_with_goes_on_from_its_own_weights(
    tiny_dataset: Path, tiny_state: dict[str, Any], config: TrainConfig, tmp_path: Path
) -> None:
    begun = Trainer.begin(tiny_dataset, tmp_path, config)
    begun.train_world_model()
    resumed = Trainer.begin(tiny_dataset, tmp_path, config)
    assert resumed.world_model_step == config.steps
    assert "encoder" not in as_in(tiny_state["models"], resumed, tmp_path)


def test_an_encoder_that_does_not_fit_is_refused(
    tiny_dataset: Path, config: TrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"encoder of .*panda-push is another one .*latent_dim"):
        Trainer.begin(tiny_dataset, tmp_path, config.model_copy(update={"latent_dim": 8}))


def test_weights_that_are_missing_or_damaged_are_named_in_one_line(
    tiny_dataset: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, recipe = tmp_path / "bundle", tmp_path / "recipe.yaml"
    shutil.copytree(tiny_bundle, bundle)
    recipe.write_text(yaml.safe_dump({"latent_dim": 16, "max_steps": 20}))
    weights = bundle / "weights.safetensors"
    command = ["train", "--data", tiny_dataset, "--out", tmp_path / "run", "--config", recipe]
    half = weights.read_bytes()[:1000]
    for content, says in ((half, "is damaged"), (None, "does not exist: --from takes")):
        weights.unlink() if content is None else weights.write_bytes(content)
        assert cli.main([str(word) for word in (*command, "--from", bundle)]) == 2
        error = capsys.readouterr().err
        assert f"weights.safetensors {says}" in error and len(error.splitlines()) == 1
