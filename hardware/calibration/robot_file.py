"""The robot file with what was measured of its camera: comments stay, and the file is never half written."""

from __future__ import annotations

import io
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from hardware.calibration.hand_eye import HandEye
from hardware.calibration.lens import Lens
from hardware.camera.fit import Fit
from hardware.robot import CameraMount, load_robot


def write_camera(path: Path, lens: Lens, solved: HandEye, reference: str | None) -> None:
    """Put the camera's measured pose and lens into the robot file `path`. It is loaded before it replaces.

    `camera` gets the pinhole that shows the same, `camera_calibration` what was measured. `reference` is the
    name of the picture of the scene, next to the robot file.
    """
    yaml = _yaml()
    content = yaml.load(path.read_text(encoding="utf-8"))
    mount = load_robot(path).camera
    for key, value in pinhole(solved, mount).items():
        content["camera"][key] = _vector(value, 5) if isinstance(value, np.ndarray) else round(value, 5)
    known = "camera_calibration" in content
    content["camera_calibration"] = _section(lens, solved, reference)
    if not known:
        when = "Measured by `jepa-arm calibrate camera`: pixels, metres; the optical frame in the base frame."
        content.yaml_set_comment_before_after_key("camera_calibration", before="\n" + when)
    text = io.StringIO()
    yaml.dump(content, text)
    _replace(path, text.getvalue())


def pinhole(solved: HandEye, mount: CameraMount) -> dict[str, Any]:
    """position, target and up (3,) m and vertical_fov (rad) of the mount: a camera without distortion that
    looks where the middle of the fitted picture looks, and sees as far up and down."""
    lens = solved.lens
    fitted = Fit((lens.width, lens.height), (mount.width, mount.height)).intrinsics(lens)
    middle = ((mount.width - 1) / 2, (mount.height - 1) / 2)
    ray = np.array([(middle[0] - fitted.cx) / fitted.fx, (middle[1] - fitted.cy) / fitted.fy, 1.0])
    pose = solved.base_from_camera
    ahead = pose.rotation @ ray / np.linalg.norm(ray)
    distance = float(np.linalg.norm(np.subtract(mount.target, mount.position)))
    return {
        "vertical_fov": float(2 * np.arctan(mount.height / 2 / fitted.fy)),
        "position": pose.position,
        "target": pose.position + distance * ahead,
        "up": -pose.rotation[:, 1],
    }


def _section(lens: Lens, solved: HandEye, reference: str | None) -> CommentedMap:
    intrinsics, pose = solved.lens, solved.base_from_camera
    section = CommentedMap()
    section["date"] = time.strftime("%Y-%m-%d")
    section["width"], section["height"] = intrinsics.width, intrinsics.height
    for key in ("fx", "fy", "cx", "cy"):
        section[key] = round(getattr(intrinsics, key), 3)
    section["distortion"] = _vector(intrinsics.distortion, 6)
    section["position"] = _vector(pose.position, 5)
    section["rotation_vector"] = _vector(pose.rotvec, 6)
    section["views"] = int(solved.kept.sum())
    section["lens_rms_px"] = round(lens.rms_px, 3)
    section["pose_rms_px"] = round(solved.rms_px, 3)
    section["position_std_m"] = round(solved.position_std_m, 5)
    section["angle_std_rad"] = round(solved.angle_std_rad, 5)
    if reference is not None:
        section["reference"] = reference
    return section


def _vector(values: ArrayLike, digits: int) -> CommentedSeq:
    """In one line."""
    sequence = CommentedSeq(round(float(value), digits) + 0.0 for value in np.ravel(values))
    sequence.fa.set_flow_style()
    return sequence


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _replace(path: Path, text: str) -> None:
    """`path` holds either what it held or all of `text`, which loads as a robot."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".yaml")
    part = Path(name)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        load_robot(part)
        part.chmod(path.stat().st_mode & 0o777)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
