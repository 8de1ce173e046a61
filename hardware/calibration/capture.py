"""Taking the views with someone at the arm: move, hold still, Enter; again from another side.

An arm that can be led by hand is limp in between and afterwards, and holds itself still for each view.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hardware.arm.contract import Arm, JointState, LedByHand
from hardware.calibration.board import Board, Corners
from hardware.calibration.views import SCENE, add_view, write_picture
from hardware.camera.contract import NoNewFrame
from hardware.camera.health import StreamConfig
from hardware.camera.reader import CameraReader
from hardware.camera.source import CameraSource
from hardware.errors import ArmError, CalibrationError

GOOD_NUMBER = 15
PATIENCE_S = 3.0
# Joints that move more than this (rad) around a picture blur it, and say where the tool is not.
STILL_RAD = 0.003

Ask = Callable[[str], str]
Tell = Callable[[str], None]


def capture(folder: Path, source: CameraSource, arm: Arm, board: Board, ask: Ask, tell: Tell) -> None:
    """Add views to `folder` until the user is done, then a picture of the scene. Never moves the arm."""
    reader = CameraReader(source.make, StreamConfig(size=source.size), reopen=source.live)
    reader.start()
    try:
        arm.connect()
        try:
            _take_views(folder, reader, arm, board, ask, tell)
        finally:
            arm.disconnect()
        answer = _ask(
            ask, "Take the board away and the tool home. Enter takes the scene's picture, s skips it: "
        )
        if answer != "s":
            write_picture(folder / SCENE, picture(reader))
    finally:
        reader.stop()


def picture(reader: CameraReader) -> NDArray[np.uint8]:
    """The next picture that is taken from now on. Raises `CalibrationError` saying why none comes."""
    asked_ns = time.time_ns()
    while time.time_ns() - asked_ns < PATIENCE_S * 1e9:
        try:
            frame = reader.take(PATIENCE_S).frame
        except NoNewFrame as error:
            raise CalibrationError(f"the camera gives no picture: {error}") from error
        if frame.stamp_ns >= asked_ns:
            return frame.image
    raise CalibrationError(
        "the camera's pictures are seconds old when they arrive: is another program using it?"
    )


def _take_views(folder: Path, reader: CameraReader, arm: Arm, board: Board, ask: Ask, tell: Tell) -> None:
    tell(
        f"{GOOD_NUMBER} views are good: near and far, in every corner of the picture, and tilted by up to 45°"
    )
    tell("forwards, sideways and around. Hold the tool still while one is taken.")
    taken = 0
    while True:
        if isinstance(arm, LedByHand):
            _ask(ask, "The arm goes limp: hold it, then press Enter. ")
            arm.let_go()
        if _ask(ask, "Enter takes a view, d is done: ") == "d":
            return
        if isinstance(arm, LedByHand) and not _holds(arm, tell):
            continue
        before = arm.state()
        image = picture(reader)
        after = arm.state()
        if _turned(before, after) > STILL_RAD:
            tell("the arm moved meanwhile; hold it still and take it again")
            continue
        corners = board.find(image)
        if corners is None:
            tell("the board was not found: all of it in view, in focus, no glare, no shadow over it")
            continue
        taken += 1
        name = add_view(folder, image, dict(zip(after.names, map(float, after.positions))))
        tell(f"view {taken}, {name}: {_in_words(corners, image)}")


def _holds(arm: Arm, tell: Tell) -> bool:
    try:
        arm.connect()
    except ArmError as error:
        tell(f"{error}; take it again")
        return False
    return True


def _in_words(corners: Corners, image: NDArray[np.uint8]) -> str:
    height, width = image.shape[:2]
    low, high = corners.pixels.min(axis=0), corners.pixels.max(axis=0)
    share = float(np.prod((high - low) / (width, height)))
    place = np.round(((low + high) / 2 / (width, height)) * 100).astype(int)
    return (
        f"{len(corners.pixels)} corners over {share:.0%} of the picture, around ({place[0]} %, {place[1]} %)"
    )


def _turned(before: JointState, after: JointState) -> float:
    return float(np.abs(after.ordered(before.names).positions - before.positions).max())


def _ask(ask: Ask, question: str) -> str:
    try:
        return ask(question).strip().lower()
    except EOFError as error:
        raise CalibrationError("the terminal was closed; the views taken so far are kept") from error
