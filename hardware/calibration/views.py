"""A folder of views: pictures of the board, and the joints at which each was taken.

    000.png, 001.png, …     as the camera gave them
    views.json              joints of each (rad, m if prismatic), by name
    scene.png               the scene without the board, for telling later whether the camera was moved

It is written picture by picture, so that a calibration that was cut short goes on, and can be computed again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hardware.errors import CalibrationError

INDEX = "views.json"
SCENE = "scene.png"


@dataclass(frozen=True)
class Taken:
    """One view: its picture's name, uint8 (H, W, 3) RGB, and the joints by name."""

    name: str
    image: NDArray[np.uint8]
    joints: Mapping[str, float]


def load_views(folder: Path) -> list[Taken]:
    """Raises `CalibrationError` naming what is missing or damaged."""
    return [Taken(name, read_picture(folder / name), joints) for name, joints in _index(folder).items()]


def add_view(folder: Path, image: NDArray[np.uint8], joints: Mapping[str, float]) -> str:
    """Write one more view; the name of its picture."""
    folder.mkdir(parents=True, exist_ok=True)
    index = _index(folder) if (folder / INDEX).is_file() else {}
    name = f"{len(index):03}.png"
    write_picture(folder / name, image)
    index[name] = dict(joints)
    part = folder / f"{INDEX}.part"
    part.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    part.replace(folder / INDEX)
    return name


def read_picture(path: Path) -> NDArray[np.uint8]:
    """RGB"""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    if image is None:
        raise CalibrationError(f"{path}: no such picture, or not one that can be read")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def write_picture(path: Path, image: NDArray[np.uint8]) -> None:
    if not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
        raise CalibrationError(f"{path}: cannot be written; check the folder and the disk")


def _index(folder: Path) -> dict[str, dict[str, float]]:
    path = folder / INDEX
    if not path.is_file():
        raise CalibrationError(
            f"{path}: no such file; take views with --camera and --arm, or name their folder"
        )
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(name): {str(joint): float(angle) for joint, angle in joints.items()}
            for name, joints in content.items()
        }
    except (ValueError, AttributeError, TypeError) as error:
        raise CalibrationError(f"{path}: not a list of views ({' '.join(str(error).split())})") from error
