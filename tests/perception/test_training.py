from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
import yaml

import cli
from perception.dataset import DatasetInfo, Episodes, load_dataset
from perception.errors import TrainingError
from perception.jepa.config import TrainConfig, load_config
from perception.jepa.trainer import CHECKPOINT, Trainer, read_checkpoint

WORLD_MODEL_STEPS, HEAD_STEPS = 4, 6


@pytest.fixture
def config(tiny_state: dict[str, Any]) -> TrainConfig:
    """The settings of the tiny run: 4 + 6 steps, checkpoints after each of the 4 and the fourth of the 6."""
    return TrainConfig(**tiny_state["config"])


def train(data: Path, out: Path, config: TrainConfig) -> Trainer:
    trainer = Trainer.begin(data, out, config)
    trainer.train_world_model()
    trainer.train_heads()
    return trainer


class Cut(BaseException):
    """As Ctrl-C, at a known step."""


@pytest.fixture
def cut_before(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Ends training just before its n-th step of descent, counted through both phases."""

    def cut(step: int) -> None:
        descend, done = Trainer._descend, iter(range(1, 1000))

        def counted(*args: Any) -> None:
            if next(done) == step:
                raise Cut
            descend(*args)

        monkeypatch.setattr(Trainer, "_descend", counted)

    return cut


def differing(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two checkpoints differ, down to the bytes of their tensors."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        return [found for key in one for found in differing(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, list | tuple):
        assert len(one) == len(other), where
        return [found for i, pair in enumerate(zip(one, other)) for found in differing(*pair, f"{where}/{i}")]
    if isinstance(one, torch.Tensor | np.ndarray):
        same = np.asarray(one).tobytes() == np.asarray(other).tobytes()
    else:
        same = one == other
    return [] if same else [where]


@pytest.mark.parametrize(
    "step",
    [3, WORLD_MODEL_STEPS + 1, WORLD_MODEL_STEPS + HEAD_STEPS],
    ids=["world model", "between", "heads"],
)
def test_a_run_that_was_cut_and_resumed_ends_where_an_uninterrupted_one_does(
    tiny_dataset: Path,
    tiny_state: dict[str, Any],
    config: TrainConfig,
    tmp_path: Path,
    cut_before: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    step: int,
) -> None:
    cut_before(step)
    with pytest.raises(Cut):
        train(tiny_dataset, tmp_path, config)
    monkeypatch.undo()
    assert sum(read_checkpoint(tmp_path / CHECKPOINT)["progress"][:2]) < WORLD_MODEL_STEPS + HEAD_STEPS
    train(tiny_dataset, tmp_path, config)
    resumed = read_checkpoint(tmp_path / CHECKPOINT)
    assert resumed["progress"][:2] == (WORLD_MODEL_STEPS, HEAD_STEPS)
    assert resumed["surprise"]["levels"].keys() == {"slow", "hold", "stop"}
    parts = ("models", "optimisers", "health", "surprise", "normaliser")
    assert (
        differing({part: resumed[part] for part in parts}, {part: tiny_state[part] for part in parts}) == []
    )


def test_training_changes_every_model(
    tiny_dataset: Path, tiny_state: dict[str, Any], config: TrainConfig, tmp_path: Path
) -> None:
    fresh = Trainer.begin(tiny_dataset, tmp_path, config)
    fresh.save()
    before = read_checkpoint(tmp_path / CHECKPOINT)["models"]
    for name, trained in tiny_state["models"].items():
        assert differing(before[name], trained), f"{name} is as it was born"


def test_the_seed_changes_the_run_and_nothing_else_does(
    tiny_dataset: Path, config: TrainConfig, tmp_path: Path
) -> None:
    weights = []
    for seed, name in ((0, "a"), (0, "b"), (1, "c")):
        trainer = Trainer.begin(
            tiny_dataset, tmp_path / name, config.model_copy(update={"seed": seed, "steps": 1})
        )
        trainer.train_world_model()
        weights.append(trainer.encoder.state_dict())
    assert differing(weights[0], weights[1]) == []
    assert differing(weights[0], weights[2])


def test_a_finished_run_is_not_trained_again(
    tiny_dataset: Path, tiny_run: Path, config: TrainConfig, cut_before: Callable[[int], None]
) -> None:
    cut_before(1)
    before = (tiny_run / CHECKPOINT).stat().st_mtime_ns
    train(tiny_dataset, tiny_run, config)
    assert (tiny_run / CHECKPOINT).stat().st_mtime_ns == before


def test_the_monitors_are_kept_for_tensorboard(tiny_run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tiny_run / "tensorboard" / "world_model")).Reload()
    for reading in ("std", "effective_rank", "open_loop_normalised", "tool_probe_cm"):
        assert [event.step for event in board.Scalars(f"health/{reading}")] == [2, 4]
    assert (tiny_run / "tensorboard" / "heads").is_dir()


# Settings


def test_an_unknown_setting_is_named(tmp_path: Path) -> None:
    file = tmp_path / "fast.yaml"
    file.write_text("steps: 10\nlerning_rate: 1.0e-3\n")
    with pytest.raises(TrainingError, match=r"fast\.yaml: lerning_rate: .*known keys: .*learning_rate"):
        load_config(file)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("steps: many", "steps: Input should be a valid integer"),
        ("batch: 0", "batch: .*greater than or equal to 2"),
        ("held_out_share: 0.9", "held_out_share: .*less than 0.5"),
        ("seed: -1", "seed: "),
        ("window: 4", "horizon: .*window of 4 has room for 2 open-loop steps, not 3"),
        ("- steps", "must hold `key: value` lines, not list"),
        ("steps: [", "is not YAML"),
    ],
)
def test_a_bad_setting_is_named(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(content)
    with pytest.raises(TrainingError, match=f"(?s)settings\\.yaml.*{says}"):
        load_config(file)


def test_settings_come_from_the_file_and_overrides_win(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump({"steps": 10, "seed": 1}))
    assert load_config(file, seed=2) == TrainConfig(steps=10, seed=2)
    assert load_config(None) == TrainConfig()
    with pytest.raises(TrainingError, match=r"gone\.yaml does not exist"):
        load_config(tmp_path / "gone.yaml")


def test_the_command_refuses_a_bad_setting_before_it_touches_anything(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.yaml").write_text("colour: red\nsteps: 1\nhead_steps: 1\n")
    command = ["train", "--data", tiny_dataset, "--out", tmp_path / "run", "--config", tmp_path / "bad.yaml"]
    assert cli.main([str(word) for word in command]) == 2
    error = capsys.readouterr().err
    assert "bad.yaml: colour" in error and len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


# What a run refuses to begin or go on with


@pytest.mark.parametrize(
    ("change", "key"), [({"seed": 1}, "seed"), ({"latent_dim": 8}, "latent_dim"), ({"steps": 5}, "steps")]
)
def test_a_run_with_other_settings_is_not_gone_on_with(
    tiny_dataset: Path, tiny_run: Path, config: TrainConfig, change: dict[str, int], key: str
) -> None:
    with pytest.raises(
        TrainingError, match=rf"checkpoint\.pt belongs to a run with another settings \({key}\)"
    ):
        Trainer.begin(tiny_dataset, tiny_run, config.model_copy(update=change))


def test_a_run_on_other_data_is_not_gone_on_with(
    make_dataset: Callable[..., DatasetInfo], tiny_run: Path, config: TrainConfig, tmp_path: Path
) -> None:
    make_dataset(tmp_path, seed=9)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt belongs to a run with another dataset \(seed\)"):
        Trainer.begin(tmp_path, tiny_run, config)


def test_too_few_episodes_are_refused(
    make_dataset: Callable[..., DatasetInfo], config: TrainConfig, tmp_path: Path
) -> None:
    make_dataset(tmp_path / "data", episodes=3)
    with pytest.raises(TrainingError, match="3 episodes in sessions of 2 are too few"):
        Trainer.begin(tmp_path / "data", tmp_path / "run", config)


def test_too_short_episodes_are_refused(
    make_dataset: Callable[..., DatasetInfo], config: TrainConfig, tmp_path: Path
) -> None:
    make_dataset(tmp_path / "data", steps=39)
    with pytest.raises(TrainingError, match="episodes of 39 actions are too short: .* needs 40"):
        Trainer.begin(tmp_path / "data", tmp_path / "run", config)


def test_how_far_the_heads_see_decides_how_long_episodes_must_be_and_how_wide_they_are(
    make_dataset: Callable[..., DatasetInfo], config: TrainConfig, tmp_path: Path
) -> None:
    make_dataset(tmp_path / "data")
    with pytest.raises(TrainingError, match="episodes of 40 actions are too short: .* needs 42"):
        Trainer.begin(tmp_path / "data", tmp_path / "far", config.model_copy(update={"max_steps": 21}))
    near = Trainer.begin(tmp_path / "data", tmp_path / "near", config.model_copy(update={"max_steps": 3}))
    assert near.energy(torch.zeros(1, 16), torch.ones(1, 16), torch.zeros(1, 3)).shape == (1, 5), (
        "0 to 3, and elsewhere"
    )


def test_a_loss_that_is_not_a_number_ends_the_run_and_keeps_its_checkpoint(
    tiny_dataset: Path, make_dataset: Callable[..., DatasetInfo], config: TrainConfig, tmp_path: Path
) -> None:
    _, episodes = load_dataset(tiny_dataset)
    broken = Episodes(episodes.frames, episodes.actions * np.float32("nan"), episodes.tool, episodes.object)
    make_dataset(tmp_path / "data", broken)
    trainer = Trainer.begin(tmp_path / "data", tmp_path / "run", config)
    trainer.save()
    kept = (tmp_path / "run" / CHECKPOINT).read_bytes()
    with pytest.raises(
        TrainingError, match="loss of the world model is nan at step 0: lower the learning rate"
    ):
        trainer.train_world_model()
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == kept


# Checkpoints


@pytest.fixture
def checkpoint(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    path = tmp_path / CHECKPOINT
    path.write_bytes((tiny_run / CHECKPOINT).read_bytes())
    return path


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9, 0.999])
def test_a_truncated_checkpoint_is_named(checkpoint: Path, share: float) -> None:
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(TrainingError, match=r"checkpoint\.pt is damaged or no checkpoint .*: delete it"):
        read_checkpoint(checkpoint)


@pytest.mark.parametrize("content", [{"epoch": 3}, torch.zeros(3), None, 5])
def test_somebody_else_s_checkpoint_is_named(checkpoint: Path, content: Any) -> None:
    torch.save(content, checkpoint)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt is .*no checkpoint of jepa-arm"):
        read_checkpoint(checkpoint)


def test_a_file_that_was_never_a_checkpoint_is_named(checkpoint: Path) -> None:
    checkpoint.write_text("once upon a time")
    with pytest.raises(TrainingError, match=r"checkpoint\.pt is damaged or no checkpoint"):
        read_checkpoint(checkpoint)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"checkpoint\.pt does not exist: train first"):
        read_checkpoint(tmp_path / CHECKPOINT)


def test_a_damaged_checkpoint_is_not_trained_over(
    tiny_dataset: Path, config: TrainConfig, checkpoint: Path
) -> None:
    checkpoint.write_bytes(b"damaged")
    with pytest.raises(TrainingError, match=r"checkpoint\.pt is damaged"):
        Trainer.begin(tiny_dataset, checkpoint.parent, config)
    assert checkpoint.read_bytes() == b"damaged"


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), RuntimeError("write failed")]
)
def test_a_disk_that_fills_up_while_saving_keeps_the_last_checkpoint(
    tiny_dataset: Path, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    trainer = Trainer.begin(tiny_dataset, tmp_path, config)
    trainer.save()
    kept = (tmp_path / CHECKPOINT).read_bytes()

    def half(state: Any, file: BinaryIO) -> None:
        file.write(b"half of it")
        raise error

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(TrainingError, match=r"cannot write .*checkpoint\.pt: .*last checkpoint is kept"):
        trainer.save()
    assert (tmp_path / CHECKPOINT).read_bytes() == kept
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


@pytest.fixture
def disk_with_room_for(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk of so many bytes."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(size: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root can mount a small disk; the test above fakes a full one")
        return disk

    yield mount
    if disk.is_mount():
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_called_one_and_keeps_the_last_checkpoint(
    tiny_dataset: Path, tiny_run: Path, config: TrainConfig, disk_with_room_for: Callable[[int], Path]
) -> None:
    out = disk_with_room_for(int(1.5 * (tiny_run / CHECKPOINT).stat().st_size)) / "run"
    trainer = Trainer.begin(tiny_dataset, out, config)
    trainer.save()
    (out / CHECKPOINT).write_bytes((tiny_run / CHECKPOINT).read_bytes())
    with pytest.raises(TrainingError, match=r"cannot write .*checkpoint\.pt: .*No space left on device"):
        Trainer.begin(tiny_dataset, out, config).save()
    assert read_checkpoint(out / CHECKPOINT)["progress"][:2] == (WORLD_MODEL_STEPS, HEAD_STEPS)
    assert [path.name for path in out.iterdir()] == [CHECKPOINT]


def test_a_disk_too_full_for_the_curves_ends_the_run_with_what_to_do(
    tiny_dataset: Path, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils.tensorboard import SummaryWriter

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    with pytest.raises(
        TrainingError, match=r"cannot write .*tensorboard/world_model: .*No space .*same command"
    ):
        train(tiny_dataset, tmp_path, config)
    assert (tmp_path / CHECKPOINT).exists()
