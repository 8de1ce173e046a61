"""The check of runtimes: what a bundle is sampled for it, what passes, what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import cli
from perception.dataset import DatasetInfo, load_dataset
from perception.runtimes.onnx import OnnxSession, file_sha256
from perception.runtimes.registry import REFERENCE, offers
from planner.accuracy import Accuracy, least_cosine, measure_accuracy, overlap_of_best, spearman
from planner.bundle import DESCRIPTION, Bundle, load_bundle
from planner.bundle_writer import held_out_of
from planner.errors import BundleError
from planner.held_out import FILE, STRETCH_STEPS, STRETCHES, HeldOut, sample_held_out

ON_CPU = ("onnxruntime", "openvino", "torch")
LATENTS = hnp.arrays(np.float32, (5, 8), elements=st.floats(-3, 3, width=32))


@pytest.fixture(scope="module")
def held_out(tiny_state: dict[str, Any], tiny_dataset: Path) -> HeldOut:
    return held_out_of(tiny_state, tiny_dataset)


@pytest.fixture(scope="module")
def sampled(tiny_run: Path, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that carries held-out frames, as `jepa-arm export` writes it. Read it only."""
    folder = tmp_path_factory.mktemp("sampled") / "panda-push"
    assert (
        cli.main(["export", "--run", str(tiny_run), "--data", str(tiny_dataset), "--out", str(folder)]) == 0
    )
    return folder


@pytest.fixture
def bundle(sampled: Path) -> Bundle:
    return load_bundle(sampled)


def test_a_bundle_carries_what_its_run_held_out(bundle: Bundle, tiny_dataset: Path) -> None:
    info, episodes = load_dataset(tiny_dataset)
    kept = bundle.held_out()
    assert kept is not None
    assert kept.frames.shape == (STRETCHES, STRETCH_STEPS, 64, 64, 3)
    last_session = episodes.frames[-info.session :]
    known = {frame.tobytes() for frame in last_session.reshape(-1, 64, 64, 3)}
    assert all(frame.tobytes() in known for frame in kept.frames.reshape(-1, 64, 64, 3))
    assert (bundle.path / FILE).stat().st_size < 1e6


def test_frames_tools_and_actions_of_a_stretch_belong_together(bundle: Bundle) -> None:
    kept = bundle.held_out()
    assert kept is not None
    # The drawn tool goes where its actions say: a block is two actions of two axes.
    moved = np.diff(kept.tool[..., :2], axis=1)
    done = kept.blocks.reshape(*kept.blocks.shape[:2], 2, 2).sum(2) * bundle.action.limit_m
    np.testing.assert_allclose(moved, done, atol=1e-6)


def test_a_bundle_without_frames_is_as_good_as_before(tiny_bundle: Path) -> None:
    assert load_bundle(tiny_bundle).held_out() is None


def test_other_data_than_the_run_s_is_refused(
    tiny_state: dict[str, Any], make_dataset: Callable[..., DatasetInfo], tmp_path: Path
) -> None:
    make_dataset(tmp_path, seed=5)
    with pytest.raises(BundleError, match="the run was not trained on"):
        held_out_of(tiny_state, tmp_path)


def test_episodes_too_short_to_sample_are_refused(tiny_dataset: Path) -> None:
    _, episodes = load_dataset(tiny_dataset)
    with pytest.raises(BundleError, match="episodes of 40 actions are too short to sample 44 from"):
        sample_held_out(episodes, block=4, limit_m=0.02)


def test_a_damaged_sample_is_named(sampled: Path, tmp_path: Path) -> None:
    folder = tmp_path / "panda-push"
    shutil.copytree(sampled, folder)
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-200])
    with pytest.raises(BundleError, match=rf"{FILE} is not the file that bundle.yaml names"):
        load_bundle(folder)
    description = yaml.safe_load((folder / DESCRIPTION).read_text())
    description["held_out"]["sha256"] = file_sha256(folder / FILE)
    (folder / DESCRIPTION).write_text(yaml.safe_dump(description))
    with pytest.raises(BundleError, match=rf"{FILE} cannot be read"):
        load_bundle(folder).held_out()


def test_a_sample_of_another_image_size_is_refused(sampled: Path, tmp_path: Path, held_out: HeldOut) -> None:
    small = HeldOut(held_out.frames[:, :, ::2, ::2], held_out.tool, held_out.blocks)
    folder = tmp_path / "panda-push"
    shutil.copytree(sampled, folder)
    small.write(folder / FILE)
    description = yaml.safe_load((folder / DESCRIPTION).read_text())
    description["held_out"]["sha256"] = file_sha256(folder / FILE)
    (folder / DESCRIPTION).write_text(yaml.safe_dump(description))
    with pytest.raises(
        BundleError, match=r"frames uint8 .* it should hold finite uint8 \(6, 12, 64, 64, 3\)"
    ):
        load_bundle(folder).held_out()


def test_the_reference_agrees_with_itself(bundle: Bundle, held_out: HeldOut) -> None:
    accuracy = measure_accuracy(bundle.on(REFERENCE), held_out)
    assert accuracy.passes
    assert accuracy.cosine == pytest.approx(1.0) and (accuracy.spearman, accuracy.overlap) == (1.0, 1.0)


def test_every_cpu_runtime_here_is_near_enough_to_act_by(bundle: Bundle, held_out: HeldOut) -> None:
    full = [
        v for offer in offers() if offer.runtime in ON_CPU for v in offer.variants if v.precision == "fp32"
    ]
    assert len(full) == len(ON_CPU)
    for variant in full:
        accuracy = measure_accuracy(bundle.on(variant), held_out)
        assert accuracy.passes, (variant.name, accuracy.why_not)


def test_weights_that_are_not_the_graphs_own_are_refused(
    sampled: Path, tmp_path: Path, held_out: HeldOut
) -> None:
    """As a bundle's whose model has changed in the code since: it loads, and means nothing."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "panda-push"
    shutil.copytree(sampled, folder)
    weights = load_file(folder / "weights.safetensors")
    noise = torch.Generator().manual_seed(0)
    changed = {
        key: value + (0.1 * torch.randn(value.shape, generator=noise)).to(value.dtype)
        if key.startswith("predictor") and value.is_floating_point()
        else value
        for key, value in weights.items()
    }
    save_file(changed, folder / "weights.safetensors")
    (variant,) = next(offer.variants for offer in offers() if offer.runtime == "torch")
    accuracy = measure_accuracy(load_bundle(folder).on(variant), held_out)
    assert not accuracy.passes
    assert "latent cosine" not in accuracy.why_not and "rank correlation" in accuracy.why_not


@pytest.mark.parametrize(
    ("accuracy", "short"),
    [
        (Accuracy(0.999, 0.99, 0.9), ""),
        (Accuracy(0.9989, 1.0, 1.0), "latent cosine 0.9989 below 0.999"),
        (Accuracy(1.0, 0.9899, 1.0), "rank correlation 0.9899 below 0.99"),
        (Accuracy(1.0, 1.0, 0.8999), "overlap of the best 30 0.8999 below 0.9"),
        (Accuracy(float("nan"), 1.0, 1.0), "latent cosine nan below 0.999"),
    ],
)
def test_the_limits_are_those_that_are_documented(accuracy: Accuracy, short: str) -> None:
    assert accuracy.why_not == short
    assert accuracy.passes is (short == "")


@given(LATENTS, st.floats(0.5, 2))
def test_cosine_does_not_see_length_but_sees_one_bad_row(latents: np.ndarray, factor: float) -> None:
    latents = latents + np.float32(4)
    assert least_cosine(latents, latents * np.float32(factor)) == pytest.approx(1.0, abs=1e-5)
    turned = latents.copy()
    turned[2] *= -1
    assert least_cosine(latents, turned) == pytest.approx(-1.0, abs=1e-5)


@given(st.permutations(range(40)))
def test_ranks_see_order_only(order: list[int]) -> None:
    costs = np.array(order, np.float32)
    assert spearman(costs, np.exp(costs / 10)) == pytest.approx(1.0)
    assert spearman(costs, -costs) == pytest.approx(-1.0)
    assert overlap_of_best(costs, costs * 3, 10) == 1.0
    assert overlap_of_best(costs, -costs, 10) == 0.0


def test_what_is_compared_is_what_runs_on_an_arm(
    bundle: Bundle, held_out: HeldOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture at a time, and no batch that its session was not prepared for."""
    prepared, ran = set(), set()
    prepare, run = OnnxSession.prepare, OnnxSession.run

    def note_prepared(session: OnnxSession, rows: int) -> None:
        prepared.add((session.outputs, rows))
        prepare(session, rows)

    def note_run(session: OnnxSession, inputs: Any) -> Any:
        ran.add((session.outputs, len(next(iter(inputs.values())))))
        return run(session, inputs)

    monkeypatch.setattr(OnnxSession, "prepare", note_prepared)
    monkeypatch.setattr(OnnxSession, "run", note_run)
    assert measure_accuracy(bundle, held_out).passes
    assert ran <= prepared and {rows for outputs, rows in ran if outputs[0].name == "latent"} == {1}
