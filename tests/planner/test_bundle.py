from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from perception.errors import ModelError
from perception.runtimes.contract import WEIGHTS
from perception.runtimes.onnx import file_sha256
from planner.bundle import DESCRIPTION, Bundle, load_bundle
from planner.errors import BundleError

SHIPPED = sorted(path.parent for path in (Path(__file__).parents[2] / "models").glob(f"*/{DESCRIPTION}"))
GRAPHS = ("encoder", "predictor", "proposal", "energy")


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to damage."""
    copy = tmp_path / "panda-push"
    shutil.copytree(tiny_bundle, copy)
    return copy


@pytest.fixture
def edit(folder: Path) -> Callable[[str, Any], None]:
    """Sets a dotted key of the copy's description; None deletes it."""

    def change(key: str, value: Any) -> None:
        path = folder / DESCRIPTION
        content = yaml.safe_load(path.read_text())
        *sections, last = key.split(".")
        section = content
        for name in sections:
            section = section[name]
        if value is None:
            del section[last]
        else:
            section[last] = value
        path.write_text(yaml.safe_dump(content))

    return change


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    return str(caught.value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_bundle_loads_and_names_every_file_that_a_robot_acts_by(path: Path) -> None:
    bundle = load_bundle(path)
    assert bundle.held_out() is not None
    info = bundle.info
    named = {part.file for part in (*info.graphs.all, info.surprise, info.held_out)}
    there = {file.name for file in path.iterdir()}
    assert there - named == {DESCRIPTION, "README.md", WEIGHTS}


def test_a_whole_bundle_loads_and_says_what_it_is_for(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    assert (bundle.name, bundle.robot, bundle.info.task) == ("panda-push", "panda", "push")
    assert (bundle.action.axes, bundle.action.dim, bundle.action.limit_m) == (("x", "y"), 2, 0.02)
    assert (bundle.action.block, bundle.action.step_ns) == (2, 200_000_000)
    assert (bundle.camera.width, bundle.camera.height) == (128, 128)
    assert bundle.encoder().spec.sha256 == bundle.encoder_sha256 == file_sha256(tiny_bundle / "encoder.onnx")
    bundle.check_fits("panda", (128, 128))


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_without_a_bundle_is_named(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty") == (
        f"{tmp_path}/empty holds no bundle.yaml: name a bundle folder, such as models/panda-push"
    )


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_missing_graph_is_named(folder: Path, graph: str) -> None:
    (folder / f"{graph}.onnx").unlink()
    said = refusal(folder)
    assert said.startswith(f"{folder}/{graph}.onnx is missing") and "export the bundle again" in said


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_truncated_graph_is_named(folder: Path, graph: str) -> None:
    path = folder / f"{graph}.onnx"
    path.write_bytes(path.read_bytes()[:-100])
    said = refusal(folder)
    assert said.startswith(f"{path} is not the file that bundle.yaml names (sha256 differs)")
    assert "export the bundle again" in said


def test_a_yardstick_that_is_not_as_described_is_refused(
    folder: Path, edit: Callable[[str, Any], None]
) -> None:
    path = folder / "surprise.npz"
    with np.load(path) as file:
        good = dict(file)
    bad = np.full_like(good["latent_mean"], np.nan)
    for arrays in ({**good, "latent_mean": bad}, {**good, "latent_mean": good["latent_mean"][1:]}):
        np.savez(path, **arrays)
        edit("surprise.sha256", file_sha256(path))
        with pytest.raises(BundleError, match=r"surprise\.npz holds .* should hold .*: export the bundle"):
            load_bundle(folder).yardstick()
    for content in (b"", path.read_bytes()[:200]):
        path.write_bytes(content)
        edit("surprise.sha256", file_sha256(path))
        with pytest.raises(BundleError, match=r"surprise\.npz cannot be read .*: export the bundle again"):
            load_bundle(folder).yardstick()
    path.write_bytes(b"another")
    assert "surprise.npz is not the file that bundle.yaml names" in refusal(folder)


def test_a_graph_of_another_bundle_is_refused(folder: Path, edit: Callable[[str, Any], None]) -> None:
    edit("graphs.energy.sha256", "0" * 64)
    assert "energy.onnx is not the file" in refusal(folder)


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_graph_that_was_damaged_before_it_was_described_is_refused_when_opened(
    folder: Path, edit: Callable[[str, Any], None], graph: str
) -> None:
    path = folder / f"{graph}.onnx"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    edit(f"graphs.{graph}.sha256", file_sha256(path))
    bundle = load_bundle(folder)
    with pytest.raises(ModelError, match=rf"{graph}\.onnx cannot be read"):
        bundle.encoder() if graph == "encoder" else bundle.world_model()


def test_a_graph_changed_after_loading_is_refused_when_opened(folder: Path) -> None:
    bundle = load_bundle(folder)
    shutil.copy(folder / "energy.onnx", folder / "proposal.onnx")
    with pytest.raises(ModelError, match=r"proposal\.onnx is not the file its bundle names"):
        bundle.world_model()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("schema_version", 2, "has schema_version 2, this release reads 1"),
        ("schema_version", None, "has schema_version None, this release reads 1"),
        ("colour", "red", "colour: Extra inputs are not permitted"),
        ("action.speed", 1.0, "action.speed: Extra inputs are not permitted"),
        ("graphs.decoder", {"file": "d.onnx", "sha256": "0" * 64}, "graphs.decoder: Extra inputs"),
        ("robot", None, "robot: Field required"),
        ("surprise.stop", None, "surprise.stop: Field required"),
        ("surprise.hold", float("nan"), "surprise.hold: Input should be"),
        ("surprise.slow", 0.0, "surprise.slow: Input should be greater than 0"),
        ("surprise.scales.tool", None, "surprise.scales: Value error, the scores are latent, tool, outlier"),
        ("surprise.scales.tool", -1.0, "surprise.scales.tool: Input should be greater than 0"),
        ("robot", 7, "robot: Input should be a valid string"),
        ("image_size", "sixty-four", "image_size: Input should be a valid integer"),
        ("image_size", 0, "image_size: Input should be greater than 0"),
        ("latent_dim", 16.5, "latent_dim: Input should be a valid integer"),
        ("camera", "front", "camera: Input should be"),
        ("camera.width", -128, "camera.width: Input should be greater than 0"),
        ("camera.position", [1.0, 2.0], "camera.position.2: Field required"),
        ("action.axes", ["x", "yaw"], "action.axes.1: Input should be 'x', 'y', 'z' or 'gripper'"),
        ("action.axes", [], "action.axes: "),
        ("action.limit_m", -0.02, "action.limit_m: Input should be greater than 0"),
        ("action.limit_m", float("inf"), "action.limit_m: Input should be a finite number"),
        ("tool.mean", [0.0, float("nan"), 0.0], "tool.mean.1: Input should be a finite number"),
        ("tool.std", [0.1, 0.0, 0.1], "tool.std.1: Input should be greater than 0"),
        ("tool.low", None, "tool.low: Field required"),
        ("tool.high", [0.6, float("inf"), 0.1], "tool.high.1: Input should be a finite number"),
        ("tool.mean", [0.5, 0.0], "tool.mean: Tuple should have at least 3 items"),
        (
            "tool.std",
            [0.1, 0.1, 0.1, 0.1],
            "tool: Value error, mean, std, low and high are of 3, 4, 3, 3 numbers",
        ),
        ("max_steps", None, "max_steps: Field required"),
        ("max_steps", 0, "max_steps: Input should be greater than 0"),
        ("graphs.energy.sha256", "abc", "graphs.energy.sha256: String should match pattern"),
        ("metrics.std", "good", "metrics.std: Input should be a valid number"),
    ],
)
def test_a_bad_key_is_named_with_its_file_and_what_to_do(
    folder: Path, edit: Callable[[str, Any], None], key: str, value: Any, says: str
) -> None:
    edit(key, value)
    said = refusal(folder)
    assert said.startswith(f"{folder}/bundle.yaml") and says in said
    assert "export the bundle again" in said


@pytest.mark.parametrize("content", [b"", b"- a\n- list\n", b"name: [", bytes(range(128, 256))])
def test_a_description_that_is_none_is_named(folder: Path, content: bytes) -> None:
    (folder / DESCRIPTION).write_bytes(content)
    said = refusal(folder)
    assert said.startswith(f"{folder}/bundle.yaml") and "export the bundle again" in said


@pytest.mark.parametrize(("key", "value"), [("image_size", 32), ("latent_dim", 32)])
def test_an_encoder_that_is_not_as_described_is_refused(
    folder: Path, edit: Callable[[str, Any], None], key: str, value: int
) -> None:
    edit(key, value)
    with pytest.raises(
        BundleError, match=r"encoder\.onnx takes 64 px and gives 16 .*: export the bundle again"
    ):
        load_bundle(folder).encoder()


@pytest.mark.parametrize(
    ("key", "value", "graph"),
    [
        ("latent_dim", 32, "predictor"),
        ("action.axes", ["x", "y", "z"], "predictor"),
        ("action.block", 3, "predictor"),
        ("tool", {name: [0.1] * 4 for name in ("mean", "std", "low", "high")}, "predictor"),
    ],
)
def test_a_world_model_that_is_not_as_described_is_refused(
    folder: Path, edit: Callable[[str, Any], None], key: str, value: Any, graph: str
) -> None:
    edit(key, value)
    with pytest.raises(
        BundleError, match=rf"{graph}\.onnx takes .* it should take .*: export the bundle again"
    ):
        load_bundle(folder).world_model()


def test_graphs_in_each_other_s_place_are_refused(folder: Path, edit: Callable[[str, Any], None]) -> None:
    for graph, other in (("proposal", "energy"), ("energy", "proposal")):
        edit(f"graphs.{graph}", {"file": f"{other}.onnx", "sha256": file_sha256(folder / f"{other}.onnx")})
    with pytest.raises(BundleError, match=r"energy\.onnx takes .* it should take"):
        load_bundle(folder).world_model()


def test_another_robot_is_refused_with_what_to_do(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError) as caught:
        load_bundle(tiny_bundle).check_fits("so101")
    assert str(caught.value) == (
        "bundle panda-push was trained for robot panda, not so101: "
        "start it with --robot panda, or train a bundle for so101"
    )


def test_another_camera_is_refused_with_what_to_do(tiny_bundle: Path) -> None:
    with pytest.raises(
        BundleError, match="trained on 128x128 pictures, the camera gives 640x480: set the camera"
    ):
        load_bundle(tiny_bundle).check_fits("panda", (640, 480))


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return load_bundle(tiny_bundle)


def test_the_world_model_imagines_each_candidate_as_if_it_were_alone(bundle: Bundle) -> None:
    from planner.contract import Observation

    model, rng = bundle.world_model(), np.random.default_rng(0)
    latent, previous = rng.standard_normal((2, bundle.info.latent_dim)).astype(np.float32)
    observation = Observation(latent, previous, np.array([0.5, 0.0, 0.02], np.float32), 0)
    actions = rng.uniform(-1, 1, (5, 3, model.block_dim)).astype(np.float32)
    together = model.rollout(observation, actions)
    assert together.latents.shape == (5, 3, bundle.info.latent_dim)
    np.testing.assert_array_equal(together.actions, actions)
    alone = model.rollout(observation, actions[2:3])
    np.testing.assert_allclose(together.latents[2], alone.latents[0], atol=1e-4)


def test_imagining_the_reflex_is_imagining_the_actions_it_chose(bundle: Bundle) -> None:
    from planner.contract import Observation

    model, rng = bundle.world_model(), np.random.default_rng(0)
    latent, previous, goal = rng.standard_normal((3, bundle.info.latent_dim)).astype(np.float32)
    observation = Observation(latent, previous, np.array([0.5, 0.0, 0.02], np.float32), 0)
    none = np.empty((0, 4, model.block_dim), np.float32)
    reflex = model.rollout_reflex(observation, goal, np.array([2.0, 9.0], np.float32), none)
    assert np.abs(reflex.actions).max() <= 1.0
    np.testing.assert_allclose(model.rollout(observation, reflex.actions).latents, reflex.latents, atol=1e-4)
    tools = np.tile(model.normalise(observation.tool), (2, 1))
    first = model.propose(np.stack([latent, latent]), tools, goal, np.array([2.0, 9.0], np.float32))
    np.testing.assert_allclose(reflex.actions[:, 0], first, atol=1e-6)
