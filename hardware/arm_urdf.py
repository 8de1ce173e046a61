"""Making an arm's URDF one that this code, its simulator and its renderer can use.

    arm = read_arm(Path("arm.urdf"), tool_link=None)       # the chain, its joints, what had to be guessed
    arm.replace_meshes(folder, "meshes")                   # low-poly copies of the collision meshes
    arm.add_peg(0.14)
    arm.write(folder / "mine.urdf")

What the URDF does not say is filled in and noted in `arm.guesses`; what it must say, and does not, is a
`RobotError`.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from hardware.errors import RobotError
from hardware.meshes import load_mesh, simplified, write_obj

PEG_RADIUS_M = 0.012
PEG_TIP_M = 0.03  # its coloured end
GUESSED_VELOCITY = 1.0  # rad/s or m/s
GUESSED_EFFORT = 50.0  # N·m or N
PLAUSIBLE_VELOCITY = 2 * math.pi  # a faster joint's limit is a placeholder more often than not
MOVABLE = ("revolute", "continuous", "prismatic")

Element = ElementTree.Element


@dataclass(frozen=True)
class ArmJoint:
    """A movable joint as the URDF describes it (rad or m, and /s); `guessed` names what it did not say."""

    name: str
    lower: float
    upper: float
    velocity: float
    guessed: tuple[str, ...] = ()


@dataclass
class ArmUrdf:
    """A URDF and the chain in it from `base_link` to `tool_link`."""

    source: Path
    root: Element
    base_link: str
    tool_link: str
    joints: tuple[ArmJoint, ...]
    guesses: list[str] = field(default_factory=list)
    simplified: list[str] = field(default_factory=list)

    def add_peg(self, length_m: float) -> None:
        """Put a slim peg on the tool link, along its z axis; the tool is its tip `peg_tip` from then on."""
        if not PEG_TIP_M < length_m < math.inf:
            raise RobotError(f"a peg of {length_m:g} m: give a length of more than {PEG_TIP_M:g} m")
        for name in ("peg", "peg_tip"):
            if any(link.get("name") == name for link in self.root.findall("link")):
                raise RobotError(f"{self.source}: has a link {name!r} already; leave out --peg")
        shaft = length_m - PEG_TIP_M
        text = f"""<robot>
          <material name="peg_dark"><color rgba="0.20 0.21 0.24 1"/></material>
          <material name="peg_orange"><color rgba="1.0 0.45 0.05 1"/></material>
          {_fixed_joint("peg_joint", self.tool_link, "peg", "0 0 0")}
          <link name="peg">
            {_rod_inertia(0.15, length_m, length_m / 2)}
            <visual>{_rod(shaft, shaft / 2)}<material name="peg_dark"/></visual>
            <collision>{_rod(length_m, length_m / 2)}</collision>
          </link>
          {_fixed_joint("peg_tip_joint", "peg", "peg_tip", f"0 0 {length_m:g}")}
          <link name="peg_tip">
            {_rod_inertia(0.01, PEG_TIP_M, -PEG_TIP_M / 2)}
            <visual>{_rod(PEG_TIP_M, -PEG_TIP_M / 2)}<material name="peg_orange"/></visual>
          </link>
        </robot>"""
        self.root.extend(ElementTree.fromstring(text))
        self.tool_link = "peg_tip"

    def stand_at(self, x: float) -> None:
        """Put the arm `x` metres forward on a link `table`, whose frame is the base frame from then on."""
        if any(link.get("name") == "table" for link in self.root.findall("link")):
            raise RobotError(f"{self.source}: has a link 'table' already; rename it")
        mount = _fixed_joint("table_mount", "table", self.base_link, f"{x:g} 0 0")
        table = f'<link name="table">{_inertial(1.0, 1e-2, 1e-2, 0.0)}</link>'
        self.root.extend(ElementTree.fromstring(f"<robot>{table}{mount}</robot>"))
        self.base_link = "table"

    def replace_meshes(self, folder: Path, name: str) -> None:
        """Show each link by its collision geometry, its meshes low-poly copies in `folder`/`name`."""
        for link in self.root.findall("link"):
            visuals, shapes = link.findall("visual"), link.findall("collision")
            if visuals and not shapes:
                self.guesses.append(f"link {link.get('name')} has no collision geometry: its visual is taken")
                shapes = visuals
            material = next((m for v in visuals if (m := v.find("material")) is not None), None)
            for element in (*visuals, *link.findall("collision")):
                link.remove(element)
            for i, shape in enumerate(shapes):
                for mesh in shape.iter("mesh"):
                    low_poly = f"{name}/{link.get('name')}_{i}.obj"
                    self._copy_mesh(mesh, folder / low_poly)
                    mesh.attrib = {"filename": low_poly}
                for tag in ("visual", "collision"):
                    element = ElementTree.SubElement(link, tag)
                    parts = (shape.find("origin"), shape.find("geometry"))
                    element.extend(copy.deepcopy(part) for part in parts if part is not None)
                    if tag == "visual" and material is not None:
                        element.append(copy.deepcopy(material))

    def _copy_mesh(self, mesh: Element, target: Path) -> None:
        path = find_mesh(mesh.get("filename", ""), self.source)
        scale = mesh.get("scale", "1 1 1")
        try:
            x, y, z = (float(part) for part in scale.split())
        except ValueError as error:
            raise RobotError(f"{self.source}: scale {scale!r} of {path.name} is not three numbers") from error
        vertices, triangles = load_mesh(path, (x, y, z))
        fewer = simplified(vertices, triangles)
        if len(fewer[1]) < len(triangles):
            self.simplified.append(
                f"{path.name} has {len(triangles)} triangles: made {len(fewer[1])} of them"
            )
        write_obj(target, *fewer)

    def write(self, path: Path, comment: str) -> None:
        """Write the URDF with `comment` at its top."""
        ElementTree.indent(self.root)
        body = ElementTree.tostring(self.root, encoding="unicode")
        path.write_text(f'<?xml version="1.0"?>\n<!-- {comment} -->\n{body}\n', encoding="utf-8")


def read_arm(source: Path, tool_link: str | None = None) -> ArmUrdf:
    """The arm in a URDF, with what the simulator lacks filled in.

    `tool_link` is by default the end of the chain with the most movable joints; where chains as long branch
    off, as fingers do, the link that they branch off from. Raises `RobotError` where the URDF cannot do.
    """
    try:
        root = ElementTree.parse(source).getroot()
    except FileNotFoundError as error:
        raise RobotError(f"{source}: no such URDF; check the path") from error
    except (OSError, ElementTree.ParseError, UnicodeDecodeError) as error:
        raise RobotError(f"{source}: not a readable URDF ({error})") from error
    if source.suffix == ".xacro" or any("xacro}" in element.tag for element in root.iter()):
        raise RobotError(f"{source}: is a xacro file; give the URDF that `xacro {source.name}` prints")
    if root.tag != "robot":
        raise RobotError(f"{source}: not a URDF: its root element is <{root.tag}>, not <robot>")
    joints = {_link(joint, "child"): joint for joint in root.findall("joint")}
    links = [link.get("name", "") for link in root.findall("link")]
    if not any(joint.get("type") in MOVABLE for joint in joints.values()):
        raise RobotError(f"{source}: no chain of movable joints in it; give the URDF of an arm")
    if tool_link is None:
        tool_link = _default_tool(links, joints)
    elif tool_link not in links:
        raise RobotError(f"{source}: no link {tool_link!r}; its links: {', '.join(links)}")
    path = _path_to(tool_link, joints)
    if path and _link(joints[path[0]], "parent") in joints:
        raise RobotError(f"{source}: its links form a ring; cut it open where {tool_link} is carried")
    base_link = _link(joints[path[0]], "parent") if path else tool_link
    arm = ArmUrdf(source, root, base_link, tool_link, ())
    chain = [joints[link] for link in path if joints[link].get("type") != "fixed"]
    if not chain:
        raise RobotError(f"{source}: no movable joint between {base_link} and {tool_link}; name another tool")
    arm.joints = tuple(_read_joint(joint, arm) for joint in chain)
    _fill_in(arm)
    return arm


def find_mesh(name: str, source: Path) -> Path:
    """Where a mesh of the URDF `source` is: `package://` is looked for in the folders above it."""
    folder = source.resolve().parent
    package, _, rest = name.removeprefix("package://").partition("/")
    places = [folder / name.removeprefix("file://")]
    if name.startswith("package://"):
        above = (folder, *folder.parents)
        places = [place / package / rest for place in above]
        places += [place / rest for place in above if place.name == package]
    for place in places:
        if place.is_file():
            return place
    where = f"above {folder}" if name.startswith("package://") else f"from {folder}"
    raise RobotError(f"{source}: mesh {name!r} is not found {where}; put it there or correct its name")


def _default_tool(links: list[str], joints: dict[str, Element]) -> str:
    parents = {_link(joint, "parent") for joint in joints.values()}
    paths = [_path_to(link, joints) for link in links if link not in parents]
    if not paths:  # every link carries another: a ring, which is found out on the way from any of them
        return links[0]
    depths = [sum(joints[link].get("type") in MOVABLE for link in path) for path in paths]
    longest = [path for path, depth in zip(paths, depths) if depth == max(depths)]
    shared = [steps[0] for steps in zip(*longest) if len(set(steps)) == 1]
    return shared[-1] if shared else longest[0][-1]


def _path_to(link: str, joints: dict[str, Element]) -> list[str]:
    """The links from the one after the root to `link`; `joints` maps a link to the joint that carries it."""
    path: list[str] = []
    while link in joints and link not in path:  # a URDF whose links form a ring ends too
        path.insert(0, link)
        link = _link(joints[link], "parent")
    return path


def _read_joint(joint: Element, arm: ArmUrdf) -> ArmJoint:
    """One joint of the chain. A continuous one gets limits, in the URDF as well."""
    name, kind, where = joint.get("name", ""), joint.get("type"), arm.source
    if kind not in MOVABLE or joint.find("mimic") is not None:
        what = "a mimic joint" if joint.find("mimic") is not None else f"of type {kind!r}"
        raise RobotError(f"{where}: {name} on the way to {arm.tool_link} is {what}; name another --tool-link")
    guessed: list[str] = []
    limit = joint.find("limit")
    if limit is None and kind == "continuous":
        limit = ElementTree.SubElement(joint, "limit")
    if limit is None:
        raise RobotError(f"{where}: joint {name} has no <limit>; write its lower and upper limit there")
    if kind == "continuous":
        joint.set("type", "revolute")
        limit.attrib.update(lower=f"{-math.pi:.6f}", upper=f"{math.pi:.6f}")
        guessed += ["lower", "upper"]
    lower, upper, velocity, effort = (
        _number(limit, key, f"the limit of joint {name}", arm)
        for key in ("lower", "upper", "velocity", "effort")
    )
    if lower >= upper:
        raise RobotError(f"{where}: joint {name}: lower limit {lower:g} is not below upper limit {upper:g}")
    if velocity <= 0:
        velocity = GUESSED_VELOCITY
        guessed.append("velocity")
    elif velocity > PLAUSIBLE_VELOCITY:
        guessed.append("velocity (the URDF's, more than most joints do)")
    if effort <= 0:
        limit.set("effort", f"{GUESSED_EFFORT:g}")
        arm.guesses.append(f"joint {name} has no effort limit: the simulator takes {GUESSED_EFFORT:g} N·m")
    return ArmJoint(name, lower, upper, velocity, tuple(guessed))


def _number(element: Element, key: str, what: str, arm: ArmUrdf) -> float:
    text = element.get(key, "0")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RobotError(f"{arm.source}: {what}: {key}={text!r} is not a finite number")
    return value


def _fill_in(arm: ArmUrdf) -> None:
    """Masses for links without, which the simulator would take for 1 kg; leave out what it does not know."""
    for element in list(arm.root):
        if element.tag not in ("link", "joint", "material"):
            arm.root.remove(element)
    for material in arm.root.iter("material"):
        for texture in material.findall("texture"):
            material.remove(texture)
    for link in arm.root.findall("link"):
        inertial = link.find("inertial")
        given = None if inertial is None else inertial.find("mass")
        if given is not None and _number(given, "value", f"the mass of {link.get('name')}", arm) > 0:
            continue
        if inertial is not None:
            link.remove(inertial)
        solid = link.find("visual") is not None or link.find("collision") is not None
        mass, inertia = (0.5, 2e-3) if solid else (0.01, 1e-5)
        if solid:
            arm.guesses.append(f"link {link.get('name')} has no mass: the simulator takes {mass:g} kg")
        link.append(ElementTree.fromstring(_inertial(mass, inertia, inertia, 0.0)))


def _link(joint: Element, role: str) -> str:
    element = joint.find(role)
    return "" if element is None else element.get("link", "")


def _fixed_joint(name: str, parent: str, child: str, xyz: str) -> str:
    return (
        f'<joint name="{name}" type="fixed"><origin xyz="{xyz}"/>'
        f'<parent link="{parent}"/><child link="{child}"/></joint>'
    )


def _rod(length: float, z: float) -> str:
    cylinder = f'<cylinder radius="{PEG_RADIUS_M:g}" length="{length:g}"/>'
    return f'<origin xyz="0 0 {z:g}"/><geometry>{cylinder}</geometry>'


def _rod_inertia(mass: float, length: float, z: float) -> str:
    across = mass * (3 * PEG_RADIUS_M**2 + length**2) / 12
    return _inertial(mass, across, mass * PEG_RADIUS_M**2 / 2, z)


def _inertial(mass: float, across: float, along: float, z: float) -> str:
    return (
        f'<inertial><origin xyz="0 0 {z:g}"/><mass value="{mass:g}"/>'
        f'<inertia ixx="{across:.4g}" iyy="{across:.4g}" izz="{along:.4g}" ixy="0" ixz="0" iyz="0"/>'
        "</inertial>"
    )
