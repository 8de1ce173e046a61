from __future__ import annotations

import json
import time

import numpy as np
import pytest

import cli
from benchmarks import cases
from benchmarks.bench import ROUNDS, measure
from benchmarks.cases import Case, all_cases, hardware_cases
from benchmarks.machine import cpu_model
from hardware.robot import load_robot
from hardware.safety.status import SafetyState
from planner.bundle import load_bundle

ROBOT_STEPS = {
    *("preprocess", "encoder", "predictor 1", "predictor 48", "predictor 200", "proposal", "energy"),
    *("plan mode1", "plan mode2", "plan cem", "servo", "gate"),
}
SIMULATOR_STEPS = {"render", "physics", "decision"}


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
    assert report["machine"]["cores"] >= 1 and report["machine"]["cpu"]
    assert report["machine"]["libraries"].keys() >= {"numpy", "onnxruntime"}
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("plan mode2", "median, ms", "p99, ms"))


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
