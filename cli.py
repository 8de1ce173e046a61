"""The `jepa-arm` command: one table of subcommands.

A subcommand is a module with
    EXAMPLE: str                       one command line that works, shown by --help
    add_arguments(parser) -> None
    run(args) -> int                   the exit code
It is imported only when it is called, so `jepa-arm --help` is instant. The rule that keeps a subcommand's
own --help quick: the top of its module imports light modules only; torch, rclpy, pybullet and the like are
imported in `run`.

Exit codes: 0 fine, 1 a bug or a result that is not good, 2 something the user can mend (one line on stderr),
130 Ctrl-C. `--debug` shows the traceback of whatever went wrong.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True)
class Command:
    name: str
    summary: str
    module: str
    ros_module: str = ""  # whose `run` is called when the command has --ros: the core itself knows no ROS


COMMANDS = (
    Command("doctor", "tell what works on this machine and how to mend what does not", "doctor"),
    Command("cameras", "list the cameras that are plugged in, look through one", "hardware.camera.command"),
    Command(
        "calibrate",
        "measure where a camera stands, or an arm's zeros and ranges",
        "hardware.calibration.command",
    ),
    Command("new", "write the robot file of an arm from its URDF", "hardware.new_robot"),
    Command("scan", "tell which servos answer on a bus", "hardware.arm.scan"),
    Command("fake-arm", "emulate an arm's servos on a pty, with faults", "hardware.arm.emulator.command"),
    Command("collect", "record play episodes in the simulator", "sim.collect"),
    Command("train", "train the world model on recorded episodes", "sim.train"),
    Command("export", "make a bundle that robots can load from a training run", "planner.export"),
    Command("build-engine", "build the TensorRT engines of a bundle on this machine", "sim.build_engine"),
    Command("convert-vjepa2", "make a bundle from an official V-JEPA 2-AC file", "planner.convert_vjepa2"),
    Command("eval", "measure a planner on unseen episodes", "sim.evaluate", "jepa_arm_bringup.evaluate"),
    Command("record", "record episodes of your own arm and camera", "jepa_arm_bringup.record"),
    Command("replay", "send a recorded episode through the gate again", "jepa_arm_bringup.replay"),
    Command("bag", "record the graph's topics as MCAP, make a dataset of that", "jepa_arm_bringup.bag"),
    Command("up", "start the ROS 2 graph and keep it running", "jepa_arm_bringup.up"),
    Command("snapshot", "save what the camera sees as a goal picture", "jepa_arm_bringup.snapshot"),
    Command("pursue", "give a goal picture to the running graph, and watch", "jepa_arm_bringup.pursue"),
    Command("status", "tell what the gate does and how control loops keep time", "jepa_arm_bringup.status"),
    Command("stop", "stop the arm, from any terminal; --reset lets it go on", "jepa_arm_bringup.stop"),
    Command("demo", "pursue goal pictures over ROS 2, with a report", "jepa_arm_bringup.demo"),
    Command("bench", "measure encoder, predictor, planner and simulator on this machine", "benchmarks.bench"),
)

# Which extra of the package brings a module that is not there.
EXTRAS = {
    "av": "sim",
    "gymnasium": "sim",
    "mcap": "data",
    "mcap_ros2": "data",
    "pyarrow": "data",
    "matplotlib": "sim",
    "pybullet": "sim",
    "pybullet_data": "sim",
    "onnx": "train",
    "onnxscript": "train",
    "onnxslim": "train",
    "safetensors": "train",
    "tensorboard": "train",
    "torch": "train",
    "rclpy": "ros",
    "rustypot": "arms",
    "openvino": "openvino",
    "cuda": "tensorrt",
    "pyrealsense2": "realsense",
    "ray": "ray",
}
ROS_PACKAGES = ("jepa_arm_interfaces", "jepa_arm_ros", "jepa_arm_bringup")
OUR_PACKAGES = ("perception", "planner", "sim", "hardware", "benchmarks", *ROS_PACKAGES)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        return run(make_parser(arguments).parse_args(arguments))
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # the one place where errors become words
        if debug:
            traceback.print_exc()
        message = user_message(error)
        if message:
            print(f"jepa-arm: error: {message}", file=sys.stderr)
            return 2
        what = one_line(f"{type(error).__name__}: {error}")
        print(f"jepa-arm: bug: {what} (run with --debug for the traceback)", file=sys.stderr)
        return 1


def make_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for these arguments: only the subcommand that they name is imported and gets its options."""
    parser = argparse.ArgumentParser(
        prog="jepa-arm",
        description="Show the arm a picture of the goal; it moves until what it sees matches.",
        epilog="`jepa-arm COMMAND --help` shows a command's options and an example.",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(dest="_command", metavar="COMMAND", required=True)
    called = next((argument for argument in arguments if not argument.startswith("-")), None)
    for command in COMMANDS:
        subparser = subparsers.add_parser(
            command.name,
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if command.name == called:
            module = importlib.import_module(command.module)
            subparser.epilog = f"example:\n  {module.EXAMPLE}"
            hidden = argparse.SUPPRESS
            subparser.add_argument("--debug", action="store_true", default=hidden, help=hidden)
            module.add_arguments(subparser)
            subparser.set_defaults(_module=module, _ros_module=command.ros_module)
    return parser


def run(args: argparse.Namespace) -> int:
    module: ModuleType = args._module
    if args._ros_module and args.ros:
        module = importlib.import_module(args._ros_module)
    return module.run(args)


def user_message(error: Exception) -> str:
    """What to tell the user, if the error is one that the user can mend; else nothing: it is a bug.

    That is: every exception class that one of our packages declares in its `errors.py`, the operating
    system's errors (no such file, disk full), and an extra that is not installed.
    """
    package, _, rest = type(error).__module__.partition(".")
    if package in OUR_PACKAGES and rest.split(".")[-1] == "errors":
        return one_line(str(error))
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return where + one_line(error.strerror or str(error) or type(error).__name__)
    if isinstance(error, ModuleNotFoundError) and error.name:
        missing = error.name.partition(".")[0]
        if missing in ROS_PACKAGES:
            return f"the ROS package {missing} is not built: run `make setup`"
        if missing in EXTRAS:
            return f"{missing} is not installed: run `pip install 'jepa-arm[{EXTRAS[missing]}]'`"
    return ""


def one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
