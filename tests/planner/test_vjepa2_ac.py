"""An official V-JEPA 2-AC file, tiny and random, all the way to plans."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

import cli
from hardware.kinematics import Kinematics
from hardware.robot import load_robot
from perception.encoder import check_encoder
from perception.preprocessing import prepare
from perception.vjepa2.checkpoint import load_model
from perception.vjepa2.layers import normalised
from perception.vjepa2.pose import moved, rotation
from planner.bundle import Bundle, load_bundle
from planner.contract import Array, Observation
from planner.errors import BundleError, PlannerError
from planner.mpc import RecedingHorizon
from planner.registry import make_planner
from planner.surprise import Caution
from planner.vjepa2_ac import VJepa2AcPlanner, feature_distance, onto_l1_ball

BALL_M, STROKE_M = 0.075, 0.04
SECOND = 1_000_000_000
TOOL = np.array([0.5, 0.0, 0.25, 0.01], np.float32)


@pytest.fixture(scope="module")
def bundle(vjepa2_bundle: Path) -> Bundle:
    return load_bundle(vjepa2_bundle)


@pytest.fixture(scope="module")
def latents(bundle: Bundle) -> Array:
    """What is seen, and the goal: a white square on a table, in two places."""
    pictures = np.full((2, 64, 64, 3), (120, 90, 60), np.uint8)
    pictures[0, 8:24, 8:24] = pictures[1, 30:46, 36:52] = 255
    return bundle.encoder().encode(pictures)


@pytest.fixture
def planner(bundle: Bundle, latents: Array) -> VJepa2AcPlanner:
    made = make_planner("cem", bundle)
    assert isinstance(made, VJepa2AcPlanner)
    made.begin(latents[1])
    return made


def observe(latent: Array, stamp_ns: int = SECOND) -> Observation:
    return Observation(latent, latent, TOOL, stamp_ns)


def test_the_loop_plans_from_real_frames_to_finite_actions_inside_the_ball(
    bundle: Bundle, franka: tuple[np.ndarray, np.ndarray]
):
    latents = bundle.encoder().encode(np.stack([prepare(frame, 64) for frame in franka[0]]))
    loop = RecedingHorizon(bundle, make_planner("cem", bundle, seed=3))
    loop.begin(latents[1])
    decisions = []
    for i in range(6):
        loop.observe(latents[i % 2], TOOL, SECOND + i * SECOND // 4)
        decisions.append(loop.decide())
    assert decisions[0] is None, "a step's worth of frames comes first"
    for decision in decisions[1:]:
        assert decision is not None and np.isfinite(decision.action).all()
        assert np.abs(decision.action[:3]).sum() <= BALL_M + 1e-6
        assert abs(decision.action[3]) <= 0.75 * STROKE_M + 1e-6
        assert decision.candidates == 4 * 64 and np.isfinite(decision.energy)
        assert np.isnan(decision.surprise) and decision.caution == Caution.CALM
        assert not decision.reached and decision.steps_to_go == np.inf
    assert any(np.abs(decision.action[:3]).sum() > 0.01 for decision in decisions[1:] if decision)


def test_a_goal_that_is_in_sight_is_still_not_taken_for_reached(bundle: Bundle, latents: Array):
    loop = RecedingHorizon(bundle, make_planner("hold", bundle))
    loop.begin(latents[0])
    for i in range(12):
        loop.observe(latents[0], TOOL, SECOND + i * SECOND // 4)
        decision = loop.decide()
    assert decision is not None and not decision.reached


def test_searching_finds_less_energy_than_chance_and_than_staying(planner: VJepa2AcPlanner, latents: Array):
    observation = observe(latents[0])
    cost = planner.model.cost(observation, latents[1])
    rng = np.random.default_rng(0)
    random = planner.allow(rng.uniform(-1, 1, (64, 2, 4)).astype(np.float32), observation)
    found = planner.plan(observation)
    assert found.energy < cost(random).min()
    assert found.energy < cost(np.zeros((1, 2, 4), np.float32))[0]
    again = cost(found.actions[None] / np.float32(BALL_M))[0]
    assert again == pytest.approx(found.energy, rel=1e-4), "the energy is that of the plan"


@torch.no_grad()
@pytest.mark.parametrize("count, horizon", [(1, 2), (3, 2), (2, 1)])
def test_imagining_is_what_the_models_do_step_by_step(
    planner: VJepa2AcPlanner, latents: Array, vjepa2_file: Path, count: int, horizon: int
):
    model = load_model(vjepa2_file, "tiny-ac")
    assert model.predictor is not None
    rng = np.random.default_rng(count)
    actions = rng.uniform(-0.3, 0.3, (count, horizon, 4)).astype(np.float32)
    imagined = planner.model.rollout(observe(latents[0]), actions)
    for sequence, found in zip(actions, imagined, strict=True):
        pose = np.array([0.5, 0.0, 0.25, np.pi, 0.0, 0.0, 0.75])  # the fingers are open by a quarter
        features, poses, steps = [torch.from_numpy(latents[0]).reshape(16, 64)], [pose], []
        for step in sequence * BALL_M:
            steps.append(np.array([*step[:3], 0, 0, 0, -step[3] / STROKE_M]))
            inputs = (torch.stack(features)[None], torch.tensor(np.array(steps))[None].float())
            following = model.predictor(*inputs, torch.tensor(np.array(poses))[None].float())[0, -1]
            features.append(normalised(following))
            poses.append(moved(poses[-1], steps[-1]))
        expected = torch.stack(features[1:]).flatten(1).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_costs_do_not_depend_on_who_is_imagined_together(planner: VJepa2AcPlanner, latents: Array):
    cost = planner.model.cost(observe(latents[0]), latents[1])
    actions = np.random.default_rng(0).uniform(-0.3, 0.3, (37, 1, 4)).astype(np.float32)
    alone = np.concatenate([cost(action[None]) for action in actions])
    np.testing.assert_allclose(cost(actions), alone, atol=1e-5)


numbers = st.lists(st.floats(-3, 3, width=32), min_size=8, max_size=8)


@given(numbers, st.lists(st.floats(-2, 2, width=32), min_size=4, max_size=4))
def test_what_is_allowed_is_inside_the_ball_and_stays_as_it_is(
    planner_everywhere: VJepa2AcPlanner, drawn: list[float], tool: list[float]
):
    observation = Observation(np.zeros(1), np.zeros(1), np.array(tool, np.float32), 0)
    sequences = np.array(drawn, np.float32).reshape(1, 2, 4)
    allowed = planner_everywhere.allow(sequences, observation)
    assert np.abs(allowed[..., :3]).sum(-1).max() <= 1 + 1e-5
    grip = np.abs(allowed[..., 3]) * BALL_M / STROKE_M
    assert ((grip == 0) | (grip >= 0.25 - 1e-5)).all() and grip.max() <= 0.75 + 1e-5
    np.testing.assert_allclose(planner_everywhere.allow(allowed, observation), allowed, atol=1e-5)


@pytest.fixture(scope="module")
def planner_everywhere(bundle: Bundle) -> VJepa2AcPlanner:
    return VJepa2AcPlanner(bundle)  # type: ignore[arg-type]


@given(
    st.lists(st.floats(-3, 3, width=32), min_size=3, max_size=3),
    st.lists(st.floats(-1, 1), min_size=3, max_size=3),
)
def test_the_projection_is_the_nearest_point_of_the_ball(point: list[float], other: list[float]):
    vector = np.array(point, np.float32)
    nearest = onto_l1_ball(vector, 1.0)
    assert np.abs(nearest).sum() <= 1 + 1e-5
    inside = np.array(other) / max(1.0, np.abs(other).sum())
    assert np.linalg.norm(vector - nearest) <= np.linalg.norm(vector - inside) + 1e-5
    if np.abs(vector).sum() <= 1:
        np.testing.assert_array_equal(nearest, vector)


def test_the_distance_is_the_mean_absolute_difference():
    distances = feature_distance(np.array([[0.0, 1.0], [2.0, -2.0]], np.float32), np.array([0.0, 0.0]))
    np.testing.assert_allclose(distances, [0.5, 2.0])


def test_a_budget_cuts_the_search_short_and_says_so(bundle: Bundle, latents: Array):
    seconds = iter(np.arange(0.0, 100.0, 0.3))
    planner = make_planner("cem", bundle, budget_ms=500, clock=lambda: float(next(seconds)))
    planner.begin(latents[1])
    plan = planner.plan(observe(latents[0]))
    assert plan.dropped and plan.candidates < 4 * 64 and np.isfinite(plan.actions).all()


def test_planners_that_need_a_reflex_are_refused_by_name(bundle: Bundle):
    with pytest.raises(PlannerError, match="no planner 'mode2'; there are hold, cem"):
        make_planner("mode2", bundle)


def test_the_encoder_keeps_the_contract_and_its_latents_are_layer_normed(bundle: Bundle, latents: Array):
    check_encoder(bundle.encoder())
    features = latents.reshape(-1, 64)
    np.testing.assert_allclose(features.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(features.std(1), 1, atol=1e-2)


def test_the_hand_that_is_assumed_is_the_robots(bundle: Bundle):
    robot = load_robot(bundle.robot)
    assert robot.gripper is not None
    pose = yaml.safe_load((bundle.path / "bundle.yaml").read_text())["pose"]
    assert (pose["open_m"], pose["closed_m"]) == (robot.gripper.open, robot.gripper.closed)
    held = Kinematics(robot).tool_pose(robot.home)[1]
    np.testing.assert_allclose(rotation(np.array(pose["euler"])), held, atol=1e-6)


def test_a_bundle_that_does_not_fit_is_refused(bundle: Bundle):
    bundle.check_fits("panda_hand", (128, 64))
    with pytest.raises(BundleError, match="sees 64x64 pixels, the camera gives 128x63: set the camera"):
        bundle.check_fits("panda_hand", (128, 63))
    with pytest.raises(BundleError, match="was made for robot panda_hand, not panda"):
        bundle.check_fits("panda", (128, 128))


@pytest.mark.parametrize("file", ["encoder.onnx.data", "predictor.onnx"])
def test_a_damaged_or_missing_file_is_refused(vjepa2_bundle: Path, tmp_path: Path, file: str):
    copy = shutil.copytree(vjepa2_bundle, tmp_path / "copy")
    content = bytearray((copy / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / file).write_bytes(content)
    with pytest.raises(BundleError, match=f"{file} is not the file"):
        load_bundle(copy)
    (copy / file).unlink()
    with pytest.raises(BundleError, match=f"{file} is missing"):
        load_bundle(copy)


def test_a_wrong_description_is_refused_by_its_key(vjepa2_bundle: Path, tmp_path: Path):
    copy = shutil.copytree(vjepa2_bundle, tmp_path / "copy")
    content = yaml.safe_load((copy / "bundle.yaml").read_text())
    for section, key, value, words in (
        ("search", "sampels", 3, "search.sampels: Extra inputs are not permitted"),
        ("search", "horizon", 3, "imagines 2 steps, and by bundle.yaml the horizon is 3"),
        ("pose", "closed_m", 0.04, "pose: .*open_m and closed_m are both 0.04"),
    ):
        changed = content | {section: content[section] | {key: value}}
        (copy / "bundle.yaml").write_text(yaml.safe_dump(changed))
        with pytest.raises(BundleError, match=words):
            load_bundle(copy).world_model()


def test_other_weights_make_another_encoder_with_the_published_search(
    bundle: Bundle, vjepa2_file: Path, tmp_path: Path
):
    """Latents name their encoder by its graph, and the weights are in another file."""
    content = torch.load(vjepa2_file, weights_only=True)
    content["encoder"]["module.backbone.blocks.0.mlp.fc1.weight"] += 0.1
    torch.save(content, tmp_path / "other.pt")
    command = ["convert-vjepa2", str(tmp_path / "other.pt"), "--out", str(tmp_path / "other")]
    assert cli.main([*command, "--model", "tiny-ac"]) == 0
    other = load_bundle(tmp_path / "other")
    assert other.encoder_sha256 != bundle.encoder_sha256
    found = yaml.safe_load((other.path / "bundle.yaml").read_text())
    assert (found["action"]["limit_m"], found["action"]["period_s"]) == (BALL_M, 0.25)
    assert {key: found["search"][key] for key in ("samples", "iterations", "elites", "horizon")} == {
        "samples": 800,
        "iterations": 10,
        "elites": 10,
        "horizon": 1,
    }


def test_nothing_is_converted_over_what_is_there_or_without_a_predictor(
    vjepa2_bundle: Path, vjepa2_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    before = (vjepa2_bundle / "bundle.yaml").read_bytes()
    command = ["convert-vjepa2", str(vjepa2_file), "--model", "tiny-ac", "--out"]
    assert cli.main([*command, str(vjepa2_bundle)]) == 2
    assert "exists: name another --out" in capsys.readouterr().err
    assert (vjepa2_bundle / "bundle.yaml").read_bytes() == before
    assert cli.main([*command, str(tmp_path / "new"), "--horizon", "33"]) == 2
    assert "name a --horizon from 1 to 32" in capsys.readouterr().err
    command[command.index("tiny-ac")] = "tiny"
    assert cli.main([*command, str(tmp_path / "new")]) == 2
    assert "tiny is an encoder alone" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
