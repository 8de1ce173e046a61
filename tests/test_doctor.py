from __future__ import annotations

import argparse
import fcntl
import importlib.machinery
import json
import sys
from pathlib import Path

import pytest

import doctor


@pytest.fixture
def checks(monkeypatch):
    """Let doctor find exactly this."""

    def install(*findings):
        monkeypatch.setattr(doctor, "CHECKS", (("a check", lambda: iter(findings)),))

    return install


def arguments(json=None):
    return argparse.Namespace(json=json)


def test_this_machine_has_nothing_broken(tmp_path, capsys):
    report = tmp_path / "report" / "doctor.json"
    code = doctor.run(arguments(report))
    findings = json.loads(report.read_text())["findings"]
    assert [finding for finding in findings if finding["status"] == "broken"] == []
    assert code == 0
    names = {finding["name"] for finding in findings}
    assert {"Python", "runtime onnxruntime", "ROS 2", "ROS interfaces", "import names", "disk"} <= names
    shown = capsys.readouterr().out
    assert all(name in shown for name in names)


def test_every_runtime_is_listed_with_its_state(monkeypatch):
    from perception.runtimes import registry
    from perception.runtimes.contract import Variant

    missing = "OpenVINO is not installed: pip install 'jepa-arm[openvino]'"
    there = registry.Offer("onnxruntime", (Variant("onnxruntime", "fp32", "onnxruntime 1.30"),))
    listed = (there, registry.Offer("openvino", (), missing))
    monkeypatch.setattr(registry, "offers", lambda: listed)
    assert list(doctor.runtimes()) == [
        doctor.Finding("runtime onnxruntime", "ok", "onnxruntime 1.30: fp32"),
        doctor.Finding(
            "runtime openvino", "optional", "OpenVINO is not installed", "pip install 'jepa-arm[openvino]'"
        ),
    ]


def test_a_broken_part_is_exit_code_1_and_shown_with_its_mend(checks, capsys, tmp_path):
    checks(doctor.Finding("widget", "broken", "is bent", "straighten it"))
    assert doctor.run(arguments(tmp_path / "d.json")) == 1
    shown = capsys.readouterr().out
    assert "widget" in shown and "is bent" in shown and "straighten it" in shown
    assert json.loads((tmp_path / "d.json").read_text())["ok"] is False


def test_an_optional_part_that_is_not_there_is_exit_code_0(checks):
    checks(doctor.Finding("extra", "optional", "none", "pip install extra"))
    assert doctor.run(arguments()) == 0


def test_a_check_that_falls_over_is_a_finding_and_the_others_still_run(monkeypatch):
    def falls_over():
        raise RuntimeError("no such symbol")
        yield

    healthy = doctor.Finding("healthy", "ok", "yes")
    monkeypatch.setattr(doctor, "CHECKS", (("library", falls_over), ("healthy", lambda: iter([healthy]))))
    broken, fine = doctor.examine()
    assert (broken.name, broken.status) == ("library", "broken")
    assert "no such symbol" in broken.found
    assert fine == healthy


def test_a_package_that_shadows_one_of_our_import_names_is_named(monkeypatch, tmp_path):
    foreign = tmp_path / "site-packages" / "planner" / "__init__.py"
    foreign.parent.mkdir(parents=True)
    foreign.touch()
    find_spec = doctor.importlib.util.find_spec
    spec = importlib.machinery.ModuleSpec("planner", None, origin=str(foreign))
    monkeypatch.setattr(
        doctor.importlib.util, "find_spec", lambda name: spec if name == "planner" else find_spec(name)
    )
    monkeypatch.setattr(
        doctor.importlib.metadata, "packages_distributions", lambda: {"planner": ["trip-planner", "jepa-arm"]}
    )
    (finding,) = doctor.shadowed_imports()
    assert (finding.name, finding.status) == ("import planner", "broken")
    assert str(foreign) in finding.found
    assert finding.mend == "pip uninstall trip-planner"


def test_a_shadow_inside_our_own_virtual_environment_is_noticed(monkeypatch):
    foreign = Path(sys.prefix) / "lib" / "planner" / "__init__.py"
    monkeypatch.setattr(doctor, "PROJECT", Path(sys.prefix).parent)
    monkeypatch.setattr(doctor, "OUR_MODULES", ("planner",))
    spec = importlib.machinery.ModuleSpec("planner", None, origin=str(foreign))
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: spec)
    (finding,) = doctor.shadowed_imports()
    assert finding.status == "broken"


def test_a_bundle_that_does_not_load_is_broken_with_its_reason(monkeypatch, tmp_path):
    folder = tmp_path / "models" / "panda-push"
    folder.mkdir(parents=True)
    (folder / "bundle.yaml").write_text("schema: [unclosed")
    monkeypatch.setattr(doctor, "PROJECT", tmp_path)
    (finding,) = doctor.models()
    assert (finding.name, finding.status) == ("model panda-push", "broken")
    assert "git checkout models/panda-push" in finding.mend


def test_segments_of_dead_processes_are_told_from_those_of_living_ones(tmp_path):
    for name in (
        "fastrtps_dead",
        "fastrtps_dead_el",
        "fastrtps_living",
        "fastrtps_living_el",
        "lttng-ust-wait-6",
    ):
        (tmp_path / name).write_bytes(b"x")
    with open(tmp_path / "fastrtps_living_el") as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        dead = doctor.dead_segments(tmp_path)
    assert [path.name for path in dead] == ["fastrtps_dead_el", "fastrtps_dead"]


def test_a_small_shared_memory_is_broken_with_the_docker_option(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(doctor, "SHARED_MEMORY_NEEDED_MB", 10**9)
    (finding,) = doctor.shared_memory()
    assert finding.status == "broken" and "--shm-size" in finding.mend


def test_a_realsense_library_that_does_not_load_says_what_to_install(monkeypatch):
    from hardware.camera import realsense
    from hardware.errors import CameraError

    def connected():
        raise CameraError(
            "pyrealsense2 cannot be loaded (libusb-1.0.so.0): run `sudo apt-get install libusb`"
        )

    monkeypatch.setattr(realsense, "connected", connected)
    finding = list(doctor.cameras())[-1]
    assert (finding.name, finding.status) == ("RealSense", "optional")
    assert finding.mend == "`sudo apt-get install libusb`"


def test_a_camera_without_permission_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(doctor.Path, "glob", lambda self, pattern: [Path("/dev/video0")])
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    finding = next(doctor.cameras())
    assert "/dev/video0" in finding.found and "usermod -aG video" in finding.mend
