"""The robot file: everything the rest of the code knows about an arm, loaded from `robots/NAME.yaml`.

    robot = load_robot("panda")

Bringing another arm means writing this file for it, next to its URDF. Whatever cannot work is refused
here, with the file and the key in the message, before anything moves.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hardware.errors import RobotError
from hardware.yaml_file import first_problem, read_yaml

ROBOTS_DIR = Path(__file__).parent / "robots"
# A file with every key.
SHOWS_ALL = "robots/panda.yaml"

Number = Annotated[float, Field(strict=True)]
Positive = Annotated[float, Field(strict=True, gt=0.0)]
Pixels = Annotated[int, Field(strict=True, gt=0)]
Name = Annotated[str, Field(min_length=1)]
Vector = tuple[Number, Number, Number]


class _Section(BaseModel):
    """A part of the robot file: unknown keys, NaN and infinity are errors; nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Joint(_Section):
    """One driven joint: position limits and home in rad (m if prismatic), then /s, /s² and /s³."""

    name: Name
    lower: Number
    upper: Number
    velocity: Positive
    acceleration: Positive
    jerk: Positive
    home: Number

    @model_validator(mode="after")
    def _limits_in_order(self) -> Joint:
        if self.lower >= self.upper:
            raise ValueError(
                f"{self.name}: lower limit {self.lower:g} is not below upper limit {self.upper:g}; swap them"
            )
        if not self.lower <= self.home <= self.upper:
            raise ValueError(
                f"{self.name}: home {self.home:g} is outside the limits {self.lower:g} to {self.upper:g}; "
                "choose a home inside them"
            )
        return self


class Workspace(_Section):
    """The box that the tool tip may not leave: corners in m, base frame."""

    min: Vector
    max: Vector

    @model_validator(mode="after")
    def _corners_in_order(self) -> Workspace:
        for axis, low, high in zip("xyz", self.min, self.max):
            if low >= high:
                raise ValueError(f"min {low:g} is not below max {high:g} on the {axis} axis; swap them")
        return self


class Gripper(_Section):
    """A one-degree-of-freedom gripper: the last of the robot's joints, and its position (m) closed and open.

    Joints that the URDF marks with `<mimic>` follow it.
    """

    joint: Name
    closed: Number
    open: Number


class KeepOut(_Section):
    """A box that no part of the robot may enter but the links it `ignores`: corners in m, base frame."""

    name: Name
    min: Vector
    max: Vector
    ignores: tuple[Name, ...] = ()

    @model_validator(mode="after")
    def _corners_in_order(self) -> KeepOut:
        for axis, low, high in zip("xyz", self.min, self.max):
            if low >= high:
                raise ValueError(
                    f"{self.name}: min {low:g} is not below max {high:g} on the {axis} axis; swap them"
                )
        return self


class Collision(_Section):
    """How near (m) the robot may come to itself and to the boxes it must keep out of.

    Motion towards another body is slowed from `slow_from` on, and ends `margin` before it. `never_touch` are
    the pairs of links that need no check, as `python -m hardware.collision_pairs` finds them.
    """

    margin: Positive = 0.005
    slow_from: Positive = 0.02
    keep_out: tuple[KeepOut, ...] = ()
    never_touch: tuple[tuple[Name, Name], ...] = ()

    @model_validator(mode="after")
    def _slows_before_it_stops(self) -> Collision:
        if self.margin >= self.slow_from:
            raise ValueError(
                f"margin {self.margin:g} m is not below slow_from {self.slow_from:g} m; lower it"
            )
        names = [box.name for box in self.keep_out]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two keep_out boxes are named {twice[0]}; give each its own name")
        return self


class CameraMount(_Section):
    """A fixed pinhole camera: image size in pixels, `vertical_fov` in rad, pose in m in the base frame."""

    frame_id: Name
    width: Pixels
    height: Pixels
    vertical_fov: Annotated[float, Field(strict=True, gt=0.0, lt=np.pi)]
    position: Vector
    target: Vector
    up: Vector
    rate_hz: Positive

    @model_validator(mode="after")
    def _looks_somewhere(self) -> CameraMount:
        view = np.subtract(self.target, self.position)
        if np.linalg.norm(np.cross(view, self.up)) < 1e-6:
            raise ValueError("position, target and up leave the view undefined; move target or turn up")
        return self


class CameraCalibration(_Section):
    """What `jepa-arm calibrate camera` measured.

    The camera's own size and lens, in pixels (`distortion`: k1, k2, p1, p2, k3); the pose of its optical
    frame (z ahead, y down) in m and rad, in the base frame; how well that fits, and standard errors.
    `reference` is a picture of the scene, next to the robot file, to tell by whether the camera was moved.
    """

    date: Name
    width: Pixels
    height: Pixels
    fx: Positive
    fy: Positive
    cx: Positive
    cy: Positive
    distortion: tuple[Number, Number, Number, Number, Number]
    position: Vector
    rotation_vector: Vector
    views: Annotated[int, Field(strict=True, gt=0)]
    lens_rms_px: Number
    pose_rms_px: Number
    position_std_m: Number
    angle_std_rad: Number
    reference: Path | None = None


class Robot(_Section):
    """An arm as its robot file describes it. Arrays are float64, in the order of `joints`, read-only."""

    name: Name
    urdf: Path
    base_link: Name
    tool_link: Name
    joints: Annotated[tuple[Joint, ...], Field(min_length=1)]
    workspace: Workspace
    camera: CameraMount
    gripper: Gripper | None = None
    camera_calibration: CameraCalibration | None = None
    # A stop from any motion takes no longer than this (s): how fast joints may be follows from it.
    max_braking_s: Annotated[float, Field(strict=True, ge=0.02, le=0.5)] = 0.1
    collision: Collision = Collision()

    @cached_property
    def joint_names(self) -> tuple[str, ...]:
        return tuple(joint.name for joint in self.joints)

    @cached_property
    def mimics(self) -> dict[str, str]:
        """Joints that follow a driven one, by the URDF's `<mimic>` tags: name → the joint it follows."""
        found = {}
        for joint in ElementTree.parse(self.urdf).getroot().findall("joint"):
            mimic = joint.find("mimic")
            if mimic is not None and mimic.get("joint") in self.joint_names:
                found[joint.get("name", "")] = mimic.get("joint", "")
        return found

    @cached_property
    def home(self) -> NDArray[np.float64]:
        """(J,) rad."""
        return self._joint_array("home")

    @cached_property
    def position_lower(self) -> NDArray[np.float64]:
        """(J,) rad."""
        return self._joint_array("lower")

    @cached_property
    def position_upper(self) -> NDArray[np.float64]:
        """(J,) rad."""
        return self._joint_array("upper")

    @cached_property
    def velocity_limits(self) -> NDArray[np.float64]:
        """(J,) rad/s."""
        return self._joint_array("velocity")

    @cached_property
    def acceleration_limits(self) -> NDArray[np.float64]:
        """(J,) rad/s²."""
        return self._joint_array("acceleration")

    @cached_property
    def jerk_limits(self) -> NDArray[np.float64]:
        """(J,) rad/s³."""
        return self._joint_array("jerk")

    @cached_property
    def workspace_min(self) -> NDArray[np.float64]:
        """(3,) m, base frame."""
        return _read_only(self.workspace.min)

    @cached_property
    def workspace_max(self) -> NDArray[np.float64]:
        """(3,) m, base frame."""
        return _read_only(self.workspace.max)

    def urdf_text(self, mesh_directory: str | Path) -> str:
        """The URDF with its mesh names made absolute: relative to the URDF's folder, or to `mesh_directory`.

        A mesh that lies next to the URDF comes before one of the same name in `mesh_directory` (the
        simulator's own meshes). PyBullet looks next to the URDF only, whatever its search path says, so the
        simulator loads this text from a temporary file. Raises `RobotError` naming a mesh that is in neither.
        """
        root = ElementTree.parse(self.urdf).getroot()
        for mesh in root.iter("mesh"):
            name = mesh.get("filename", "")
            places = (self.urdf.parent / name, Path(mesh_directory) / name)
            path = next((place for place in places if place.is_file()), None)
            if path is None:
                raise RobotError(
                    f"{self.urdf}: mesh {name} is neither in {self.urdf.parent} nor in {mesh_directory}; "
                    "correct its name or the mesh directory"
                )
            mesh.set("filename", str(path.resolve()))
        return ElementTree.tostring(root, encoding="unicode")

    def _joint_array(self, field: str) -> NDArray[np.float64]:
        return _read_only([getattr(joint, field) for joint in self.joints])


def load_robot(name_or_path: str | Path) -> Robot:
    """The robot of `robots/NAME.yaml`, or of the given .yaml file. Raises `RobotError` if it does not fit."""
    path = robot_path(name_or_path)
    content = read_yaml(path, RobotError)
    if not isinstance(content, dict):
        raise RobotError(
            f"{path}: holds no robot; expected keys name, urdf, base_link, tool_link, joints, ..."
        )
    if isinstance(content.get("urdf"), str):
        content["urdf"] = path.parent / content["urdf"]
    calibration = content.get("camera_calibration")
    if isinstance(calibration, dict) and isinstance(calibration.get("reference"), str):
        calibration["reference"] = path.parent / calibration["reference"]
    try:
        robot = Robot.model_validate(content)
    except ValidationError as error:
        raise RobotError(f"{path}: {first_problem(error, 'robots/panda.yaml')}") from error
    _check_urdf(robot, path)
    return robot


def robot_names() -> tuple[str, ...]:
    """The robots that come with jepa-arm."""
    return tuple(sorted(path.stem for path in ROBOTS_DIR.glob("*.yaml")))


def robot_path(name_or_path: str | Path) -> Path:
    """The robot file that a name or a path names. Raises `RobotError` if there is none."""
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml") and len(path.parts) == 1:
        path = ROBOTS_DIR / f"{name_or_path}.yaml"
        if not path.is_file():
            known = ", ".join(robot_names())
            raise RobotError(
                f"no robot named {str(name_or_path)!r}; known: {known}; or give a robot .yaml file"
            )
    if not path.is_file():
        raise RobotError(
            f"{path}: no such robot file; check the path, or use one of {', '.join(robot_names())}"
        )
    return path.resolve()


def _check_urdf(robot: Robot, path: Path) -> None:
    """Hold the robot file to its URDF: named links and joints exist, and the limits fit."""
    if not robot.urdf.is_file():
        raise RobotError(
            f"{path}: urdf: {robot.urdf} does not exist; give its path relative to the robot file"
        )
    try:
        root = ElementTree.parse(robot.urdf).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise RobotError(f"{path}: urdf: {robot.urdf} is not a readable URDF ({error})") from error
    links = {link.get("name") for link in root.findall("link")}
    joints = {joint.get("name"): joint for joint in root.findall("joint")}
    for key in ("base_link", "tool_link"):
        if (link := getattr(robot, key)) not in links:
            raise RobotError(f"{path}: {key}: {robot.urdf.name} has no link {link!r}; correct the name")
    _check_collision_links(robot.collision, links, path, robot.urdf.name)
    if robot.gripper and robot.gripper.joint not in joints:
        raise RobotError(
            f"{path}: gripper.joint: {robot.urdf.name} has no joint {robot.gripper.joint!r}; correct the name"
        )
    for i, joint in enumerate(robot.joints):
        key = f"{path}: joints.{i}"
        if joint.name not in joints:
            raise RobotError(f"{key}.name: {robot.urdf.name} has no joint {joint.name!r}; correct the name")
        limit = joints[joint.name].find("limit")
        if joints[joint.name].get("type") not in ("revolute", "prismatic") or limit is None:
            raise RobotError(f"{key}.name: {joint.name} is not a revolute or prismatic joint with limits")
        try:
            urdf_lower, urdf_upper = float(limit.get("lower", 0.0)), float(limit.get("upper", 0.0))
        except ValueError as error:
            raise RobotError(
                f"{key}.name: the limits of {joint.name} in {robot.urdf.name}: {error}"
            ) from error
        if joint.lower < urdf_lower - 1e-9 or joint.upper > urdf_upper + 1e-9:
            raise RobotError(
                f"{key}: limits {joint.lower:g} to {joint.upper:g} of {joint.name} are wider than "
                f"{urdf_lower:g} to {urdf_upper:g} in {robot.urdf.name}; narrow them"
            )
    root_link, chain = _chain(joints, robot.tool_link)
    if robot.base_link != root_link:
        raise RobotError(
            f"{path}: base_link: {robot.base_link} is not the link that carries {robot.tool_link} in "
            f"{robot.urdf.name}; name its root, {root_link}"
        )
    driven = (*chain, robot.gripper.joint) if robot.gripper else chain
    if driven != robot.joint_names:
        last = ", the gripper's last" if robot.gripper else ""
        raise RobotError(
            f"{path}: joints: must list the movable joints from {robot.base_link} to {robot.tool_link} in "
            f"this order{last}: {', '.join(driven)}"
        )


def _check_collision_links(collision: Collision, links: set[str | None], path: Path, urdf: str) -> None:
    named = {f"collision.keep_out.{i}.ignores": box.ignores for i, box in enumerate(collision.keep_out)}
    named |= {f"collision.never_touch.{i}": pair for i, pair in enumerate(collision.never_touch)}
    for key, names in named.items():
        for name in names:
            if name not in links:
                raise RobotError(f"{path}: {key}: {urdf} has no link {name!r}; correct the name")


def _chain(joints: dict[str | None, ElementTree.Element], tool_link: str) -> tuple[str, tuple[str, ...]]:
    """The link at the root of the tool's chain, and the names of its movable joints from there on."""
    parent_joint = {_link(joint, "child"): joint for joint in joints.values()}
    names: list[str] = []
    link = tool_link
    while link in parent_joint:
        joint = parent_joint.pop(link)  # popped, so that a URDF whose links form a ring ends too
        if joint.get("type") != "fixed":
            names.insert(0, joint.get("name", ""))
        link = _link(joint, "parent")
    return link, tuple(names)


def _link(joint: ElementTree.Element, role: str) -> str:
    element = joint.find(role)
    return "" if element is None else element.get("link", "")


def _read_only(values: Any) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    array.flags.writeable = False
    return array
