from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import cli
from sim.results import EpisodeResult
from sim.surprise import auroc, largest_surprise, surprise_figures

scores = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=20)


def episode(surprises: list[float], cautions: list[int], **more: Any) -> EpisodeResult:
    return EpisodeResult(0, 0.1, 50, surprises=surprises, cautions=cautions, **more)


@given(scores, scores)
def test_auroc_is_the_chance_that_an_anomaly_scores_higher(
    anomalous: list[float], nominal: list[float]
) -> None:
    found = auroc(anomalous, nominal)
    wins = sum((a > n) + 0.5 * (a == n) for a in anomalous for n in nominal)
    assert found == pytest.approx(wins / len(anomalous) / len(nominal))
    assert found + auroc(nominal, anomalous) == pytest.approx(1.0)


def test_an_episode_is_as_surprising_as_its_worst_moment_from_the_anomaly_on() -> None:
    surprises = [float("nan"), 7.0, 1.0, float("nan"), 3.0]
    assert largest_surprise(episode(surprises, [0] * 5)) == 7.0
    assert largest_surprise(episode(surprises, [0] * 5, anomaly_step=2)) == 3.0
    assert largest_surprise(episode([float("nan")] * 2, [0] * 2)) == 0.0


def test_the_figures_count_levels_and_time_from_the_anomaly() -> None:
    nominal = [episode([1.0, 1.2], [0, 0], success=True), episode([1.0, 1.6], [0, 1])]
    anomalous = [
        episode([9.0, 1.0, 1.5, 4.0], [1, 0, 1, 3], anomaly_step=1, stopped_for="surprise"),
        episode([1.0, 1.0, 1.0, 2.5], [0, 0, 0, 2], anomaly_step=2),
        episode([1.0, 1.1, 0.5], [0, 0, 3], anomaly_step=1, stopped_for="tracking"),
        episode([1.0], [0], anomaly_step=3),
    ]
    figures = surprise_figures(
        [*(("nominal", one) for one in nominal), *(("hand-enters", one) for one in anomalous)]
    )
    assert figures["nominal"]["slow_rate"] == 0.5 and figures["nominal"]["stop_rate"] == 0.0
    assert figures["nominal"]["success_rate"] == 0.5 and figures["nominal"]["surprise_max"] == 1.6
    hand = figures["hand-enters"]
    assert hand["episodes"] == 3, "one ended before its anomaly"
    assert hand["auroc"] == pytest.approx((2 + 2 + 0) / 6)
    assert hand["slow_rate"] == hand["hold_rate"] == pytest.approx(2 / 3)
    assert hand["stop_rate"] == pytest.approx(1 / 3), "the gate's other reasons are no surprise"
    assert hand["delay_s_p50"] == pytest.approx(np.median([0.2, 0.1]))
    assert hand["stop_wilson"][0] < 1 / 3 < hand["stop_wilson"][1]


def test_the_command_measures_every_anomaly_against_nominal(tiny_bundle: Path, tmp_path: Path) -> None:
    out, bundle = tmp_path / "surprise.json", tmp_path / "panda-push"
    shutil.copytree(tiny_bundle, bundle)
    content = yaml.safe_load((bundle / "bundle.yaml").read_text())
    # Four steps of training know nothing: everything would surprise before anything happens.
    content["surprise"] |= {"slow": 1e12, "hold": 1e12, "stop": 1e12}
    (bundle / "bundle.yaml").write_text(yaml.safe_dump(content))
    command = f"eval --task push --suite surprise --planner hold --episodes 1 --bundle {bundle}"
    assert cli.main([*command.split(), "--seed", "9", "--json", str(out)]) == 0
    written = json.loads(out.read_text())
    assert written["task"] == "push" and written["seed"] == 9
    assert len(written["surprise"]) == 8
    assert written["surprise"]["nominal"]["episodes"] == 1
    assert 0.0 <= written["surprise"]["lights-off"]["auroc"] <= 1.0


def test_anomalies_are_not_injected_over_ros(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = f"eval --task push --anomaly lights-off --ros --bundle {tiny_bundle}"
    assert cli.main(command.split()) == 2
    assert "anomalies and suites run in lockstep only: leave out --ros" in capsys.readouterr().err
