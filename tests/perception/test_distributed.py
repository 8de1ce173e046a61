"""Two real processes under torchrun against one, on the same global batches."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from perception.errors import TrainingError
from perception.jepa import distributed
from perception.jepa.config import TrainConfig
from perception.jepa.trainer import CHECKPOINT, Trainer, read_checkpoint

ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, Any] = {
    "latent_dim": 16,
    "max_steps": 20,
    "batch": 8,
    "together": 2,
    "steps": 10,
    "head_batch": 16,
    "head_steps": 10,
    "monitor_every": 5,
    "checkpoint_every": 1,
}
ALONE = (sys.executable, "tests/perception/train_command.py")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
TOGETHER = (*TORCHRUN, ALONE[1])

pytestmark = pytest.mark.timeout(600)  # torch is imported eleven times
Train = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def train(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Runs a command that trains into a folder to the end, or until it is cut."""
    config = tmp_path_factory.mktemp("settings") / "tiny.yaml"
    config.write_text(yaml.safe_dump(SETTINGS))

    def run(command: tuple[str, ...], out: Path, cut_before: int = 0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                "timeout",
                "300",
                *command,
                "train",
                "--data",
                str(tiny_dataset),
                "--out",
                str(out),
                "--config",
                str(config),
            ],
            cwd=ROOT,
            env={**os.environ, "CUT_BEFORE": str(cut_before), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture(scope="module")
def alone(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run by one process. Read it only."""
    out = tmp_path_factory.mktemp("alone")
    assert train(ALONE, out).returncode == 0
    return out


def assert_same_training(out: Path, other: Path) -> None:
    """Weights, running statistics and monitors agree to what double precision rounds."""
    found, expected = (read_checkpoint(folder / CHECKPOINT) for folder in (out, other))
    assert found["progress"][:2] == expected["progress"][:2] == (SETTINGS["steps"], SETTINGS["head_steps"])
    torch.testing.assert_close(found["models"], expected["models"], rtol=1e-7, atol=1e-9)
    assert found["health"] == pytest.approx(expected["health"], rel=1e-6)


def curves(out: Path) -> dict[str, float]:
    """The last value of every curve of both phases."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    boards = [EventAccumulator(str(folder)).Reload() for folder in sorted((out / "tensorboard").iterdir())]
    assert [len(list(Path(board.path).iterdir())) for board in boards] == [1, 1], "one process writes"
    return {name: board.Scalars(name)[-1].value for board in boards for name in board.Tags()["scalars"]}


def test_two_processes_learn_what_one_does(train: Train, alone: Path, tmp_path: Path) -> None:
    done = train(TOGETHER, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("export it with") == 1, "one process speaks"
    assert_same_training(tmp_path, alone)
    expected = curves(alone)
    assert {"world model/sigreg", "world model/prediction", "heads/energy"} <= expected.keys()
    assert curves(tmp_path) == pytest.approx(expected, rel=1e-6)


def test_a_run_of_two_processes_that_was_cut_is_gone_on_with_by_one(
    train: Train, alone: Path, tmp_path: Path
) -> None:
    assert train(TOGETHER, tmp_path, cut_before=4).returncode != 0
    assert read_checkpoint(tmp_path / CHECKPOINT)["progress"][:2] == (3, 0)
    resumed = train(ALONE, tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "at step 3 + 0" in resumed.stdout.replace("\n", " ")
    assert_same_training(tmp_path, alone)


def test_the_command_itself_runs_under_torchrun(train: Train, alone: Path, tmp_path: Path) -> None:
    done = train((*TORCHRUN, "-m", "cli"), tmp_path)
    assert done.returncode == 0, done.stderr
    found, expected = (read_checkpoint(folder / CHECKPOINT) for folder in (tmp_path, alone))
    # In bfloat16 the figures of so short a run are too rough to compare.
    assert found["progress"][:2] == expected["progress"][:2]
    assert all(math.isfinite(value) for value in found["health"].values())
    assert found["health"].keys() == expected["health"].keys()


@pytest.mark.parametrize(
    ("processes", "fits"), [(1, True), (2, True), (3, False), (4, True), (8, False), (12, False)]
)
def test_batches_that_processes_cannot_share_evenly_are_refused(
    monkeypatch: pytest.MonkeyPatch, processes: int, fits: bool
) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: processes)
    if fits:
        return distributed.check_shares(batch=96, together=8, head_batch=1024)
    with pytest.raises(TrainingError, match=rf"{processes} processes cannot .*: start 1, 2, 4, or change"):
        distributed.check_shares(batch=96, together=8, head_batch=1024)


def test_a_process_alone_trains_with_plain_batch_norm_on_the_whole_batch(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    trainer = Trainer.begin(tiny_dataset, tmp_path, TrainConfig(**SETTINGS))
    norms: list[Any] = [m for m in trainer.encoder.modules() if "BatchNorm" in type(m).__name__]
    assert {type(norm) for norm in norms} == {nn.BatchNorm1d, nn.BatchNorm2d}
    assert list(range(96))[distributed.share_of(96)] == list(range(96))
