"""`jepa-arm doctor`: what works on this machine, and how to mend what does not.

Each check returns findings; `main` is a table of checks. A finding is
    ok        works
    optional  not there, and only some commands need it
    broken    needed, or there but unusable; doctor then returns 1
"""

from __future__ import annotations

import argparse
import fcntl
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

EXAMPLE = "jepa-arm doctor --json out/doctor.json"

PROJECT = Path(__file__).resolve().parent
OUR_MODULES = ("cli", "doctor", "perception", "planner", "sim", "hardware")
SHARED_MEMORY = Path("/dev/shm")
SHARED_MEMORY_NEEDED_MB = 256  # a segment of 32 MB for each of our processes
DISK_NEEDED_GB = 5.0  # play data and a training run
STYLES = {"ok": "green", "optional": "yellow", "broken": "bold red"}


@dataclass(frozen=True)
class Finding:
    name: str
    status: str  # ok, optional or broken
    found: str
    mend: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the findings to FILE")


def run(args: argparse.Namespace) -> int:
    findings = examine()
    broken = [finding for finding in findings if finding.status == "broken"]
    show(findings)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        report = {"ok": not broken, "findings": [asdict(finding) for finding in findings]}
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if broken else 0


def examine() -> list[Finding]:
    """All findings. A check that falls over is itself a finding."""
    findings: list[Finding] = []
    for name, check in CHECKS:
        try:
            findings.extend(check())
        except Exception as error:
            problem = " ".join(f"{type(error).__name__}: {error}".split())
            findings.append(Finding(name, "broken", problem, "run `make setup`"))
    return findings


def show(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        status = Text(finding.status, style=STYLES[finding.status])
        found = Text(finding.found).append(f"\n-> {finding.mend}" if finding.mend else "", style="bold")
        table.add_row(finding.name, status, found)
    Console().print(table)


def python() -> Iterator[Finding]:
    status = "ok" if sys.version_info >= (3, 10) else "broken"
    mend = "" if status == "ok" else "jepa-arm needs Python 3.10 or newer: `make setup PYTHON=python3.11`"
    yield Finding("Python", status, f"{platform.python_version()} ({sys.prefix})", mend)


def machine() -> Iterator[Finding]:
    yield Finding("platform", "ok", f"{platform.platform()}, {os.cpu_count()} cores")


def core_libraries() -> Iterator[Finding]:
    import cv2
    import numpy
    import pinocchio

    versions = f"numpy {numpy.__version__}, OpenCV {cv2.__version__}, pinocchio {pinocchio.__version__}"
    yield Finding("core libraries", "ok", versions)


def runtimes() -> Iterator[Finding]:
    """What can run a bundle's graphs, at which precisions. ONNX Runtime is needed, the others are faster."""
    from perception.runtimes.registry import REFERENCE, offers

    for offer in offers():
        name = f"runtime {offer.runtime}"
        if offer.variants:
            precisions = ", ".join(variant.precision for variant in offer.variants)
            yield Finding(name, "ok", f"{offer.variants[0].version}: {precisions}")
            continue
        what, _, mend = offer.missing.partition(": ")
        status = "broken" if offer.runtime == REFERENCE.runtime else "optional"
        yield Finding(name, status, what, mend)


def ros() -> Iterator[Finding]:
    from jepa_arm_bringup.environment import enter_ros_environment, wheels_prefix

    enter_ros_environment()
    if importlib.util.find_spec("rclpy") is None:
        mend = "`make setup` installs the wheels; or source a ROS 2 and run it again"
        yield Finding("ROS 2", "optional", "none: `up`, `demo` and `eval --ros` need it", mend)
        return
    import rclpy
    from rclpy.utilities import get_rmw_implementation_identifier

    distribution = os.environ.get("ROS_DISTRO", "")
    origin = (
        f"{distribution} sourced" if distribution else "jazzy wheels" if wheels_prefix() else "not sourced"
    )
    rmw, domain = get_rmw_implementation_identifier(), os.environ.get("ROS_DOMAIN_ID", "0")
    yield Finding("ROS 2", "ok", f"{origin}, {rmw}, domain {domain} ({Path(rclpy.__file__).parent})")
    if distribution and wheels_prefix():
        mend = "run `make setup` in this shell, or `unset ROS_DISTRO` and open a new one"
        yield Finding("ROS 2", "broken", f"{distribution} is sourced over the wheels in {sys.prefix}", mend)


def ros_interfaces() -> Iterator[Finding]:
    if importlib.util.find_spec("rclpy") is None:
        return
    from jepa_arm_interfaces.action import PursueGoal
    from jepa_arm_interfaces.msg import Latent, PlanStatus, SafetyStatus, SceneTruth
    from jepa_arm_interfaces.srv import ResetScene

    types = (PursueGoal, Latent, PlanStatus, SafetyStatus, SceneTruth, ResetScene)
    for interface in types:
        interface.__class__.__import_type_support__()  # loads the compiled half
    yield Finding("ROS interfaces", "ok", f"{len(types)} built")


def torch() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        mend = "pip install 'jepa-arm[train]'"
        yield Finding("PyTorch", "optional", "none: `train` and `export` need it", mend)
        return
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    yield Finding("PyTorch", "ok", f"{torch.__version__}, {device}")


def simulator() -> Iterator[Finding]:
    if importlib.util.find_spec("pybullet") is None:
        mend = "pip install 'jepa-arm[sim]'"
        yield Finding("simulator", "optional", "none: `collect`, `eval` and `demo` need it", mend)
        return
    import pybullet

    client = pybullet.connect(pybullet.DIRECT)
    pybullet.disconnect(client)
    yield Finding("simulator", "ok", f"PyBullet {importlib.metadata.version('pybullet')}")


def cameras() -> Iterator[Finding]:
    devices = sorted(Path("/dev").glob("video*"))
    closed = [str(device) for device in devices if not os.access(device, os.R_OK | os.W_OK)]
    if closed:
        mend = "sudo usermod -aG video $USER, then log in again"
        yield Finding("cameras", "optional", f"no permission for {', '.join(closed)}", mend)
    elif devices:
        yield Finding("cameras", "ok", ", ".join(map(str, devices)))
    else:
        yield Finding("cameras", "optional", "none; the simulator has its own")
    from hardware.camera import realsense
    from hardware.errors import CameraError

    try:
        names = [f"{found.name} {found.serial}" for found in realsense.connected()]
    except CameraError as error:
        problem, _, mend = str(error).partition(": run ")
        yield Finding("RealSense", "optional", problem, mend)
    else:
        yield Finding("RealSense", "ok" if names else "optional", ", ".join(names) or "no camera connected")


def models() -> Iterator[Finding]:
    bundles = sorted(path.parent for path in (PROJECT / "models").glob("*/bundle.yaml"))
    if not bundles:
        mend = "train one: `jepa-arm collect`, `jepa-arm train`, `jepa-arm export`"
        yield Finding("models", "optional", "no bundle in models/", mend)
        return
    from planner.bundle import load_bundle

    for folder in bundles:
        try:
            load_bundle(folder)
        except (ValueError, OSError) as error:
            mend = f"restore it: `git checkout {folder.relative_to(PROJECT)}`, or export it again"
            yield Finding(f"model {folder.name}", "broken", " ".join(str(error).split()), mend)
        else:
            yield Finding(f"model {folder.name}", "ok", str(folder.relative_to(PROJECT)))


def shadowed_imports() -> Iterator[Finding]:
    """Our import names are everyday words; another installed package of that name would be used instead."""
    shadowed = False
    for name in OUR_MODULES:
        spec = importlib.util.find_spec(name)
        origin = spec and (spec.origin or next(iter(spec.submodule_search_locations or ()), None))
        if origin and Path(origin).resolve().is_relative_to(PROJECT):
            if not in_virtual_environment(Path(origin)) or in_virtual_environment(PROJECT):
                continue
        shadowed = True
        owners = importlib.metadata.packages_distributions().get(name, [])
        others = " ".join(sorted(owner for owner in set(owners) if owner != "jepa-arm"))
        mend = f"pip uninstall {others}" if others else "run `make setup`"
        yield Finding(f"import {name}", "broken", f"is {origin or 'not found'}, not ours", mend)
    if not shadowed:
        yield Finding("import names", "ok", f"{', '.join(OUR_MODULES)} are ours")


def in_virtual_environment(path: Path) -> bool:
    return path.resolve().is_relative_to(Path(sys.prefix).resolve())


def shared_memory() -> Iterator[Finding]:
    """DDS passes frames through /dev/shm; a process that was killed leaves its segment there."""
    if not SHARED_MEMORY.is_dir():
        return
    total_mb = shutil.disk_usage(SHARED_MEMORY).total / 1e6
    leftovers = dead_segments(SHARED_MEMORY)
    size_mb = sum(file.stat().st_size for file in leftovers) / 1e6
    if total_mb < SHARED_MEMORY_NEEDED_MB:
        mend = f"{SHARED_MEMORY_NEEDED_MB} MB are needed; in a container: docker run --shm-size=512m"
        yield Finding("shared memory", "broken", f"{SHARED_MEMORY} holds {total_mb:.0f} MB", mend)
    elif leftovers:
        found = f"{len(leftovers)} files ({size_mb:.0f} MB) of dead processes in {SHARED_MEMORY}"
        mend = "`jepa-arm up` and `jepa-arm demo` remove them when they start"
        yield Finding("shared memory", "optional", found, mend)
    else:
        yield Finding("shared memory", "ok", f"{total_mb:.0f} MB, nothing left behind")


def dead_segments(folder: Path) -> list[Path]:
    """Fast DDS segments and ports whose owner is gone: it held a lock on the file that ends in `_el`."""
    dead = []
    for lock in sorted(folder.glob("fastrtps_*_el")):
        try:
            with open(lock) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # held by a living process, or not ours to open
        dead += [path for path in (lock, lock.with_name(lock.name.removesuffix("_el"))) if path.exists()]
    return dead


def disk() -> Iterator[Finding]:
    free_gb = shutil.disk_usage(PROJECT).free / 1e9
    if free_gb < DISK_NEEDED_GB:
        mend = f"collecting and training need about {DISK_NEEDED_GB:.0f} GB"
        yield Finding("disk", "optional", f"{free_gb:.1f} GB free", mend)
    else:
        yield Finding("disk", "ok", f"{free_gb:.0f} GB free")


CHECKS: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
    ("Python", python),
    ("platform", machine),
    ("import names", shadowed_imports),
    ("core libraries", core_libraries),
    ("runtimes", runtimes),
    ("PyTorch", torch),
    ("simulator", simulator),
    ("ROS 2", ros),
    ("ROS interfaces", ros_interfaces),
    ("cameras", cameras),
    ("models", models),
    ("shared memory", shared_memory),
    ("disk", disk),
)
