"""`jepa-arm new`: a robot file for an arm of which there is a URDF.

What the URDF says is taken from it; home, workspace and camera are proposed, so that collect, train, export
and eval run as they are. Every value that is a guess has a `# CHECK:` comment beside it: look at each of them
before a real arm moves.
"""

from __future__ import annotations

import argparse
import math
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hardware.arm_urdf import ArmJoint, ArmUrdf
    from hardware.reach import Proposal
    from hardware.robot import Robot

EXAMPLE = "jepa-arm new --urdf my_arm.urdf --name my_arm --peg 0.14"

# Gentle figures for an arm that nothing is known of; the xArm6 and the LBR iiwa take these and more.
GUESSED_ACCELERATION = 10.0
GUESSED_JERK = 500.0

# How the Panda's camera stands to the middle of its workspace, and how long that is, in metres.
CAMERA_OFFSET_M = (0.59, 0.0, 0.59)
CAMERA_TARGET_HEIGHT_M = 0.03
PANDA_WORKSPACE_M = (0.32, 0.56)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--urdf", type=Path, required=True, help="the arm's URDF")
    parser.add_argument("--name", required=True, help="what the robot will be called")
    parser.add_argument("--out", type=Path, help="folder (default: the one of the robots that come with it)")
    parser.add_argument("--tool-link", help="link whose z points out of the tool (default: the chain's end)")
    parser.add_argument("--peg", type=float, metavar="LENGTH_M", help="put a peg of this length on the tool")


def run(args: argparse.Namespace) -> int:
    from hardware.errors import RobotError
    from hardware.robot import ROBOTS_DIR

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", args.name):
        raise RobotError(f"--name {args.name!r}: use letters, digits, _ and - only")
    out = args.out or ROBOTS_DIR
    for ending in (".yaml", ".urdf", "_peg.urdf", "_meshes"):
        if (path := out / f"{args.name}{ending}").exists():
            raise RobotError(f"{path} exists already: remove it, or choose another --name")
    with tempfile.TemporaryDirectory() as folder:
        notes = new_robot(Path(folder), args.urdf, args.name, args.tool_link, args.peg)
        made = sorted(Path(folder).iterdir())
        out.mkdir(parents=True, exist_ok=True)
        for path in made:
            copy = shutil.copytree if path.is_dir() else shutil.copyfile
            copy(path, out / path.name)
    for note in notes:
        print(f"note: {note}")
    robot_file = out / f"{args.name}.yaml"
    print(f"wrote {', '.join(path.name for path in made)} into {out}")
    print(f"now look at every '# CHECK:' in {robot_file}, then:")
    robot = args.name if args.out is None else robot_file
    print(f"  jepa-arm collect --task push --robot {robot} --out data/{args.name}-push")
    if args.out is not None:
        print(f"eval finds a bundle's robot by its name: copy these files to {ROBOTS_DIR} before it")
    return 0


def new_robot(
    folder: Path, urdf: Path, name: str, tool_link: str | None = None, peg_length_m: float | None = None
) -> list[str]:
    """Write NAME.yaml, its URDF and its meshes into `folder`; what was changed or guessed, as sentences.

    Raises `RobotError` if the URDF cannot be used, or its tool not pointed straight down over a table.
    """
    from hardware.arm_urdf import read_arm
    from hardware.errors import RobotError
    from hardware.reach import propose
    from hardware.robot import load_robot

    header = "Adapted by `jepa-arm new`: low-poly meshes, and what was missing."
    arm = read_arm(urdf, tool_link)
    arm.replace_meshes(folder, f"{name}_meshes")
    if peg_length_m is not None:
        arm.add_peg(peg_length_m)
    arm_urdf = folder / (f"{name}.urdf" if peg_length_m is None else f"{name}_peg.urdf")
    arm.write(arm_urdf, header)
    try:
        proposal = propose(_provisional(arm, name, arm_urdf))
    except RobotError as error:
        raise RobotError(f"{urdf}: {error}") from error
    if proposal.stand_x:
        arm.stand_at(proposal.stand_x)
        arm.write(arm_urdf, header)
        arm.guesses.append(
            f"the arm stands {proposal.stand_x:+g} m along x from the base frame's origin, link table, "
            "so that it reaches where the tasks are"
        )
    if not proposal.holds_the_tasks():
        arm.guesses.append(
            "the workspace does not hold all of the box that the tasks use (x 0.32 to 0.61, y -0.25 to 0.25, "
            "z 0.025 to 0.24): with this arm they need other ranges in sim/tasks.py"
        )
    robot_file = folder / f"{name}.yaml"
    robot_file.write_text(_robot_file(arm, name, arm_urdf.name, proposal), encoding="utf-8")
    load_robot(robot_file)
    return [*arm.simplified, *arm.guesses]


def _provisional(arm: ArmUrdf, name: str, urdf: Path) -> Robot:
    """The robot as far as the URDF knows it, for kinematics: no home, workspace, camera of its own."""
    from hardware.robot import Robot

    joints = [
        {"name": j.name, "lower": j.lower, "upper": j.upper, "home": (j.lower + j.upper) / 2}
        | {"velocity": j.velocity, "acceleration": GUESSED_ACCELERATION, "jerk": GUESSED_JERK}
        for j in arm.joints
    ]
    camera = {"frame_id": "-", "width": 1, "height": 1, "vertical_fov": 1.0, "rate_hz": 1.0}
    return Robot.model_validate(
        {"name": name, "urdf": urdf, "base_link": arm.base_link, "tool_link": arm.tool_link}
        | {"joints": joints, "workspace": {"min": (-9.0, -9.0, -9.0), "max": (9.0, 9.0, 9.0)}}
        | {"camera": camera | {"position": (1.0, 0.0, 1.0), "target": (0.0, 0.0, 0.0), "up": (0.0, 0.0, 1.0)}}
    )


def _robot_file(arm: ArmUrdf, name: str, urdf: str, proposal: Proposal) -> str:
    """The text of the robot file."""
    low, high = proposal.workspace.min, proposal.workspace.max
    middle_x = (low[0] + high[0]) / 2
    away = max((high[i] - low[i]) / PANDA_WORKSPACE_M[i] for i in (0, 1))
    target = (middle_x, 0.0, CAMERA_TARGET_HEIGHT_M * away)
    position = [place + offset * away for place, offset in zip(target, CAMERA_OFFSET_M)]
    joints = "\n".join(_joint_line(joint, angle) for joint, angle in zip(arm.joints, proposal.home))
    guesses = "".join(f"# CHECK: {guess}\n" for guess in arm.guesses)
    return f"""\
# {name}, written by `jepa-arm new` from {arm.source.name}. Metres, radians, seconds; positions are in the
# base link's frame. Every CHECK marks a guess: look at each before a real arm moves.
{guesses}name: {name}
urdf: {urdf}          # relative to this file
base_link: {arm.base_link}        # the URDF's root  # CHECK: z = 0 must be the table top
tool_link: {arm.tool_link}        # its origin is the tool tip  # CHECK: z must point out of the tool

# Every movable joint between base and tool, in that order. Position and velocity limits are the URDF's.
# CHECK: home. It was solved by inverse kinematics, so that the tool points straight down over the middle of
# the workspace, from the posture nearest to the middle of the joints' limits, elbow over the plane y = 0.
joints:
{joints}

# The box that the tool tip may not leave.
# CHECK: proposed as the largest box, of about the Panda's size, in which inverse kinematics from home finds
# every place with the tool pointing down, all joints within limits. What stands around the arm is unknown.
workspace:
  min: {_vector(low)}
  max: {_vector(high)}

# A pinhole camera, fixed in front of the arm and looking back at the workspace.
# CHECK: everything here. It is where the simulated camera stands; measure yours.
camera:
  frame_id: camera_optical_frame
  width: 128
  height: 128
  vertical_fov: 0.70
  position: {_vector(position)}
  target: {_vector(target)}
  up: [0.0, 0.0, 1.0]
  rate_hz: 30.0
"""


def _joint_line(joint: ArmJoint, home: float) -> str:
    # Limits are rounded inwards, so that they stay within the URDF's.
    lower, upper = math.ceil(joint.lower * 1e6) / 1e6, math.floor(joint.upper * 1e6) / 1e6
    guesses = ", ".join((*joint.guessed, "acceleration", "jerk"))
    return (
        f"  - {{name: {joint.name}, lower: {_number(lower)}, upper: {_number(upper)}, "
        f"velocity: {_number(joint.velocity)}, acceleration: {GUESSED_ACCELERATION}, jerk: {GUESSED_JERK}, "
        f"home: {_number(home)}}}  # CHECK: {guesses}"
    )


def _vector(values: Iterable[float]) -> str:
    return f"[{', '.join(_number(value) for value in values)}]"


def _number(value: float) -> str:
    """With a point and without an exponent, which YAML would take for text."""
    text = f"{value:.6f}".rstrip("0")
    return text + "0" if text.endswith(".") else text
