from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import cli
import sim.evaluate
from planner.bundle import load_bundle
from sim.conditions import PERTURBATIONS
from sim.control import ControlLoop
from sim.pilots import Choice, ScriptedPilot
from sim.protocol import evaluate, run_episode
from sim.results import HOLD_S, TOLERANCE_M
from sim.tasks import TASKS, Episode, make_task, new_episode

LoopFor = Callable[..., ControlLoop]
REQUIRED = {
    "task",
    "episodes",
    "seed",
    "success_rate",
    "wilson_low",
    "wilson_high",
    "held_success_rate",
    "distance_cm_median",
    "plan_ms_p50",
    "plan_ms_p99",
    "planner",
    "bundle",
}


class Still:
    """A pilot that does nothing."""

    def __init__(self, action_dim: int) -> None:
        self.action = np.zeros(action_dim)

    def begin(self, loop: ControlLoop, episode: Episode) -> None:
        pass

    def act(self, loop: ControlLoop) -> Choice:
        return Choice(self.action, energy=2.5, plan_ms=1.5)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("seed", [100, 101, 102])
def test_the_script_that_knows_the_truth_succeeds_and_holds(loop_for: LoopFor, name: str, seed: int) -> None:
    task, loop = make_task(name), loop_for(name)
    result = run_episode(task, loop, new_episode(task, loop, seed), ScriptedPilot(task))
    assert result.success and result.held
    assert len(result.distances_m) <= result.budget_steps
    assert result.final_distance_m <= TOLERANCE_M
    assert max(result.distances_m[-round(HOLD_S * 10) :]) <= TOLERANCE_M


@pytest.mark.parametrize("name", ["reach", "push", "pick-place"])
def test_doing_nothing_uses_up_the_budget_and_gets_nowhere(loop_for: LoopFor, name: str) -> None:
    task, loop = make_task(name), loop_for(name)
    episode = new_episode(task, loop, seed=103)
    result = run_episode(task, loop, episode, Still(task.action_dim))
    assert not result.success and not result.held
    assert (result.seed, result.start_distance_m) == (103, episode.start_distance_m)
    assert len(result.distances_m) == len(result.energies) == result.budget_steps == episode.budget_steps
    assert result.final_distance_m == pytest.approx(episode.start_distance_m, abs=0.005)
    assert set(result.energies) == {2.5} and set(result.plan_ms) == {1.5}


def test_the_hold_baseline_never_succeeds(tiny_bundle: Path) -> None:
    results = list(evaluate("push", "hold", load_bundle(tiny_bundle), [104, 105]))
    assert [result.seed for result in results] == [104, 105]
    assert not any(result.success for result in results)


def test_the_same_seeds_give_the_same_results(tiny_bundle: Path) -> None:
    def run(seeds: list[int]) -> list[float]:
        return [
            list(result.distances_m) for result in evaluate("push", "random", load_bundle(tiny_bundle), seeds)
        ][-1]

    assert run([106]) == run([105, 106]), "whatever episode came before"


@pytest.mark.parametrize("perturbation", ["camera", "friction-mass"])
def test_a_perturbation_is_each_seed_s_own_and_changes_what_it_says(
    tiny_bundle: Path, perturbation: str
) -> None:
    def run(seeds: list[int], name: str) -> list[float]:
        results = list(evaluate("push", "scripted", load_bundle(tiny_bundle), seeds, name))
        return list(results[-1].distances_m)

    found = run([108], perturbation)
    assert run([107, 108], perturbation) == found, "whatever episode came before"
    assert (run([108], "none") == found) == (perturbation == "camera"), "the script does not look"


def test_the_names_that_the_command_offers_are_those_there_are() -> None:
    assert sim.evaluate.TASK_NAMES == tuple(TASKS)
    assert sim.evaluate.PERTURBATION_NAMES == PERTURBATIONS


def evaluate_command(folder: Path, bundle: Path, *more: str) -> list[str]:
    command = ["eval", "--task", "push", "--episodes", "1", "--seed", "3", "--planner", "scripted"]
    return [*command, "--bundle", str(bundle), "--json", str(folder / "out" / "push.json"), *more]


def test_the_command_writes_its_figures(tiny_bundle: Path, tmp_path: Path) -> None:
    assert cli.main(evaluate_command(tmp_path, tiny_bundle)) == 0
    figures = json.loads((tmp_path / "out" / "push.json").read_text())
    assert figures.keys() >= REQUIRED
    assert (figures["task"], figures["episodes"], figures["planner"]) == ("push", 1, "scripted")
    assert (figures["success_rate"], figures["held_success_rate"]) == (1.0, 1.0)
    assert Path(figures["bundle"]).resolve() == tiny_bundle
    (episode,) = figures["results"]
    assert episode["seed"] == 3_000_000 and episode["held"] and episode["final_cm"] <= 3.0


def test_the_command_perturbs_the_scene_and_says_so(tiny_bundle: Path, tmp_path: Path) -> None:
    figures = []
    for more in ((), ("--perturb", "size")):
        assert cli.main(evaluate_command(tmp_path, tiny_bundle, *more)) == 0
        figures.append(json.loads((tmp_path / "out" / "push.json").read_text()))
    assert [found["perturbation"] for found in figures] == ["none", "size"]
    assert figures[0]["results"][0]["start_cm"] != figures[1]["results"][0]["start_cm"]
    assert figures[0]["results"][0]["seed"] == figures[1]["results"][0]["seed"]


def test_the_command_names_the_perturbations_there_are(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(evaluate_command(tmp_path, tiny_bundle, "--perturb", "earthquake"))
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "earthquake" in said and all(name in said for name in PERTURBATIONS)


def test_a_push_bundle_serves_push_far_too(tiny_bundle: Path, tmp_path: Path) -> None:
    assert cli.main(evaluate_command(tmp_path, tiny_bundle, "--task", "push-far")) == 0
    figures = json.loads((tmp_path / "out" / "push.json").read_text())
    assert figures["task"] == "push-far" and figures["results"][0]["start_cm"] >= 19


def test_the_command_refuses_a_bundle_for_another_task(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(evaluate_command(tmp_path, tiny_bundle, "--task", "reach")) == 2
    assert "bundle panda-push was trained for push, not reach" in capsys.readouterr().err


def test_the_command_refuses_a_bundle_whose_actions_are_not_the_task_s(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    shutil.copytree(tiny_bundle, tmp_path / "odd")
    description = tmp_path / "odd" / "bundle.yaml"
    content: dict[str, Any] = yaml.safe_load(description.read_text())
    content["action"]["limit_m"] = 0.05
    description.write_text(yaml.safe_dump(content))
    assert cli.main(evaluate_command(tmp_path, tmp_path / "odd")) == 2
    error = capsys.readouterr().err
    assert "±0.05 m" in error and "±0.02 m" in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--episodes", "0"), "--episodes 0: ask for at least one"),
        (("--seed", "-1"), "seeds are not negative"),
    ],
)
def test_the_command_refuses_what_it_cannot_run(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], says: str
) -> None:
    assert cli.main(evaluate_command(tmp_path, tiny_bundle, *more)) == 2
    assert says in capsys.readouterr().err


def test_the_command_names_a_file_it_cannot_write(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("a file where a folder should be")
    assert cli.main(evaluate_command(tmp_path, tiny_bundle)) == 2
    assert f"cannot write {tmp_path}/out/push.json" in capsys.readouterr().err
