"""Jobs give the same results wherever they run, and what a killed worker was at is done by another."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cli
from perception.errors import DatasetError
from sim.errors import SimulationError
from sim.workers import open_workers

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install -e '.[ray]'"
)
# A local Ray takes ten seconds to start where there is nothing else to do.
EVERYWHERE = [
    pytest.param(1, None, id="here"),
    pytest.param(2, None, id="processes"),
    pytest.param(1, "auto", id="ray", marks=[needs_ray, pytest.mark.timeout(400)]),
]
everywhere = pytest.mark.parametrize(("count", "ray"), EVERYWHERE)
in_others = pytest.mark.parametrize(("count", "ray"), EVERYWHERE[1:])


def square(job: int) -> int:
    return job * job


def die_once(job: tuple[str, int]) -> int:
    """Killed in the middle, as by the kernel for want of memory, when it first comes to job 2."""
    folder, number = Path(job[0]), job[1]
    if number == 2 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / f"{number}-{os.getpid()}").touch()
    return number


def die(job: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return job


def refuse(job: int) -> int:
    raise DatasetError(f"job {job} cannot be done")


def results_of(function: Callable[[Any], int], jobs: list[Any], count: int, ray: str | None) -> list[int]:
    with open_workers(count, ray) as workers:
        return sorted(workers.map(function, jobs))


@everywhere
def test_every_job_is_done_once(count: int, ray: str | None) -> None:
    with open_workers(count, ray) as workers:
        assert sorted(workers.map(square, range(7))) == [0, 1, 4, 9, 16, 25, 36]
        assert list(workers.map(square, [])) == []
        with pytest.raises(DatasetError, match="job 3 cannot be done"):
            list(workers.map(refuse, [3]))
        assert sorted(workers.map(square, [5, 6])) == [25, 36], "they can be used again"


@in_others
def test_a_worker_killed_in_the_middle_loses_nothing(count: int, ray: str | None, tmp_path: Path) -> None:
    jobs = [(str(tmp_path), number) for number in range(6)]
    assert results_of(die_once, jobs, count, ray) == [0, 1, 2, 3, 4, 5]
    assert (tmp_path / "died").exists()


@in_others
def test_a_job_that_always_kills_its_worker_ends_with_what_to_do(count: int, ray: str | None) -> None:
    with pytest.raises(SimulationError, match="workers died again and again.* run the same command again"):
        results_of(die, [0], count, ray)


def test_no_workers_are_too_few() -> None:
    with pytest.raises(SimulationError, match="--workers 0: ask for at least one"):
        results_of(square, [1], 0, None)


@needs_ray
def test_an_address_where_no_ray_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SimulationError, match="--ray nowhere: no Ray answers there"):
        results_of(square, [1], 1, "nowhere")


def test_ray_that_is_not_installed_is_named_with_its_extra(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    command = f"eval --task push --planner hold --episodes 1 --bundle {tiny_bundle} --ray auto"
    assert cli.main(command.split()) == 2
    assert "ray is not installed: run `pip install 'jepa-arm[ray]'`" in capsys.readouterr().err


@pytest.fixture(scope="module")
def figures(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """What `jepa-arm eval` writes of six episodes, less what is a matter of time and place."""

    def evaluate(*where: str) -> dict[str, Any]:
        out = tmp_path_factory.mktemp("eval") / "push.json"
        command = (
            f"eval --task push --planner mode1 --episodes 6 --seed 3 --bundle {tiny_bundle} --json {out}"
        )
        assert cli.main([*command.split(), *where]) == 0
        written = json.loads(out.read_text())
        return {name: written[name] for name in written if not name.startswith(("plan_ms", "workers"))}

    return evaluate


@pytest.mark.parametrize(
    "where",
    [
        pytest.param(("--workers", "2"), id="processes"),
        pytest.param(("--ray", "auto"), id="ray", marks=[needs_ray, pytest.mark.timeout(400)]),
    ],
)
def test_eval_comes_to_the_same_figures_wherever_its_episodes_run(
    figures: Callable[..., dict[str, Any]], where: tuple[str, ...]
) -> None:
    alone = figures()
    assert [result["seed"] for result in alone["results"]] == [3_000_000 + n for n in range(6)]
    assert figures(*where) == alone
