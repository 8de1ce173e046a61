from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from perception.runtimes.contract import WEIGHTS
from planner.bundle import Bundle, load_bundle
from planner.contract import Observation
from planner.differentiable import DifferentiableModel
from planner.energy import TimeToGo
from planner.errors import PlannerError
from planner.registry import make_planner
from planner.scoring import PathCost


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return load_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def scene(bundle: Bundle) -> tuple[Observation, np.ndarray, np.ndarray]:
    """An observation, a goal, and five sequences of three model steps."""
    rng = np.random.default_rng(1)
    now, before, goal = rng.standard_normal((3, bundle.info.latent_dim)).astype(np.float32)
    sequences = rng.uniform(-1, 1, (5, 3 * bundle.action.block, bundle.action.dim)).astype(np.float32)
    return Observation(now, before, np.array([0.5, 0.1, 0.025], np.float32), 0), goal, sequences


def test_its_energies_are_those_of_the_graphs_up_to_half_precision(
    bundle: Bundle, scene: tuple[Observation, np.ndarray, np.ndarray]
) -> None:
    observation, goal, sequences = scene
    energies, gradients = DifferentiableModel(bundle).path_energy_and_gradient(*scene)
    model = bundle.world_model()
    of_graphs = PathCost(model, TimeToGo(model), observation, goal)(sequences)
    np.testing.assert_allclose(energies, of_graphs, rtol=1e-2)
    assert gradients.shape == sequences.shape and gradients.dtype == np.float32


def test_its_gradient_is_the_slope_of_the_energies_along_every_direction(
    bundle: Bundle, scene: tuple[Observation, np.ndarray, np.ndarray]
) -> None:
    observation, goal, sequences = scene
    model = DifferentiableModel(bundle)
    _, gradients = model.path_energy_and_gradient(*scene)
    steps = np.random.default_rng(2).standard_normal(sequences.shape).astype(np.float32) * 0.05
    after, before = (
        model.path_energy_and_gradient(observation, goal, sequences + sign * steps)[0] for sign in (1, -1)
    )
    np.testing.assert_allclose((after - before) / 2, (gradients * steps).sum((1, 2)), rtol=0.05, atol=2e-5)


@pytest.mark.parametrize("missing", ("torch", "safetensors"))
def test_without_torch_the_gradient_planner_says_what_to_install(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.delitem(sys.modules, "planner.differentiable")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(PlannerError, match=rf"needs {missing}.*jepa-arm\[train\].*another planner"):
        make_planner("gradient", bundle)
    make_planner("mode2", bundle)


@pytest.mark.parametrize("content", (None, b"not weights"))
def test_missing_or_broken_weights_are_named(bundle: Bundle, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(PlannerError, match=f"{WEIGHTS} cannot be read"):
        DifferentiableModel(replace(bundle, path=tmp_path))


def test_weights_of_another_shape_are_refused(bundle: Bundle, tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_bundle / WEIGHTS, tmp_path)
    other = bundle.info.model_copy(update={"latent_dim": bundle.info.latent_dim + 1})
    with pytest.raises(PlannerError, match="does not hold this release's predictor and energy"):
        DifferentiableModel(Bundle(tmp_path, other))
