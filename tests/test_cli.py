from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest

import cli
from hardware.errors import RobotError

ROOT = Path(cli.__file__).resolve().parent
HEAVY = ("torch", "rclpy", "pybullet", "onnxruntime", "numpy", "cv2", "pinocchio", "rich")


@pytest.fixture
def command(monkeypatch):
    """Make `jepa-arm work` call the given function; its parser has --ros."""

    def install(run, ros_run=None):
        for name, function in (("work_module", run), ("work_ros_module", ros_run)):
            module = types.ModuleType(name)
            module.EXAMPLE = "jepa-arm work --ros"
            module.add_arguments = lambda parser: parser.add_argument("--ros", action="store_true")
            module.run = function
            monkeypatch.setitem(sys.modules, name, module)
        row = cli.Command("work", "work on it", "work_module", "work_ros_module" if ros_run else "")
        monkeypatch.setattr(cli, "COMMANDS", (row,))

    return install


def failing(error):
    def run(args):
        raise error

    return run


def loaded_after(arguments: str) -> set[str]:
    """The heavy modules that a fresh Python has loaded after `jepa-arm` parsed these arguments."""
    program = (
        "import sys, cli\n"
        f"try: cli.main({arguments.split()!r})\n"
        "except SystemExit: pass\n"
        f"print('loaded', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_help_lists_every_command_with_its_summary(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0
    for row in cli.COMMANDS:
        assert f"{row.name} {row.summary}" in shown


def test_help_imports_nothing_heavy():
    assert loaded_after("--help") == set()


@pytest.mark.parametrize("row", cli.COMMANDS, ids=lambda row: row.name)
def test_every_command_has_a_help_with_an_example_and_without_slow_imports(row):
    done = subprocess.run(
        [sys.executable, "cli.py", row.name, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"example:\n  jepa-arm {row.name}" in done.stdout
    assert loaded_after(f"{row.name} --help") & {"torch", "rclpy", "pybullet"} == set()


@pytest.mark.parametrize("row", cli.COMMANDS, ids=lambda row: row.name)
def test_the_example_of_every_command_is_understood_by_its_own_parser(row):
    program = (
        "import importlib, shlex, cli\n"
        f"example = shlex.split(importlib.import_module({row.module!r}).EXAMPLE)[1:]\n"
        "cli.make_parser(example).parse_args(example)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_command_returns_the_exit_code_of_its_module(command):
    command(lambda args: 7)
    assert cli.main(["work"]) == 7


def test_the_ros_half_of_a_command_runs_only_with_ros(command):
    command(lambda args: 3, ros_run=lambda args: 4)
    assert cli.main(["work"]) == 3
    assert cli.main(["work", "--ros"]) == 4


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RobotError("panda.yaml: limits.velocity is negative"), "panda.yaml: limits.velocity is negative"),
        (RobotError("first\n   second"), "first second"),
        (
            FileNotFoundError(2, "No such file or directory", "models/x"),
            "models/x: No such file or directory",
        ),
        (OSError(28, "No space left on device"), "No space left on device"),
        (
            ModuleNotFoundError("no", name="torch"),
            "torch is not installed: run `pip install 'jepa-arm[train]'`",
        ),
        (
            ModuleNotFoundError("no", name="jepa_arm_interfaces.msg"),
            "jepa_arm_interfaces is not built: run `make",
        ),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_code_2(command, capsys, error, words):
    command(failing(error))
    assert cli.main(["work"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("jepa-arm: error: ")
    assert words in shown
    assert shown.count("\n") == 1


class Odd(ValueError):
    """Declared in the planner, but not in its errors.py."""

    __module__ = "planner.mpc"


BUGS = [ValueError("shape"), KeyError("k"), ModuleNotFoundError("x", name="own_typo"), Odd("odd")]


@pytest.mark.parametrize("error", BUGS, ids=lambda error: type(error).__name__)
def test_a_bug_is_one_line_that_names_debug_and_exit_code_1(command, capsys, error):
    command(failing(error))
    assert cli.main(["work"]) == 1
    shown = capsys.readouterr().err
    assert "--debug" in shown and shown.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--debug", "work"], ["work", "--debug"]])
def test_debug_shows_the_traceback_before_or_after_the_command(command, capsys, arguments):
    command(failing(RobotError("bad")))
    assert cli.main(arguments) == 2
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_quiet_and_exit_code_130(command, capsys):
    command(failing(KeyboardInterrupt()))
    assert cli.main(["work"]) == 130
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_an_unknown_command_is_exit_code_2():
    with pytest.raises(SystemExit) as stop:
        cli.main(["dance"])
    assert stop.value.code == 2
