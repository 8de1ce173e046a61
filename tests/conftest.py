"""One tiny dataset, training run and bundle for the whole session: real files made by the real code."""

from __future__ import annotations

import os

# Before numpy and torch are imported: their threads wait for one another where tests share two cores.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardware.robot import load_robot
from perception.dataset import DatasetInfo, Episodes, shard_path, write_description, write_shard

EPISODES, STEPS, IMAGE_SIZE, LIMIT_M = 8, 40, 64, 0.02
# Heads are saved at every fourth step, so a cut after the fifth goes back one.
TINY_SETTINGS: dict[str, Any] = {
    "latent_dim": 16,
    "max_steps": 20,
    "batch": 4,
    "together": 2,
    "steps": 4,
    "head_batch": 16,
    "head_steps": 6,
    "heads_told_tool": True,
    "monitor_every": 2,
    "checkpoint_every": 1,
}


def describe(**changes: Any) -> DatasetInfo:
    """What a push dataset for the panda says of itself, of 8 episodes of 40 actions."""
    return DatasetInfo(
        **{
            "task": "push",
            "robot": "panda",
            "image_size": IMAGE_SIZE,
            "axes": ("x", "y"),
            "fixed": {"z": 0.025},
            "action_limit_m": LIMIT_M,
            "period_s": 0.1,
            "camera": load_robot("panda").camera.model_dump(mode="json"),
            "seed": 0,
            "steps": STEPS,
            "episodes": EPISODES,
            "episodes_per_shard": 5,
            "session": 2,
            **changes,
        }
    )


def draw_episodes(info: DatasetInfo, count: int, seed: int = 0) -> Episodes:
    """A white tool that follows its actions over a grey table with a red cube, both 6 pixels wide."""
    rng = np.random.default_rng(seed)
    shape, dim = (count, info.steps), len(info.axes)
    actions = rng.uniform(-LIMIT_M, LIMIT_M, (*shape, dim)).astype(np.float32)
    tool = np.zeros((count, info.steps + 1, info.tool_dim), np.float32)
    tool[:, 1:, :dim] = actions.cumsum(1)
    tool += np.array([0.47, 0.0, 0.025, 0.02], np.float32)[: info.tool_dim]
    lowest, highest = [0.4, -0.1, 0.03, 0.0], [0.55, 0.1, 0.03, 0.0]
    cube = np.broadcast_to(rng.uniform(lowest, highest, (count, 1, 4)), (*tool.shape[:2], 4))
    frames = np.full((*tool.shape[:2], info.image_size, info.image_size, 3), 90, np.uint8)
    for place, colour in ((cube, (200, 30, 30)), (tool, (255, 255, 255))):
        pixel = np.clip((place[..., :2] - [0.27, -0.2]) / 0.4 * info.image_size, 0, info.image_size - 6)
        for index in np.ndindex(*tool.shape[:2]):
            x, y = pixel[index].astype(int)
            frames[index][x : x + 6, y : y + 6] = colour
    return Episodes(frames, actions, tool, cube.astype(np.float32))


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., DatasetInfo]:
    """Writes a dataset of drawn episodes into a folder; keywords change its description."""

    def make(folder: Path, drawn: Episodes | None = None, **changes: Any) -> DatasetInfo:
        info = describe(**changes)
        episodes = drawn or draw_episodes(info, info.episodes)
        write_description(folder, info)
        for index in range(info.shards):
            part = slice(index * info.episodes_per_shard, (index + 1) * info.episodes_per_shard)
            arrays = (episodes.frames, episodes.actions, episodes.tool, episodes.object)
            write_shard(folder, index, Episodes(*(array[part] for array in arrays)))
        return info

    return make


@pytest.fixture(scope="session")
def tiny_dataset(make_dataset: Callable[..., DatasetInfo], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder. Read it only: the whole session shares it."""
    folder = tmp_path_factory.mktemp("data") / "panda-push"
    make_dataset(folder)
    assert shard_path(folder, 1).exists()
    return folder


@pytest.fixture(scope="session")
def tiny_run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of 4 + 6 steps. Read it only."""
    from perception.jepa.config import TrainConfig
    from perception.jepa.trainer import Trainer

    folder = tmp_path_factory.mktemp("runs") / "panda-push"
    trainer = Trainer.begin(tiny_dataset, folder, TrainConfig(**TINY_SETTINGS))
    trainer.train_world_model()
    trainer.train_heads()
    return folder


@pytest.fixture(scope="session")
def tiny_state(tiny_run: Path) -> dict[str, Any]:
    """The checkpoint of the tiny run."""
    from perception.jepa.trainer import CHECKPOINT, read_checkpoint

    return read_checkpoint(tiny_run / CHECKPOINT)


@pytest.fixture(scope="session")
def tiny_bundle(tiny_state: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle folder, `panda-push`, of the tiny run: real in all but its skill. Read it only."""
    from planner.bundle_writer import export_bundle

    folder = tmp_path_factory.mktemp("models") / "panda-push"
    export_bundle(tiny_state, folder)
    return folder


@pytest.fixture(scope="session")
def vjepa2_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like the official one of V-JEPA 2-AC, of a tiny model with random weights. Read it only."""
    import torch

    from perception.vjepa2.ac_predictor import ActionPredictor
    from perception.vjepa2.config import MODELS
    from perception.vjepa2.encoder import VideoEncoder
    from perception.vjepa2.parity import randomised

    torch.manual_seed(0)
    config = MODELS["tiny-ac"]
    assert config.predictor is not None
    encoder = randomised(VideoEncoder(config.encoder)).state_dict()
    predictor = randomised(ActionPredictor(config.predictor, config.encoder)).state_dict()
    path = tmp_path_factory.mktemp("official") / "tiny-ac.pt"
    content = {
        "encoder": {f"module.backbone.{name}": value for name, value in encoder.items()},
        "predictor": {f"module.{name}": value for name, value in predictor.items()},
        "opt": {"param_groups": [{"lr": 4.25e-4}]},
        "epoch": 315,
        "scaler": None,
    }
    torch.save(content, path)
    return path


@pytest.fixture(scope="session")
def vjepa2_bundle(vjepa2_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `vjepa2_file`, with a search of 64 candidates, 4 times, 2 steps ahead. Read it only."""
    import yaml

    import cli

    folder = tmp_path_factory.mktemp("models") / "vjepa2-tiny"
    command = ["convert-vjepa2", str(vjepa2_file), "--out", str(folder), "--model", "tiny-ac"]
    assert cli.main([*command, "--horizon", "2"]) == 0
    description = yaml.safe_load((folder / "bundle.yaml").read_text())
    description["search"] |= {"samples": 64, "iterations": 4}
    (folder / "bundle.yaml").write_text(yaml.safe_dump(description))
    return folder


@pytest.fixture(scope="session")
def franka() -> tuple[np.ndarray, np.ndarray]:
    """Two real frames of a Franka arm, uint8 (2, 256, 256, 3), and its poses (2, 7), from V-JEPA 2's authors.

    They are in a folder beside the repository, and not part of it.
    """
    name = Path("shared") / "data" / "franka_example_traj.npz"
    found = [parent / name for parent in Path(__file__).resolve().parents if (parent / name).is_file()]
    if not found:
        pytest.skip(f"{name} is in no folder above: get it from facebookresearch/vjepa2, notebooks/")
    with np.load(found[0]) as file:
        return file["observations"][0], file["states"][0].astype(np.float64)
