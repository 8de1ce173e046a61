from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cli
from planner.bundle import DESCRIPTION, load_bundle
from sim import protocol, suite
from sim.evaluate import shipped_bundle
from sim.failures import Failure
from sim.open_loop import HORIZON, open_loop_errors
from sim.protocol import evaluate
from sim.results import EpisodeResult
from sim.suite_cells import Cell, CellLog, cells_of
from sim.suite_figures import spearman
from sim.suite_films import choose_scenes, film
from sim.tasks import TASKS, make_task

PUSH = shipped_bundle("push")
STEPS = 12


def episode(seed: int, held: bool = True, **more) -> EpisodeResult:
    """One whose energy follows its distance."""
    # To and fro on the way, so that its energy one step off follows it no more.
    sway = 0.02 * (-1.0) ** np.arange(STEPS)
    distances = (np.linspace(0.1, 0.03, STEPS) + sway if held else np.full(STEPS, 0.1)).tolist()
    return EpisodeResult(
        seed, 0.1, STEPS, held, held, distances, [[0.4, 0.0, 0.03, 0.0]] * STEPS,
        energies=[math.nan, *(100 * np.array(distances[:-1]))], plan_ms=[4.0] * STEPS, **more,
    )  # fmt: skip


class Ran(list):
    """What was run, by cell and seed. With `cut_after`, the run is cut when so many episodes are finished."""

    cut_after = math.inf


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ran:
    """The suite without its simulator: mode2 holds, others fail. Only push has a bundle."""
    episodes = Ran()

    def run_episode(task, loop, drawn, planner) -> EpisodeResult:
        seed, perturbation = drawn
        if len(episodes) == episodes.cut_after:
            raise KeyboardInterrupt
        episodes.append((f"{task.name}.{planner}.{perturbation}", seed))
        return episode(seed, held=planner == "mode2")

    nothing = SimpleNamespace(world=SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(protocol, "make_loop", lambda *_: nothing)
    monkeypatch.setattr(protocol, "make_pilot", lambda planner, *_: planner)
    monkeypatch.setattr(protocol, "episode_conditions", lambda seed, perturbation: perturbation)
    monkeypatch.setattr(protocol, "new_episode", lambda task, loop, seed, perturbation: (seed, perturbation))
    monkeypatch.setattr(protocol, "run_episode", run_episode)
    models = tmp_path / "models"
    shutil.copytree(PUSH, models / "panda-push")
    errors = SimpleNamespace(
        rollouts=3,
        relative=np.full(HORIZON, 0.1),
        predicted=np.ones(HORIZON),
        standing_still=np.ones(HORIZON),
    )
    monkeypatch.setattr(suite, "shipped_bundle", lambda trained_as: models / f"panda-{trained_as}")
    monkeypatch.setattr(suite, "open_loop_errors", lambda task, bundle: errors)
    monkeypatch.setattr(
        suite, "film_card", lambda folder, scene, bundle: f"<article>{scene.cell.row} {scene.seed}</article>"
    )
    return episodes


@pytest.fixture
def full(tmp_path: Path) -> Callable[..., int]:
    """Runs `eval --suite full` with options into a folder, `tmp_path/out`; gives its exit code."""

    def run(*options: str) -> int:
        return cli.main(["eval", "--suite", "full", "--out", str(tmp_path / "out"), *options])

    return run


def figures(folder: Path) -> dict:
    return json.loads((folder / "out" / "results.json").read_text())


def test_every_planner_is_measured_in_the_nominal_scene_and_mode2_under_each_perturbation():
    names = [cell.name for cell in cells_of(make_task("push"), ("hold", "mode2"), ("none", "camera", "size"))]
    assert names == ["push.hold.none", "push.mode2.none", "push.mode2.camera", "push.mode2.size"]


def test_a_task_without_an_object_is_not_measured_under_what_only_an_object_feels():
    cells = cells_of(make_task("reach"), ("mode2",), ("camera", "size", "friction-mass", "all"))
    assert [cell.perturbation for cell in cells] == ["none", "camera", "all"]


def test_a_run_writes_figures_and_page(ran, full, tmp_path):
    assert full("--tasks", "push", "--planners", "hold,mode2", "--perturb", "light", "--episodes", "3") == 0
    written = figures(tmp_path)
    rates = {(cell["planner"], cell["perturbation"]): cell["held_success_rate"] for cell in written["cells"]}
    assert rates == {("hold", "none"): 0.0, ("mode2", "none"): 1.0, ("mode2", "light"): 1.0}
    assert written["cells"][0]["failures"] == {Failure.NEVER_MOVED.value: 3}
    assert written["energy_distance"]["push"] == {"spearman": pytest.approx(1.0), "steps": 6 * (STEPS - 1)}
    assert written["open_loop"]["push"]["relative"] == [0.1] * HORIZON
    assert written["open_loop"]["push"]["horizon_s"][:2] == [0.2, 0.4]
    page = (tmp_path / "out" / "report.html").read_text()
    for words in ("mode2, light", "100 %", "44–100", "3 never moved the object", "Spearman 1.00"):
        assert words in page
    assert page.count("<article>mode2") == 2


def test_the_page_fetches_nothing_and_its_charts_are_whole(ran, full, tmp_path):
    assert full("--episodes", "2") == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert [a for a in re.findall(r'(?:src|href)="([^"]*)"', page) if not a.startswith(("#", "data:"))] == []
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(charts) == 4  # plan time, open loop, and the energies of push and push-far
    for chart in charts:
        ElementTree.fromstring(chart)
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers))


def test_tasks_without_a_bundle_are_told_with_the_commands_that_make_it(ran, full, tmp_path):
    assert full("--episodes", "1", "--planners", "hold") == 0
    missing = figures(tmp_path)["missing"]
    assert set(missing) == set(TASKS) - {"push", "push-far"}
    assert missing["reach"][1].endswith("--config perception/jepa/recipes/reach.yaml")
    page = (tmp_path / "out" / "report.html").read_text()
    for command in missing["pick-place"]:
        assert command in page
        arguments = command.split()[1:]
        cli.make_parser(arguments).parse_args(arguments)


def test_the_same_command_goes_on_where_it_was_cut(ran, full):
    command = ("--tasks", "push", "--planners", "hold,mode1", "--episodes", "3", "--seed", "4")
    ran.cut_after = 2
    assert full(*command) == 130
    assert ran == [("push.hold.none", 4_000_000), ("push.hold.none", 4_000_001)]
    ran.clear()
    ran.cut_after = math.inf
    assert full(*command) == 0
    assert ran == [("push.hold.none", 4_000_002), *(("push.mode1.none", 4_000_000 + i) for i in range(3))]
    ran.clear()
    assert full(*command) == 0
    assert ran == []


def test_figures_are_of_the_episodes_asked_for_only(ran, full, tmp_path):
    assert full("--tasks", "push", "--planners", "hold", "--episodes", "3") == 0
    assert full("--tasks", "push", "--planners", "hold", "--episodes", "2") == 0
    assert figures(tmp_path)["cells"][0]["episodes"] == 2


def test_a_changed_bundle_is_refused_by_name_and_nothing_is_run(ran, full, tmp_path, capsys):
    command = ("--tasks", "push", "--planners", "hold", "--episodes", "1")
    assert full(*command) == 0
    ran.clear()
    with (tmp_path / "models" / "panda-push" / DESCRIPTION).open("a") as description:
        description.write("# trained again\n")
    assert full(*command) == 2
    assert ran == []
    assert "push.hold.none holds episodes of bundle panda-push (sha256" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--task", "push"), "--task does not go with --suite full"),
        (("--planner", "mode1"), "--planners mode1"),
        (("--planners", "mode1", "--perturb", "camera"), "add it to --planners"),
        (("--tasks", "reach", "--bundle", str(PUSH)), "serves none of --tasks"),
        (("--episodes", "0"), "at least one"),
        (("--ros",), "lockstep"),
    ],
)
def test_what_cannot_be_run_is_refused(ran, full, capsys, options, words):
    assert full(*options) == 2
    assert words in capsys.readouterr().err
    assert ran == []


def test_the_surprise_suite_beside_it_is_shown_too(ran, full, tmp_path):
    row = {"episodes": 8, "slow_rate": 0.9, "hold_rate": 0.8, "stop_rate": 0.7, "auroc": 0.987}
    (tmp_path / "out").mkdir()
    content = {"task": "push", "planner": "mode2", "surprise": {"lights-off": row}}
    (tmp_path / "out" / "surprise-push.json").write_text(json.dumps(content))
    assert full("--tasks", "push", "--planners", "hold", "--episodes", "1") == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "lights-off" in page and "0.987" in page and "70 %" in page


def test_episodes_are_kept_as_they_were(tmp_path):
    bundle = load_bundle(PUSH)
    kept = episode(
        5, surprises=[math.nan, 0.25], cautions=[0, 3], stopped_for="surprise", dropped=["", "one"]
    )
    CellLog(tmp_path, bundle).append(kept)
    read = CellLog(tmp_path, bundle).results[5]
    for name, value in vars(kept).items():
        if isinstance(value, list) and value and isinstance(value[0], (float, list)):
            np.testing.assert_allclose(getattr(read, name), value, atol=1e-5)
        else:
            assert getattr(read, name) == value


def test_an_episode_that_was_cut_within_its_line_is_run_again(tmp_path):
    bundle = load_bundle(PUSH)
    log = CellLog(tmp_path, bundle)
    for seed in (1, 2):
        log.append(episode(seed))
    lines = (tmp_path / "episodes.jsonl").read_bytes()
    (tmp_path / "episodes.jsonl").write_bytes(lines[:-30])
    log = CellLog(tmp_path, bundle)
    assert set(log.results) == {1}
    log.append(episode(3))
    assert set(CellLog(tmp_path, bundle).results) == {1, 3}


def test_films_are_of_all_kinds_of_failure_and_mode2_comes_first():
    cells = {
        Cell("push", "hold", "none"): [episode(i, held=False) for i in range(9)],
        Cell("push", "mode1", "none"): [episode(i, held=False) for i in range(9)],
        Cell("push", "mode2", "camera"): [episode(i, held=False, stopped_for="surprise") for i in range(9)],
        Cell("push", "mode2", "none"): [
            *(episode(i, held=False) for i in range(3)),
            *(episode(i) for i in range(3, 9)),
        ],
    }
    scenes = choose_scenes(cells)
    kinds = [scene.kind for scene in scenes]
    assert kinds == [Failure.STOPPED] * 5 + [Failure.NEVER_MOVED] * 5 + [None] * 2
    unmoved = [(scene.cell.planner, scene.seed) for scene in scenes if scene.kind is Failure.NEVER_MOVED]
    assert unmoved == [("mode2", 0), ("mode2", 1), ("mode2", 2), ("mode1", 0), ("mode1", 1)]


def test_a_film_shows_the_episode_that_was_measured():
    bundle = load_bundle(PUSH)
    cell, seed = Cell("push", "mode1", "camera"), 9_000_001
    # In a world of its own the film must come out as the second episode of a row did.
    measured = list(evaluate("push", "mode1", bundle, [seed - 1, seed], "camera"))[1]
    record = film(cell, bundle, seed)
    np.testing.assert_allclose(record.distances_m, measured.distances_m, atol=1e-6)
    assert (record.success, record.held) == (measured.success, measured.held)
    assert len(record.frames) == len(measured.distances_m) + bundle.action.block
    assert len(np.unique(record.frames[:, ::8, ::8].reshape(len(record.frames), -1), axis=0)) > 10


class Clock:
    """An encoder whose latents count its pictures, and a model that knows that they do."""

    spec = SimpleNamespace(image_size=64)
    count = 0

    def encode(self, images):
        self.count += 1
        return np.array([[self.count, 0.0]], np.float32)

    def normalise(self, tool):
        return tool

    def rollout(self, state, actions):
        assert actions.shape == (len(state.latent), HORIZON, 4) and np.abs(actions).max() <= 1.0 + 1e-6
        np.testing.assert_array_equal(state.latent - state.previous, [[1, 0]] * len(state.latent))
        later = state.latent[:, None] + np.arange(1, HORIZON + 1)[:, None] * np.array([1, 0])
        return SimpleNamespace(latents=later)


def test_imagined_latents_are_compared_with_those_of_their_time():
    clock = Clock()
    bundle = SimpleNamespace(
        robot="panda", action=load_bundle(PUSH).action, encoder=lambda: clock, world_model=lambda: clock
    )
    errors = open_loop_errors(make_task("push"), bundle, episodes=1)
    np.testing.assert_allclose(errors.predicted, 0.0, atol=1e-9)
    np.testing.assert_allclose(errors.standing_still, np.arange(1, HORIZON + 1) ** 2 / 2)
    np.testing.assert_allclose(errors.relative, 0.0, atol=1e-9)


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=30, unique=True))
def test_what_goes_up_with_another_has_rank_correlation_one(values):
    assert spearman(values, np.exp(np.array(values) / 20)) == pytest.approx(1.0)
    assert spearman(values, -np.array(values)) == pytest.approx(-1.0)


def test_ties_share_their_rank():
    # Ranks 1, 2.5, 2.5, 4.
    assert spearman([1, 2, 3, 4], [1, 2, 2, 3]) == pytest.approx(4.5 / np.sqrt(5 * 4.5))


@pytest.mark.parametrize("values", [[], [3.0], [2.0, 2.0, 2.0]])
def test_what_does_not_vary_correlates_with_nothing(values):
    assert spearman(values, range(len(values))) is None
