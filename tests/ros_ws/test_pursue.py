"""`jepa-arm snapshot` and `jepa-arm pursue`, as a user types them at the simulator's graph."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from jepa_arm_bringup.graph import Graph
from jepa_arm_interfaces.msg import SafetyStatus
from sensor_msgs.msg import Image

import cli

from .conftest import ANSWERS_WITHIN_S, REST_RAD_S, Operator
from .hurried import hurried
from .up_command import ROOT

pytestmark = pytest.mark.ros

ENDS_WITHIN_S = 60.0
INTERRUPTED = 130
# The planner reaches its goal in most scenes, not in each; and a pause of this machine makes the gate stop.
TRIED_SCENES = (21, 22, 23, 24, 25, 26)
HURRIED = ("sim_node", "encoder_node", "planner_node", "gate_node")
# Grey levels, of 255: the simulated camera has noise.
NOISE = 4.0
Pursue = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def running_graph(start_graph: Callable[..., Graph]) -> Iterator[Graph]:
    """Of the reflex alone, which asks little of a busy machine."""
    with hurried(HURRIED):
        graph = start_graph(planner="mode1")
        yield graph
        graph.stop()


@pytest.fixture
def pursue(running_graph: Graph) -> Iterator[Pursue]:
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-m",
            "cli",
            "pursue",
            "--domain-id",
            str(running_graph.domain_id),
            *arguments,
        ]
        started.append(
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def ended(process: subprocess.Popen[str], operator: Operator) -> str:
    """All that the command printed; the operator goes on listening meanwhile."""
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.append(process.communicate()[0]))
    reader.start()
    assert operator.spin_until(lambda: not reader.is_alive(), ENDS_WITHIN_S), "pursue does not end"
    return said[0]


def saved(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def pixels(image: Image) -> np.ndarray:
    return np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3)


def goal_of_scene(graph: Graph, seed: int, path: Path) -> Path:
    domain = str(graph.domain_id)
    assert cli.main(["snapshot", str(path), "--new-scene", str(seed), "--domain-id", domain]) == 0
    return path


def test_a_snapshot_of_the_goal_is_pursued_until_it_is_reached(
    running_graph: Graph,
    operator: Operator,
    pursue: Pursue,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    said = ""
    for seed in TRIED_SCENES:
        goal = goal_of_scene(running_graph, seed, tmp_path / "goal.png")
        assert f"wrote {goal}, 128x128; pursue it with: jepa-arm pursue {goal}" in capfd.readouterr().out
        process = pursue(str(goal), "--timeout", "15")
        said += ended(process, operator)
        if process.returncode == 0:
            break
        assert process.returncode == 1, said
    assert process.returncode == 0, said
    assert "steps to go" in said and "the gate is" in said
    assert "reached the goal after" in said.splitlines()[-1]


def test_a_picture_is_saved_as_it_is(running_graph: Graph, operator: Operator, tmp_path: Path) -> None:
    now = tmp_path / "folder" / "now.png"
    assert cli.main(["snapshot", str(now), "--domain-id", str(running_graph.domain_id)]) == 0
    seen, goal = saved(now), saved(goal_of_scene(running_graph, 1, tmp_path / "goal.png"))
    scene = operator.reset_scene(1)  # which stood there when it was seen
    assert np.array_equal(goal, pixels(scene.goal_image))
    assert np.abs(seen.astype(int) - pixels(scene.start_image)).mean() < NOISE
    assert not np.array_equal(seen, goal)


def test_ctrl_c_cancels_the_goal_and_the_arm_rests_without_a_fault(
    running_graph: Graph, operator: Operator, pursue: Pursue, tmp_path: Path
) -> None:
    goal = goal_of_scene(running_graph, 2, tmp_path / "goal.png")
    process = pursue(str(goal), "--timeout", "0")
    operator.wait_until_moving()
    process.send_signal(signal.SIGINT)
    said = ended(process, operator)
    assert process.returncode == INTERRUPTED, said
    assert "cancel" in said.splitlines()[-1] and "Traceback" not in said
    assert operator.spin_until(lambda: operator.speed < REST_RAD_S, ANSWERS_WITHIN_S)
    assert operator.safety is not None and operator.safety.state == SafetyStatus.IDLE, operator.safety.text


def test_a_gate_that_stops_ends_the_pursuit_with_its_reason(
    running_graph: Graph, operator: Operator, pursue: Pursue, tmp_path: Path
) -> None:
    goal = goal_of_scene(running_graph, 3, tmp_path / "goal.png")
    process = pursue(str(goal))
    operator.wait_until_moving()
    operator.stop()
    said = ended(process, operator)
    assert process.returncode == 1, said
    assert "the gate has stopped the arm: " in said.splitlines()[-1] and "operator" in said.splitlines()[-1]

    again = pursue(str(goal))
    said = ended(again, operator)
    assert again.returncode == 1 and said.startswith("the gate has stopped the arm: "), said


def test_a_goal_that_is_not_reached_in_time_ends_with_1(
    running_graph: Graph, operator: Operator, pursue: Pursue, tmp_path: Path
) -> None:
    goal = goal_of_scene(running_graph, 4, tmp_path / "goal.png")
    process = pursue(str(goal), "--timeout", "0.3")
    said = ended(process, operator)
    assert process.returncode == 1 and "not reached within 0.3 s" in said.splitlines()[-1], said


def test_a_picture_of_another_size_is_named(
    running_graph: Graph, operator: Operator, pursue: Pursue, tmp_path: Path
) -> None:
    path = tmp_path / "small.png"
    cv2.imwrite(str(path), np.zeros((48, 64, 3), np.uint8))
    process = pursue(str(path))
    said = ended(process, operator)
    assert process.returncode == 2
    assert f"{path}: goal image is 64x48, the camera's are 128x128" in said


def test_what_cannot_be_a_goal_is_told_before_anyone_is_asked(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words, empty = tmp_path / "goal.txt", tmp_path / "empty.png"
    words.write_text("put the cube there")
    empty.touch()
    told = {
        ("pursue", str(words)): f"{words}: not a picture",
        ("pursue", str(empty)): f"{empty}: not a picture",
        ("pursue", str(tmp_path / "none.png")): "none.png: No such file",
        ("pursue", str(words), "--timeout", "nan"): "--timeout nan: seconds, 0 or more",
        (
            "snapshot",
            str(tmp_path / "goal.jpg"),
        ): "goal.jpg: goal pictures are kept without loss: name a .png",
    }
    for arguments, expected in told.items():
        assert cli.main(arguments) == 2
        assert expected in capfd.readouterr().err


def test_where_no_graph_runs_both_say_so(
    own_domain: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("jepa_arm_ros.graph_client.ANSWER_TIMEOUT_S", 1.0)
    path = tmp_path / "goal.png"
    cv2.imwrite(str(path), np.zeros((128, 128, 3), np.uint8))
    for command, missing in (("pursue", "safety gate"), ("snapshot", "picture")):
        assert cli.main([command, str(path), "--domain-id", str(own_domain)]) == 2
        said = capfd.readouterr().err
        assert f"in ROS domain {own_domain}" in said and f"no {missing}" in said


def test_a_scene_is_set_in_no_real_graph(
    own_domain: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("jepa_arm_bringup.snapshot.SIMULATOR_WITHIN_S", 0.5)
    command = ["snapshot", str(tmp_path / "goal.png"), "--new-scene", "1", "--domain-id", str(own_domain)]
    assert cli.main(command) == 2
    assert f"there is no simulator in ROS domain {own_domain}" in capfd.readouterr().err
