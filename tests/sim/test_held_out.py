"""Frames rendered to check a runtime by, and a whole evaluation on another runtime."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cli
from planner.bundle import load_bundle
from planner.held_out import STRETCH_STEPS, STRETCHES
from planner.runtime_options import MEASURING, MOVING
from sim.evaluate import on_requested_runtime
from sim.held_out import render_held_out

PUSH = Path(__file__).parents[2] / "models" / "panda-push"


def test_rendered_frames_are_play_in_scenes_of_their_own() -> None:
    bundle = load_bundle(PUSH)
    held_out = render_held_out(bundle)
    assert held_out.frames.shape == (STRETCHES, STRETCH_STEPS, 64, 64, 3)
    assert held_out.frames.dtype == np.uint8 and np.abs(held_out.blocks).max() <= 1 + 1e-6
    first = held_out.frames[:, 0].reshape(STRETCHES, -1).astype(float)
    assert all(np.abs(first[i] - first[j]).mean() > 1 for i in range(STRETCHES) for j in range(i))
    # The tool does what the actions say, as far as the arm can follow.
    moved = np.diff(held_out.tool[..., :2], axis=1).reshape(-1, 2)
    asked = held_out.blocks.reshape(-1, 2, 2).sum(1) * bundle.action.limit_m
    assert np.corrcoef(moved.ravel(), asked.ravel())[0, 1] > 0.7
    np.testing.assert_array_equal(render_held_out(bundle).frames, held_out.frames)


def test_an_evaluation_runs_on_the_runtime_it_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    command = ["eval", "--task", "push", "--bundle", str(PUSH), "--episodes", "1", "--planner", "mode1"]
    report = tmp_path / "report.json"
    code = cli.main([*command, "--runtime", "openvino:fp32", "--json", str(report)])
    assert code == 0, capsys.readouterr().err
    assert json.loads(report.read_text())["runtime"] == "openvino:fp32"


def test_a_suite_is_not_run_on_a_runtime_it_would_not_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["eval", "--suite", "full", "--runtime", "torch", "--out", str(tmp_path)]) == 2
    assert "--runtime is for a single evaluation: leave it out" in capsys.readouterr().err


def test_a_robot_without_a_simulator_starts_on_the_runtime_that_needs_no_check(tiny_bundle, monkeypatch):
    for module in ("sim.held_out", "sim.play", "sim.control", "sim.world"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "pybullet", None)
    asked = argparse.Namespace(runtime=None, usual_runtime=MEASURING, force_runtime=False)
    assert on_requested_runtime(asked, load_bundle(tiny_bundle)).variant.name == "onnxruntime:fp32"


def test_a_bundle_of_an_arm_that_the_simulator_has_no_cell_for_starts_on_what_needs_no_check(
    tiny_bundle, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundle = load_bundle(tiny_bundle)
    foreign = replace(bundle, info=bundle.info.model_copy(update={"robot": "so101"}))
    asked = argparse.Namespace(runtime=None, usual_runtime=MOVING, force_runtime=False)
    assert on_requested_runtime(asked, foreign).variant.name == "onnxruntime:fp32"
    assert "no simulator here renders some of its arm" in capsys.readouterr().out
