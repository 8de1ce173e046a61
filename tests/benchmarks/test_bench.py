from __future__ import annotations

import json
import time

import numpy as np
import pytest

import cli
from benchmarks import cases, plans, reference
from benchmarks.cases import all_cases, hardware_cases
from benchmarks.machine import cpu_model
from benchmarks.runtimes import PLANS, runtime_cases, times_as_fast
from benchmarks.timing import ROUNDS, Case, measure
from hardware.robot import load_robot
from hardware.safety.status import SafetyState
from planner.bundle import load_bundle
from planner.optimisers.cem import Cem
from planner.planners import Mode2Planner
from planner.registry import make_planner
from sim.evaluate import shipped_bundle

ROBOT_STEPS = {
    *("preprocess", "encoder", "predictor 1", "predictor 48", "predictor 200", "proposal", "energy"),
    *("plan mode1", "plan cem", "plan mode2 far", "plan mode2 near", "plan icem near", "plan mppi near"),
    *("scoring", "servo", "gate"),
}
SIMULATOR_STEPS = {"plan gradient near", "render", "physics", "decision"}


@pytest.fixture
def bundle(tiny_bundle):
    return load_bundle(tiny_bundle)


def test_bench_writes_median_and_p99_of_every_step_with_the_machine_they_are_of(
    tiny_bundle, tmp_path, capsys
):
    file = tmp_path / "out" / "bench.json"
    assert cli.main(["bench", "--bundle", str(tiny_bundle), "--seconds", "0.01", "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    assert report["timings"].keys() == ROBOT_STEPS | SIMULATOR_STEPS
    for name, timing in report["timings"].items():
        assert 0 < timing["median_ms"] <= timing["p99_ms"], name
        assert timing["calls"] >= ROUNDS and timing["what"], name
    assert report["bundle"] == "panda-push" and report["seconds"] == 0.01
    assert report["runtime"] == "onnxruntime:fp32"
    assert report["machine"]["cores"] >= 1 and report["machine"]["cpu"]
    assert report["machine"]["libraries"].keys() >= {"numpy", "onnxruntime"}
    assert report["timings"]["scoring"]["candidate_steps_per_s"] > 0
    plans = {name: timing.get("gflop") for name, timing in report["timings"].items() if "plan" in name}
    assert plans.pop("plan gradient near") is None, "torch is not counted"
    assert 0 < plans["plan mode1"] < plans["plan mode2 near"] < plans["plan cem"]
    assert "reference" not in report
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("plan mode2", "median, ms", "p99, ms", "candidate steps"))


def test_runtimes_are_measured_side_by_side(bundle):
    timings = list(measure(runtime_cases(bundle), seconds=0.01))[-1]
    ratios = times_as_fast(timings)
    on = {"onnxruntime:fp32", "openvino:fp32", "torch:fp32"}
    assert ratios.keys() >= {f"{step} {name}" for step in ("encoder", *PLANS.values()) for name in on}
    assert ratios["encoder onnxruntime:fp32"] == 1.0 and all(ratio > 0 for ratio in ratios.values())
    as_torch = times_as_fast(timings, "torch:fp32")
    assert as_torch.keys() == ratios.keys() and as_torch["encoder torch:fp32"] == 1.0
    rounded = pytest.approx(1 / as_torch["encoder onnxruntime:fp32"], abs=0.006)
    assert ratios["encoder torch:fp32"] == rounded


def test_without_the_simulator_a_robot_still_measures_its_own_steps(bundle, monkeypatch):
    monkeypatch.setattr(cases.importlib.util, "find_spec", lambda name: None)
    assert {case.name for case in all_cases(bundle)} == ROBOT_STEPS


def test_steps_are_measured_in_turns_and_their_preparation_is_not_counted():
    calls: list[str] = []

    def case(name: str, prepare_s: float) -> Case:
        return Case(name, "", lambda: calls.append(name), lambda: wait(prepare_s))

    *_, timings = measure([case("a", 0.004), case("b", 0.0)], seconds=0.02)
    changes = [name for name, before in zip(calls[1:], calls) if name != before]
    assert len(changes) == 2 * ROUNDS + 1  # once in the warm-up, then twice a round
    assert len(timings[0].milliseconds) == ROUNDS  # one call with its preparation fills the slice of 2 ms
    assert np.median(timings[0].milliseconds) < 2


def wait(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def test_the_measured_gate_is_in_motion_and_never_stops(bundle):
    gate_case = next(case for case in hardware_cases(bundle, load_robot("panda")) if case.name == "gate")
    driven = gate_case.run.__self__
    speeds = []
    for _ in range(500):
        gate_case.prepare()
        gate_case.run()
        speeds.append(np.abs(driven.state.velocities).max())
    assert driven.gate.status.state is SafetyState.ACTIVE and driven.gate.status.stops == 0
    assert np.median(speeds) > 0.05


def test_every_step_is_measured_on_the_runtime_asked_for(tiny_bundle, tmp_path, capsys):
    file = tmp_path / "bench.json"
    arguments = ["bench", "--bundle", str(tiny_bundle), "--seconds", "0.01", "--json", str(file)]
    assert cli.main([*arguments, "--runtime", "openvino:fp32", "--force-runtime"]) == 0
    report = json.loads(file.read_text())
    assert report["runtime"] == "openvino:fp32" and "openvino:fp32" in capsys.readouterr().out
    assert report["timings"].keys() == ROBOT_STEPS | SIMULATOR_STEPS
    assert cli.main([*arguments, "--runtime", "openvino", "--models", "bundle"]) == 2
    assert "--models times every runtime that is here" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_seconds_that_make_no_sense_are_refused(tiny_bundle, seconds, capsys):
    assert cli.main(["bench", "--bundle", str(tiny_bundle), f"--seconds={seconds}"]) == 2
    assert "--seconds" in capsys.readouterr().err


def test_a_folder_without_a_bundle_is_refused_by_name(tmp_path, capsys):
    assert cli.main(["bench", "--bundle", str(tmp_path / "nothing")]) == 2
    assert str(tmp_path / "nothing") in capsys.readouterr().err


def test_a_system_that_hides_its_processor_is_named_by_its_architecture(tmp_path):
    import platform

    assert cpu_model(tmp_path / "missing") == platform.machine()
    listed = tmp_path / "cpuinfo"
    listed.write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n")
    assert cpu_model(listed) == "Some CPU @ 2 GHz"


def test_the_scenes_are_what_the_camera_sees_far_from_the_goal_and_near_it():
    """Of the shipped bundle: one that has learned nothing cannot tell the two apart."""
    bundle = load_bundle(shipped_bundle("push"))
    far, near = plans.scenes(bundle)
    assert near.steps < Mode2Planner.trusted_steps < far.steps
    np.testing.assert_array_equal(far.goal, near.goal)
    assert np.abs(far.observation.tool - near.observation.tool).max() > 0.01
    model = bundle.world_model()
    for scene in (far, near):
        assert model.steps_from(scene.observation, scene.goal) == pytest.approx(scene.steps)


def test_the_work_of_a_plan_is_counted_by_the_rows_that_go_through_each_graph(bundle):
    """Mode-1 judges one latent and proposes one block: two graphs, one row each."""
    scene = plans.Scene("drawn", *plans.drawn(bundle)[0], 0.0)
    planner = make_planner("mode1", bundle)
    planner.begin(scene.goal)
    each = plans.flops_per_row(bundle)
    assert plans.count_work(bundle, planner, scene) == (1, each["proposal"] + each["energy"])
    dim = bundle.info.latent_dim
    first_layer, between, last_layer = 2 * (3 * dim + 3) * 512, 2 * 2 * 512 * 512, 2 * 512 * 22
    assert each["energy"] == first_layer + between + last_layer
    planner.plan(scene.observation)
    assert plans.count_work(bundle, planner, scene)[1] == each["proposal"] + each["energy"], "and not twice"


def test_the_reference_has_the_published_size_and_is_compared_with_our_plans(
    tiny_bundle, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(reference, "SEARCH", Cem(samples=4, iterations=2, elites=2, std=1.0))
    ours = Case("plan mode2 near", "", lambda: wait(1e-4))
    monkeypatch.setattr(cases, "all_cases", lambda bundle: [ours, Case("gate", "", lambda: None)])
    file = tmp_path / "bench.json"
    command = ["bench", "--bundle", str(tiny_bundle), "--seconds", "0.01", "--reference", "--json", str(file)]
    assert cli.main(command) == 0
    report = json.loads(file.read_text())
    figures = report["reference"]
    assert figures["parameters"] == pytest.approx(10.8e6, rel=0.01)
    median_ms = report["timings"]["plan mode2 near"]["median_ms"]
    assert list(figures["times_ours"]) == ["plan mode2 near"]
    times = figures["plan_s"] * 1e3 / median_ms  # both figures are rounded
    assert figures["times_ours"]["plan mode2 near"] == pytest.approx(times, rel=0.05)
    assert 0 < figures["iteration_s"] < figures["plan_s"]
    assert "times faster" in capsys.readouterr().out


def test_the_reference_does_not_look_ahead():
    """Its attention is causal: what comes after a step has no part in it."""
    torch = reference.torch
    layer = reference.Layer().eval()
    tokens, actions = torch.randn(2, 3, reference.WIDTH), torch.randn(2, 3, reference.WIDTH)
    changed = tokens.clone()
    changed[:, 2] += 1.0
    before, after = layer(tokens, actions), layer(changed, actions)
    torch.testing.assert_close(before[:, :2], after[:, :2])
    assert (before[:, 2] - after[:, 2]).abs().max() > 1e-3


def test_without_torch_the_reference_says_what_to_install(tiny_bundle, monkeypatch, capsys):
    import sys

    monkeypatch.delitem(sys.modules, "benchmarks.reference")
    monkeypatch.setitem(sys.modules, "torch", None)
    command = ["bench", "--bundle", str(tiny_bundle), "--seconds", "0.01", "--reference"]
    monkeypatch.setattr(cases, "all_cases", lambda bundle: [Case("nothing", "", lambda: None)])
    assert cli.main(command) == 2
    assert "--reference needs torch" in capsys.readouterr().err
