from __future__ import annotations

import importlib.util
import os
import platform
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def script(monkeypatch):
    """scripts/setup.py as a module, as if no ROS were sourced."""
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "scripts" / "setup.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "setup_script", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def setup(script, tmp_path):
    """Three steps, of which the second depends on source.txt; `ran` names those that `setup.run()` ran."""

    class Setup:
        source = tmp_path / "source.txt"
        log = tmp_path / "setup.log"
        ran: list[str] = []
        broken = ""
        interrupted = ""

        def run(self) -> int:
            self.ran = []
            steps = [
                script.Step("first", lambda log: self.step("first", log)),
                script.Step("second", lambda log: self.step("second", log), files=("*.txt",)),
                script.Step("third", lambda log: self.step("third", log)),
            ]
            return script.run_steps(steps, stamps=tmp_path / "stamps", log_path=self.log, root=tmp_path)

        def step(self, name, log):
            self.ran.append(name)
            if name == self.interrupted:
                raise KeyboardInterrupt
            if name == self.broken:
                script.run([sys.executable, "-c", "for i in range(50): print('line', i)\nexit(3)"], log)

    Setup.source.write_text("one")
    return Setup()


def test_a_second_set_up_does_nothing(setup):
    assert setup.run() == 0
    assert setup.ran == ["first", "second", "third"]
    assert setup.run() == 0
    assert setup.ran == []


def test_a_changed_file_runs_its_step_and_those_after_it_again(setup):
    setup.run()
    setup.source.write_text("two")
    setup.run()
    assert setup.ran == ["second", "third"]


@pytest.mark.parametrize("accident", ["broken", "interrupted"])
def test_a_set_up_that_was_cut_short_goes_on_at_the_step_that_did_not_finish(setup, accident):
    setattr(setup, accident, "second")
    assert setup.run() == {"broken": 1, "interrupted": 130}[accident]
    setattr(setup, accident, "")
    assert setup.run() == 0
    assert setup.ran == ["second", "third"]


def test_a_step_that_was_cut_short_runs_again_even_if_its_files_changed_back(setup):
    setup.run()
    setup.source.write_text("two")
    setup.interrupted = "second"
    setup.run()
    setup.source.write_text("one")
    setup.interrupted = ""
    setup.run()
    assert setup.ran[0] == "second"


def test_a_failure_shows_the_end_of_the_log_and_what_to_do(setup, capsys):
    setup.broken = "third"
    setup.run()
    shown = capsys.readouterr().err
    assert "The step 'third' failed" in shown
    assert str(setup.log) in shown
    assert "| line 49" in shown and "| line 29" not in shown
    assert "run `make setup` again" in shown


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("NewConnectionError: Temporary failure in name resolution", "network or the proxy"),
        ("ERROR: No matching distribution found for torch==2.13.0", "no such package for Python"),
    ],
)
def test_known_failures_have_advice_of_their_own(script, log, words):
    assert words in script.advice([log])


def test_all_missing_system_packages_are_named_in_one_apt_line(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        script.importlib.util, "find_spec", lambda name: name != "ensurepip" and find_spec(name)
    )
    python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    apt_lines = [line for line in script.system_problems(path=str(tmp_path)) if "apt-get" in line]
    assert len(apt_lines) == 1
    assert apt_lines[0].endswith(f"sudo apt-get install -y make g++ {python}-venv {python}-dev")


def test_only_what_is_missing_is_named(script, tmp_path):
    for program in ("make", "g++"):
        (tmp_path / program).symlink_to("/bin/true")
    assert script.missing_packages(str(tmp_path)) == []
    (tmp_path / "g++").unlink()
    assert script.missing_packages(str(tmp_path)) == ["g++"]


def test_a_missing_libusb_is_a_note_and_keeps_nobody_from_setting_up(script, monkeypatch):
    monkeypatch.setattr(script.ctypes.util, "find_library", lambda name: None)
    (note,) = script.system_notes()
    assert "RealSense" in note and "apt-get install -y libusb-1.0-0" in note
    monkeypatch.setattr(script.ctypes.util, "find_library", lambda name: "libusb-1.0.so.0")
    assert script.system_notes() == []


def test_nothing_is_installed_while_system_packages_are_missing(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "VENV", tmp_path / "venv")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert script.main() == 1
    assert "apt-get install -y" in capsys.readouterr().err
    assert not (tmp_path / "venv").exists()


def test_an_old_python_is_named_with_the_way_out(script, monkeypatch):
    monkeypatch.setattr(script.sys, "version_info", (3, 8, 10))
    (problem,) = script.system_problems(os.environ["PATH"])
    assert "3.8" in problem and "make setup PYTHON=" in problem


def test_a_machine_without_ros_wheels_is_told_to_source_a_ros(script, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    (problem,) = script.system_problems(os.environ["PATH"])
    assert "aarch64" in problem and "source /opt/ros" in problem


def test_a_sourced_ros_of_another_python_is_refused(script, monkeypatch):
    monkeypatch.setattr(script, "SOURCED_ROS", "jazzy")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        script.importlib.util, "find_spec", lambda name: name != "rclpy" and find_spec(name) or None
    )
    (problem,) = script.system_problems(os.environ["PATH"])
    assert "ROS_DISTRO=jazzy" in problem and "unset ROS_DISTRO" in problem


def test_the_wheels_cmake_files_name_this_python_afterwards(script, tmp_path):
    share = tmp_path / "share"
    share.mkdir()
    file = share / "exportConfig.cmake"
    file.write_text(
        'set(a "/opt/python/cp311-cp311/include/python3.11;/usr/include")\n'
        'set(b "/opt/python/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include")\n'
    )
    with open(tmp_path / "log", "w") as log:
        script.point_wheels_at_this_python(share, log)
    text = file.read_text()
    assert "/opt/python" not in text
    assert f'"{script.sysconfig.get_paths()["include"]};/usr/include"' in text
    assert str(script.SITE_PACKAGES / "numpy" / "_core" / "include") in text


def test_the_torch_version_is_written_down_once(script, monkeypatch, tmp_path):
    installed = []
    monkeypatch.setattr(script, "pip", lambda arguments, log: installed.extend(arguments))
    script.install_torch(log=None)
    assert len(installed) == 1 and installed[0].startswith("torch==")
    assert "torch==" not in (ROOT / "scripts" / "setup.py").read_text().replace('"(torch==', "")


def test_a_robot_gets_neither_simulator_nor_training_nor_tests(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(script, "system_problems", lambda path: [])
    chosen, installed = [], []
    monkeypatch.setattr(script, "run_steps", lambda steps, **_: chosen.extend(steps) or 0)
    monkeypatch.setattr(script, "pip", lambda arguments, log: installed.extend(map(str, arguments)))
    monkeypatch.setattr(script, "run", lambda command, log: installed.extend(map(str, command)))
    assert script.main(["--robot"]) == 0
    for step in chosen:
        if step.name != "ROS packages":
            step.run(sys.stdout)
    everything = " ".join(installed)
    assert "[arms,data,gamepad,realsense,tensorrt]" in everything and "[ros]" in everything
    assert not any(word in everything for word in ("torch", "pybullet", "sim]", "dev]", "train"))
