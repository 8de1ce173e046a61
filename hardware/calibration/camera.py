"""`jepa-arm calibrate camera`: the lens, and where the camera stands, from a ChArUco board on the tool.

With --camera and --arm it takes the views, one by one; without, it computes from a folder of views. What
comes out is printed, drawn (FOLDER/residuals.png) and written into the robot file. --check only tells whether
the camera was moved since.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hardware.arm.contract import Arm
    from hardware.calibration.board import Board
    from hardware.calibration.hand_eye import HandEye, View
    from hardware.calibration.lens import Lens
    from hardware.calibration.views import Taken
    from hardware.camera.source import CameraSource
    from hardware.robot import Robot

EXAMPLE = "jepa-arm calibrate camera --robot panda --views out/calibration/panda"
VIEWS_DIR = Path("out/calibration")
RESIDUALS = "residuals.png"
# Above these nothing is written: a bent board, or an arm that is not where its model says.
MOST_LENS_PX = 1.5
MOST_POSE_PX = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--robot", default="panda", help="robot file: a name or a path (default: panda)")
    parser.add_argument("--views", type=Path, metavar="FOLDER", help=f"default: {VIEWS_DIR}/ROBOT")
    parser.add_argument("--camera", help="take views with this camera, as `jepa-arm cameras` names it")
    parser.add_argument(
        "--arm", help="the arm that carries the board: feetech, dynamixel, an arm file or module:callable"
    )
    parser.add_argument("--port", help="serial port of the arm's servos (default: the arm file's)")
    parser.add_argument("--board", default="7x5", metavar="COLUMNSxROWS", help="squares (default: 7x5)")
    parser.add_argument("--square-mm", type=float, default=25.0, help="side of a square (default: 25)")
    parser.add_argument("--marker-mm", type=float, default=18.0, help="side of a marker (default: 18)")
    parser.add_argument("--dictionary", default="DICT_5X5_50", help="OpenCV's markers (default: DICT_5X5_50)")
    parser.add_argument(
        "--print-board", type=Path, metavar="FILE", help="only write the board, to be printed"
    )
    parser.add_argument("--check", action="store_true", help="only tell whether --camera was moved since")
    parser.add_argument("--dry-run", action="store_true", help="do not write the robot file")
    parser.add_argument("--yes", action="store_true", help="write the robot file without asking")


def run(args: argparse.Namespace) -> int:
    from hardware.calibration.capture import capture
    from hardware.errors import CalibrationError
    from hardware.robot import load_robot, robot_path

    board = make_board(args)
    if args.print_board is not None:
        return print_board(board, args.print_board)
    path = robot_path(args.robot)
    robot = load_robot(path)
    if args.check:
        return check(robot, source_of(args, robot))
    folder = args.views or VIEWS_DIR / robot.name
    if args.camera is not None:
        if args.arm is None:
            raise CalibrationError("--camera takes views, for which the joints must be known: add --arm")
        capture(folder, source_of(args, robot), make_arm(args.arm, robot, args.port), board, input, print)
    lens, solved = calibrate(folder, board, robot)
    if args.dry_run:
        return 0
    if args.camera is not None and not args.yes:
        if input(f"Write this into {path}? [y/N] ").strip().lower() != "y":
            return 0
    write(path, folder, lens, solved)
    return 0


def make_board(args: argparse.Namespace) -> Board:
    from hardware.calibration.board import Board
    from hardware.errors import CalibrationError

    columns, _, rows = args.board.partition("x")
    if not (columns.isdigit() and rows.isdigit()):
        raise CalibrationError(f"--board {args.board}: write it as COLUMNSxROWS of squares, such as 7x5")
    return Board(int(columns), int(rows), args.square_mm * 1e-3, args.marker_mm * 1e-3, args.dictionary)


def print_board(board: Board, path: Path) -> int:
    import cv2

    from hardware.calibration.board import PRINT_DPI
    from hardware.calibration.views import write_picture

    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, cv2.cvtColor(board.picture(), cv2.COLOR_GRAY2RGB))
    width, height = board.columns * board.square_m * 1e3, board.rows * board.square_m * 1e3
    print(f"wrote {path}: print it at {PRINT_DPI} dpi, so that it is {width:g} x {height:g} mm (measure it),")
    print("and glue it on something flat and stiff that the tool can carry")
    return 0


def calibrate(folder: Path, board: Board, robot: Robot) -> tuple[Lens, HandEye]:
    """Compute from the views in `folder`, print and draw how well they fit. Raises `CalibrationError`."""
    from hardware.calibration.hand_eye import solve
    from hardware.calibration.lens import measure_lens
    from hardware.calibration.picture import draw_residuals
    from hardware.calibration.views import write_picture
    from hardware.errors import CalibrationError

    taken, views = find_boards(folder, board, robot)
    height, width = taken[0].image.shape[:2]
    lens = measure_lens([view.corners for view in views], (width, height))
    solved = solve(views, lens)
    picture = folder / RESIDUALS
    images, names = [one.image for one in taken], [one.name for one in taken]
    write_picture(picture, draw_residuals(images, names, views, solved))
    for line in in_words(lens, solved, names):
        print(line)
    print(f"drawn in {picture}")
    if lens.rms_px > MOST_LENS_PX:
        raise CalibrationError(
            f"the lens fits its views to {lens.rms_px:.2f} px only: is the board flat, the picture sharp?"
        )
    if solved.rms_px > MOST_POSE_PX:
        raise CalibrationError(
            f"arm and camera agree to {solved.rms_px:.1f} px only: calibrate the arm, check --square-mm, "
            "and that the board does not move on the tool"
        )
    return lens, solved


def find_boards(folder: Path, board: Board, robot: Robot) -> tuple[list[Taken], list[View]]:
    """The views in which the board is to be seen, and what is seen in them."""
    import numpy as np

    from hardware.calibration.hand_eye import View
    from hardware.calibration.pose import Pose
    from hardware.calibration.views import load_views
    from hardware.errors import CalibrationError
    from hardware.kinematics import Kinematics

    kinematics = Kinematics(robot)
    taken: list[Taken] = []
    views: list[View] = []
    for one in load_views(folder):
        missing = [name for name in robot.joint_names if name not in one.joints]
        if missing:
            raise CalibrationError(f"{folder}: {one.name} was taken without the joint {missing[0]}")
        if taken and one.image.shape != taken[0].image.shape:
            raise CalibrationError(f"{folder}: {one.name} has another size than {taken[0].name}")
        corners = board.find(one.image)
        if corners is None:
            print(f"{one.name}: the board was not found; left out")
            continue
        position, rotation = kinematics.tool_pose(np.array([one.joints[name] for name in robot.joint_names]))
        taken.append(one)
        views.append(View(Pose(rotation, position), corners))
    if not taken:
        raise CalibrationError(
            f"{folder}: the board was found in no picture; is it the --board that was used?"
        )
    return taken, views


def in_words(lens: Lens, solved: HandEye, names: list[str]) -> list[str]:
    import numpy as np

    found, (x, y, z) = solved.lens, solved.base_from_camera.position
    left_out = [name for name, kept in zip(names, solved.kept) if not kept]
    lines = [
        f"lens: fx {found.fx:.1f}, fy {found.fy:.1f}, cx {found.cx:.1f}, cy {found.cy:.1f} px; "
        f"fits to {lens.rms_px:.2f} px",
        f"camera at x {x:.4f}, y {y:.4f}, z {z:.4f} m (± {solved.position_std_m * 1e3:.1f} mm, "
        f"± {np.degrees(solved.angle_std_rad):.2f}°); arm and camera agree to {solved.rms_px:.2f} px "
        f"in {int(solved.kept.sum())} views",
    ]
    if left_out:
        lines.append(f"left out, as they do not fit: {', '.join(left_out)}")
    return lines


def write(path: Path, folder: Path, lens: Lens, solved: HandEye) -> None:
    from hardware.calibration.robot_file import write_camera
    from hardware.calibration.views import SCENE, read_picture, write_picture

    reference = None
    if (folder / SCENE).is_file():
        reference = f"{path.stem}_camera.png"
        write_picture(path.parent / reference, read_picture(folder / SCENE))
    else:
        print(f"note: without {folder / SCENE} nobody will notice if the camera is moved later")
    write_camera(path, lens, solved, reference)
    print(f"wrote {path}")


def check(robot: Robot, source: CameraSource) -> int:
    """0 if the camera is where it was calibrated, 1 if it was moved or that cannot be told."""
    from hardware.calibration.capture import picture
    from hardware.calibration.moved import Placement, compare
    from hardware.calibration.views import read_picture
    from hardware.camera.health import StreamConfig
    from hardware.camera.reader import CameraReader
    from hardware.errors import CalibrationError

    calibration = robot.camera_calibration
    if calibration is None or calibration.reference is None:
        raise CalibrationError(f"{robot.name} has no calibration with a picture of the scene: make one first")
    reader = CameraReader(source.make, StreamConfig(size=source.size), reopen=source.live)
    reader.start()
    try:
        comparison = compare(read_picture(calibration.reference), picture(reader))
    finally:
        reader.stop()
    print(comparison.text)
    return 0 if comparison.placement is Placement.IN_PLACE else 1


def source_of(args: argparse.Namespace, robot: Robot) -> CameraSource:
    from hardware.camera.source import camera_source

    return camera_source(args.camera or "", robot.camera.rate_hz, robot.camera.frame_id)


def make_arm(text: str, robot: Robot, port: str | None) -> Arm:
    import importlib

    from hardware.arm.config import arm_config_for
    from hardware.arm.servo_arm import ServoArm
    from hardware.errors import CalibrationError

    if ":" not in text:
        return ServoArm(arm_config_for(text, robot), port or "")
    module, _, name = text.partition(":")
    try:
        return getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError, ValueError) as error:
        raise CalibrationError(f"--arm {text} makes no arm ({error}); write it as module:callable") from error
