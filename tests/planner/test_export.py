from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file

import cli
from perception.dataset import load_dataset
from perception.encoder import check_encoder
from perception.jepa.config import TrainConfig
from perception.jepa.model import Encoder, Energy, Predictor, Proposal
from perception.jepa.trainer import CHECKPOINT, Trainer, read_checkpoint
from planner import bundle_writer
from planner.bundle import Bundle, load_bundle
from planner.bundle_writer import PARITY_TOLERANCE, export_bundle
from planner.errors import BundleError
from planner.export import next_command
from planner.model_card import model_card

LATENT_DIM, BLOCK_DIM, MAX_STEPS = 16, 4, 20
FILES = {
    "README.md",
    "bundle.yaml",
    "encoder.onnx",
    "energy.onnx",
    "predictor.onnx",
    "proposal.onnx",
    "surprise.npz",
    "weights.safetensors",
}


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return load_bundle(tiny_bundle)


def trained(state: dict[str, Any], name: str, module: torch.nn.Module) -> Any:
    module.load_state_dict(state["models"][name])
    return module.eval()


def latents(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, LATENT_DIM)).astype(np.float32)


def assert_equal(found: np.ndarray, expected: torch.Tensor) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=PARITY_TOLERANCE)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_exported_encoder_agrees_with_torch(
    bundle: Bundle, tiny_state: dict[str, Any], count: int
) -> None:
    images = np.random.default_rng(count).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    expected = trained(tiny_state, "encoder", Encoder(64, LATENT_DIM))(torch.from_numpy(images))
    assert_equal(bundle.encoder().encode(images), expected)


def test_the_exported_encoder_keeps_the_contract(bundle: Bundle) -> None:
    check_encoder(bundle.encoder())


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_exported_world_model_agrees_with_torch(
    bundle: Bundle, tiny_state: dict[str, Any], count: int
) -> None:
    model, rng = bundle.world_model(), np.random.default_rng(count)
    now, before, goal = latents(0, count), latents(1, count), latents(2, 1)[0]
    tool = rng.standard_normal((count, 3)).astype(np.float32)
    actions = rng.uniform(-1, 1, (count, BLOCK_DIM)).astype(np.float32)
    steps_left = rng.uniform(1, 20, count).astype(np.float32)
    to = torch.from_numpy
    goals = to(np.tile(goal, (count, 1)))

    predictor = trained(tiny_state, "predictor", Predictor(LATENT_DIM, 3, BLOCK_DIM))
    for found, expected in zip(
        model.predict(now, before, tool, actions), predictor(to(now), to(before), to(tool), to(actions))
    ):
        assert_equal(found, expected)
    proposal = trained(tiny_state, "proposal", Proposal(LATENT_DIM, BLOCK_DIM, MAX_STEPS, 3))
    answers, logits = proposal(to(now), goals, to(steps_left)[:, None], to(tool))
    likeliest = torch.stack([answers[row, best] for row, best in enumerate(logits.argmax(1))])
    assert_equal(model.propose(now, tool, goal, steps_left), likeliest)
    energy = trained(tiny_state, "energy", Energy(LATENT_DIM, MAX_STEPS, 3))
    assert_equal(model.steps_to_go(now, tool, goal), energy.steps_to_go(to(now), goals, to(tool)))


def test_a_bundle_holds_graphs_weights_and_a_card(tiny_bundle: Path, tiny_state: dict[str, Any]) -> None:
    assert {path.name for path in tiny_bundle.iterdir()} == FILES
    weights = load_file(tiny_bundle / "weights.safetensors")
    for name, model in tiny_state["models"].items():
        for key, value in model.items():
            assert torch.allclose(weights[f"{name}.{key}"].to(value.dtype), value, atol=1e-3, rtol=1e-3)
    for name in ("encoder", "predictor", "proposal", "energy"):
        graph = onnx.load(tiny_bundle / f"{name}.onnx")
        assert [opset.version for opset in graph.opset_import if opset.domain == ""] == [20]


def test_a_bundle_says_how_far_its_heads_see_and_what_the_tool_did_in_training(
    bundle: Bundle, tiny_dataset: Path
) -> None:
    assert bundle.info.max_steps == bundle.world_model().max_steps == MAX_STEPS
    _, episodes = load_dataset(tiny_dataset)
    trained_on = episodes.tool[:-2].reshape(-1, 3)  # two episodes are held out
    np.testing.assert_array_equal(np.float32(bundle.info.tool.low), trained_on.min(0))
    np.testing.assert_array_equal(np.float32(bundle.info.tool.high), trained_on.max(0))
    np.testing.assert_allclose(bundle.info.tool.mean, trained_on.mean(0), atol=1e-6)


def test_a_bundle_holds_the_calibration_of_its_surprise(bundle: Bundle, tiny_state: dict[str, Any]) -> None:
    found, calibrated = bundle.info.surprise, tiny_state["surprise"]
    assert found.scales == calibrated["scales"] and found.episodes == calibrated["episodes"]
    assert {name: getattr(found, name) for name in ("slow", "hold", "stop")} == calibrated["levels"]
    for name, array in calibrated["yardstick"].items():
        np.testing.assert_array_equal(getattr(bundle.yardstick(), name), array)


def test_the_card_names_the_commands_that_make_the_bundle(tiny_bundle: Path) -> None:
    card = (tiny_bundle / "README.md").read_text()
    assert "jepa-arm collect --task push --robot panda --episodes 8 --seed 0 --out data/panda-push" in card
    assert "jepa-arm train --data data/panda-push --out runs/panda-push" in card
    assert "jepa-arm export --run runs/panda-push --data data/panda-push --out models/panda-push" in card
    assert "4 world-model steps and 6 head steps" in card
    assert "| open_loop_normalised |" in card


def test_whoever_may_read_one_file_of_a_bundle_may_read_all(tiny_bundle: Path) -> None:
    assert len({path.stat().st_mode for path in tiny_bundle.iterdir()}) == 1


def test_the_card_tells_what_was_the_same_in_all_of_the_play(bundle: Bundle) -> None:
    training = {**bundle.info.training, "same": ["camera"]}
    card = model_card(bundle.info.model_copy(update={"training": training}))
    assert "--seed 0 --same camera --out data/panda-push" in card
    assert "the same camera throughout" in card


def test_a_bundle_of_recordings_names_the_commands_for_the_arm_of_the_recordings(bundle: Bundle) -> None:
    training = {**bundle.info.training, "data_source": "recorded"}
    recorded = replace(bundle, info=bundle.info.model_copy(update={"training": training}))
    here = Path("models/cube")
    told = next_command(recorded, here)
    assert told == "jepa-arm up --bundle models/cube --arm … --camera …, then jepa-arm pursue PICTURE"
    assert next_command(bundle, here) == "jepa-arm eval --task push --bundle models/cube"
    card = model_card(recorded.info)
    assert "jepa-arm record --robot panda --arm … --camera … --task push --out data/panda-push" in card
    assert "jepa-arm pursue goal.png" in card
    for words in ("jepa-arm collect", "jepa-arm eval", "Made for the simulated", "{"):
        assert words not in card.partition("## Training settings")[0]


def test_the_bundle_of_an_arm_with_a_gripper_knows_its_opening(
    make_dataset: Callable[..., Any], tiny_state: dict[str, Any], tmp_path: Path
) -> None:
    axes = ("x", "y", "z", "gripper")
    make_dataset(tmp_path / "data", task="pick-place", robot="panda_hand", axes=axes, fixed={}, image_size=16)
    settings = {**tiny_state["config"], "latent_dim": 8, "max_steps": 5, "steps": 1, "head_steps": 1}
    trainer = Trainer.begin(tmp_path / "data", tmp_path / "run", TrainConfig(**settings))
    trainer.train_world_model()
    trainer.train_heads()
    export_bundle(read_checkpoint(tmp_path / "run" / CHECKPOINT), tmp_path / "panda-pick-place")
    bundle = load_bundle(tmp_path / "panda-pick-place")
    assert (bundle.robot, bundle.action.axes, bundle.info.tool.dim) == ("panda_hand", axes, 4)
    model, rng = bundle.world_model(), np.random.default_rng(0)
    latent = rng.standard_normal((2, 8)).astype(np.float32)
    tool = model.normalise(np.array([[0.5, 0.0, 0.1, 0.0], [0.5, 0.0, 0.1, 0.04]], np.float32))
    following, moved = model.predict(latent, latent, tool, np.zeros((2, 8), np.float32))
    assert following.shape == (2, 8) and moved.shape == (2, 4)
    assert bundle.yardstick().tool_std.shape == (4,)


# What may be written over what


@pytest.fixture
def there(tiny_bundle: Path, tmp_path: Path) -> Path:
    """An older bundle in the place that is exported to."""
    folder = tmp_path / "panda-push"
    shutil.copytree(tiny_bundle, folder)
    (folder / "notes.txt").write_text("measured on the real arm")
    return folder


@pytest.fixture
def graphs_at_hand(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the graphs of the tiny bundle, for tests of what comes after them: exporting takes seconds."""

    def export(graph: Any, path: Path) -> float:
        shutil.copy(tiny_bundle / path.name, path)
        return 0.0

    monkeypatch.setattr(bundle_writer, "_export", export)


def assert_untouched(folder: Path) -> None:
    load_bundle(folder)
    assert {path.name for path in folder.iterdir()} == FILES | {"notes.txt"}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "nothing is left beside it"


def test_a_bundle_that_is_there_is_not_replaced_unasked(there: Path, tiny_state: dict[str, Any]) -> None:
    with pytest.raises(
        BundleError, match="panda-push exists: name another --out, or replace it with --force"
    ):
        export_bundle(tiny_state, there)
    assert_untouched(there)


def test_a_bundle_is_replaced_when_asked(
    there: Path, tiny_state: dict[str, Any], graphs_at_hand: None
) -> None:
    export_bundle(tiny_state, there, replace=True)
    assert {path.name for path in there.iterdir()} == FILES
    assert load_bundle(there).name == "panda-push"
    assert [path.name for path in there.parent.iterdir()] == ["panda-push"]


def test_a_graph_that_differs_from_torch_is_not_exported_and_the_old_bundle_stays(
    there: Path, tiny_state: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_writer, "PARITY_TOLERANCE", -1.0)
    with pytest.raises(BundleError, match=r"encoder\.onnx differs from torch by .*: not exported"):
        export_bundle(tiny_state, there, replace=True)
    assert_untouched(there)


def test_an_export_that_fails_at_the_end_leaves_the_old_bundle(
    there: Path, tiny_state: dict[str, Any], graphs_at_hand: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> str:
        raise OSError("No space left on device")

    monkeypatch.setattr(bundle_writer, "model_card", full)
    with pytest.raises(OSError, match="No space"):
        export_bundle(tiny_state, there, replace=True)
    assert_untouched(there)


def test_a_new_bundle_that_cannot_take_its_place_leaves_the_old_one_there(
    there: Path, tiny_state: dict[str, Any], graphs_at_hand: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if ".exporting-" in str(self) and self.name == "panda-push":
            raise OSError("Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="Permission denied"):
        export_bundle(tiny_state, there, replace=True)
    assert_untouched(there)


@pytest.mark.parametrize("force", [True, False])
def test_a_folder_that_is_no_bundle_is_never_replaced(
    tmp_path: Path, tiny_state: dict[str, Any], force: bool
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    with pytest.raises(
        BundleError, match="home exists and is no bundle, so it is not replaced: name another"
    ):
        export_bundle(tiny_state, tmp_path / "home", replace=force)
    assert (tmp_path / "home" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("progress", [(0, 0, 1.0), (4, 0, 1.0), (4, 5, 1.0)])
def test_a_run_that_has_not_finished_is_not_exported(
    tmp_path: Path, tiny_state: dict[str, Any], progress: tuple[int, int, float]
) -> None:
    with pytest.raises(BundleError, match="has not finished training: run `jepa-arm train` again"):
        export_bundle({**tiny_state, "progress": progress}, tmp_path / "early")
    assert not (tmp_path / "early").exists()


def test_the_command_exports_a_run(
    tiny_run: Path, tmp_path: Path, graphs_at_hand: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "models" / "mine"
    assert cli.main(["export", "--run", str(tiny_run), "--out", str(out)]) == 0
    assert f"jepa-arm eval --task push --bundle {out}" in capsys.readouterr().out
    assert load_bundle(out).name == "mine"


def test_the_command_names_a_run_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "--run", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "checkpoint.pt does not exist: train first with `jepa-arm train`" in error
    assert len(error.splitlines()) == 1
