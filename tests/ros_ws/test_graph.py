"""Starting and stopping: what is wrong is said before anything moves, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from jepa_arm_bringup.domain import claim_domain
from jepa_arm_bringup.errors import DomainBusy, GraphError
from jepa_arm_bringup.graph import Graph
from jepa_arm_bringup.shared_memory import SHARED_MEMORY

from .conftest import STARTS_WITHIN_S
from .up_command import STOPS_WITHIN_S, StartUp, nodes_in

pytestmark = pytest.mark.ros


def segments() -> set[str]:
    """Those of other processes: this one may still have a port of an earlier test's domain open."""
    own = Path("/proc/self/maps").read_text()
    names = {path.name for path in SHARED_MEMORY.glob("*fastrtps_*")}
    return {name for name in names if name.removeprefix("sem.").removesuffix("_mutex") not in own}


def test_ctrl_c_leaves_no_process_and_no_shared_memory(up: StartUp) -> None:
    before = segments()
    one = up()
    one.wait_for("ready", STARTS_WITHIN_S)
    assert len(nodes_in(one.domain_id)) == 4
    assert segments() - before
    started = time.monotonic()
    assert one.end(signal.SIGINT) == 130, one.output
    assert time.monotonic() - started < STOPS_WITHIN_S
    assert "Traceback" not in one.output
    assert nodes_in(one.domain_id) == []
    assert segments() <= before


def test_nodes_end_with_a_graph_that_is_killed(up: StartUp) -> None:
    one = up()
    one.wait_for("ready", STARTS_WITHIN_S)
    one.end(signal.SIGKILL)
    deadline = time.monotonic() + STOPS_WITHIN_S
    while nodes_in(one.domain_id) and time.monotonic() < deadline:
        os.sched_yield()
    assert nodes_in(one.domain_id) == []


def test_nodes_that_were_started_otherwise_make_a_domain_busy(start_node: Callable[..., object]) -> None:
    domain = claim_domain()
    domain.release()
    start_node("gate_node", domain.number)
    deadline = time.monotonic() + STARTS_WITHIN_S
    while True:
        try:
            claim_domain(domain.number).release()
        except DomainBusy as busy:
            assert "/gate run in it already" in str(busy)
            return
        assert time.monotonic() < deadline, "the gate in this domain was not noticed"


@pytest.mark.parametrize("number", ["-1", "233"])
def test_a_domain_that_does_not_exist_is_refused(number: str) -> None:
    with pytest.raises(GraphError, match="no ROS domain"):
        claim_domain(int(number))


def test_a_wrong_bundle_is_refused_before_anything_starts(up: StartUp, tmp_path: Path) -> None:
    one = up("--bundle", str(tmp_path))
    assert one.wait_for_end(STARTS_WITHIN_S) == 2
    output = one.output
    assert len(output.strip().splitlines()) == 1 and str(tmp_path) in output


def test_a_camera_that_is_not_understood_is_refused_before_anything_starts(up: StartUp) -> None:
    one = up("--camera", "webcam")
    assert one.wait_for_end(STARTS_WITHIN_S) == 2
    assert one.output.strip().splitlines() == [
        "jepa-arm: error: camera webcam is not understood; say realsense[:SERIAL], realsense:FILE.db3, "
        "uvc:DEVICE, file:PATH or module:callable[:SOURCE]"
    ]


def test_a_graph_of_real_devices_comes_up_with_the_camera_it_is_told(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(60):
        cv2.imwrite(str(pictures / f"{i:02}.png"), np.full((480, 640, 3), 99 + i, np.uint8))
    monkeypatch.setenv("RECORDING_ARM_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    settings = {
        "bundle": str(bundle),
        "camera": f"file:{pictures},fps=10",
        "arm": "recording_arm:RecordingArm",
        "runtime": "onnxruntime",
    }
    with Graph(settings, world="real", log_dir=tmp_path) as graph:
        graph.start()
        graph.wait_ready(STARTS_WITHIN_S)
        assert graph.phase("camera") == "active"
    assert f"camera file:{pictures},fps=10: ok" in (tmp_path / "camera.log").read_text()


def test_a_graph_whose_simulator_dies_stops_and_says_so(up: StartUp) -> None:
    one = up()
    one.wait_for("ready", STARTS_WITHIN_S)
    os.kill(process_named("sim_node", one.domain_id), signal.SIGKILL)
    one.wait_for("sim: killed by SIGKILL; it is not started again", STOPS_WITHIN_S)
    assert one.wait_for_end(STOPS_WITHIN_S) == 2
    assert nodes_in(one.domain_id) == []


def process_named(executable: str, domain_id: int) -> int:
    for pid in nodes_in(domain_id):
        if executable in Path(f"/proc/{pid}/cmdline").read_text():
            return pid
    raise AssertionError(f"no {executable} in domain {domain_id}")


def test_a_graph_that_cannot_start_names_the_node_and_the_reason(tmp_path: Path, bundle: Path) -> None:
    settings = {"task": "juggle", "bundle": str(bundle)}
    with Graph(settings, log_dir=tmp_path) as graph:
        graph.start()
        with pytest.raises(GraphError, match="sim did not start: .*no task 'juggle'"):
            graph.wait_ready(STARTS_WITHIN_S)
