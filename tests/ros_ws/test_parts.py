"""The small parts of starting a graph, without starting one."""

from __future__ import annotations

import fcntl
import importlib
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest
from jepa_arm_bringup.graph import node_command
from jepa_arm_bringup.processes import (
    PROCESSES,
    SETTINGS,
    Process,
    parameters_of,
    processes_of,
    settings_of,
)
from jepa_arm_bringup.shared_memory import remove_leaked_segments

from .conftest import ROOT

LAUNCH = ROOT / "ros_ws/src/jepa_arm_bringup/launch"


def test_only_segments_that_nobody_uses_are_removed(tmp_path: Path) -> None:
    leaked = ["fastrtps_dead", "fastrtps_dead_el", "fastrtps_port7", "fastrtps_port7_el"]
    leaked += ["sem.fastrtps_port7_mutex", "fastrtps_port9", "sem.fastrtps_port9_mutex"]
    used = {"fastrtps_locked", "fastrtps_locked_el", "sem.fastrtps_locked_mutex", "fastrtps_port8"}
    for name in (*leaked, *used, "another_programs_el"):
        (tmp_path / name).touch()
    with (
        (tmp_path / "fastrtps_locked_el").open() as locked,
        (tmp_path / "fastrtps_port8").open() as opened,
        subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[opened.fileno()]),
    ):
        fcntl.flock(locked, fcntl.LOCK_SH)
        assert remove_leaked_segments(tmp_path) == 3
    assert {path.name for path in tmp_path.iterdir()} == used | {"another_programs_el"}


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.name)
def test_every_row_names_a_node_that_takes_its_parameters(process: Process) -> None:
    module = importlib.import_module(f"{process.package}.{process.executable}")
    assert callable(module.main)
    declared = [vars(module)[name] for name in vars(module) if name.endswith("Parameters")]
    known = {field.name for kind in declared for field in fields(kind)}
    assert set(process.parameters) <= known
    assert set(process.parameters.values()) <= set(SETTINGS)


def test_simulated_and_real_world_share_what_thinks_and_guards() -> None:
    simulated = {process.name for process in processes_of("simulated")}
    real = {process.name for process in processes_of("real")}
    assert simulated == {"sim", "encoder", "planner", "gate"}
    assert real == {"camera", "arm", "encoder", "planner", "gate"}
    assert {process.name for process in processes_of("ros2_control")} == real - {"arm"} | {"controller"}
    assert "camera" not in settings_of(processes_of("simulated"))


def test_settings_reach_the_command_line_as_the_types_they_are() -> None:
    planner = next(process for process in PROCESSES if process.name == "planner")
    assert parameters_of(planner, {"bundle": "123"})["planner"] == "mode2"
    command = node_command(planner, {"bundle": "123", "seed": 7})
    assert 'bundle:="123"' in command and "seed:=7" in command


@pytest.mark.parametrize("file", sorted(LAUNCH.glob("*.launch.py")), ids=lambda file: file.name)
def test_launch_files_are_valid_python(file: Path) -> None:
    source = file.read_text()
    compile(source, str(file), "exec")
    assert "def generate_launch_description" in source
