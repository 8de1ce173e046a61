"""How near the robot's links are to each other and to the boxes they must keep out of.

    bodies = Bodies(robot)
    bodies.clearance(q)          # metres, cheap: exact where it is small enough to matter
    bodies.nearest(q)            # metres, and the names of the two that are nearest

Every collision shape of the URDF becomes its convex hull, so nothing is ever smaller than it is. Distances
are those of coal (GJK, EPA where shapes overlap: then they are negative). Pairs that one joint connects are
left out, as are those that the robot file lists as `never_touch`.

A joint that turns by δ moves no point of the robot by more than its lever · δ, where the lever is the longest
way from the joint to anything it carries. Two bodies are therefore no nearer than they were at the last exact
check, less the sum of lever · |δ| over the joints: as long as that is beyond `slow_from`, nothing is
computed.
"""

from __future__ import annotations

from typing import NamedTuple
from xml.etree import ElementTree

import coal
import numpy as np
import pinocchio
from numpy.typing import NDArray

from hardware.errors import RobotError
from hardware.robot import Robot

Array = NDArray[np.float64]


class Nearest(NamedTuple):
    """The least distance (m) between two bodies, negative where they overlap, and their names."""

    distance: float
    first: str
    second: str


class Bodies:
    """The collision shapes of one robot and its keep-out boxes. Joint positions `q` are (J,) rad."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        text = _collision_urdf(robot)
        self._model = pinocchio.buildModelFromXML(text)
        self._geometry = pinocchio.buildGeomFromUrdfString(
            self._model, text, pinocchio.GeometryType.COLLISION
        )
        self._links = [self._model.frames[shape.parentFrame].name for shape in self._geometry.geometryObjects]
        for shape in self._geometry.geometryObjects:
            shape.geometry = _hull(shape.geometry)
        self._add_boxes()
        self._add_pairs()
        self._data, self._distances = self._model.createData(), self._geometry.createData()
        for request in self._distances.distanceRequests:
            request.enable_signed_distance = True
        self._all = pinocchio.neutral(self._model)
        self._where, self._source = self._joint_map()
        self._levers = self._longest_ways()
        self._checked: Array | None = None
        self._nearest = Nearest(np.inf, "", "")

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The names of the links and boxes whose distances are checked."""
        return tuple((self._links[pair.first], self._links[pair.second]) for pair in self._pairs)

    @property
    def levers(self) -> Array:
        """(J,): how far (m) a point of the robot moves at most when a joint turns by one radian."""
        return self._levers

    def clearance(self, q: Array) -> float:
        """No more than the least distance (m) at `q`, and exactly that where it is below `slow_from`."""
        if self._checked is not None:
            bound = self._nearest.distance - float(self._levers @ np.abs(q - self._checked))
            if bound >= self.robot.collision.slow_from:
                return bound
        return self.nearest(q).distance

    def nearest(self, q: Array) -> Nearest:
        """The two bodies that are nearest to each other at `q`."""
        if not self._pairs:
            return self._nearest
        distances = self.distances(q)
        i = int(distances.argmin())
        self._checked, self._nearest = q.copy(), Nearest(float(distances[i]), *self.pairs[i])
        return self._nearest

    def distances(self, q: Array) -> Array:
        """(P,) m: the distance of each of the `pairs` at `q`."""
        self._all[self._where] = q[self._source]
        pinocchio.computeDistances(self._model, self._data, self._geometry, self._distances, self._all)
        return np.array([result.min_distance for result in self._distances.distanceResults])

    def _add_boxes(self) -> None:
        for box in self.robot.collision.keep_out:
            low, high = np.array(box.min), np.array(box.max)
            pose = pinocchio.SE3(np.eye(3), 0.5 * (low + high))
            shape = pinocchio.GeometryObject(box.name, 0, 0, pose, coal.Box(*(high - low)))
            self._geometry.addGeometryObject(shape)
            self._links.append(box.name)

    def _add_pairs(self) -> None:
        shapes, collision = self._geometry.geometryObjects, self.robot.collision
        skipped = {frozenset(pair) for pair in collision.never_touch}
        skipped |= {frozenset((box.name, link)) for box in collision.keep_out for link in box.ignores}
        boxes = range(len(shapes) - len(collision.keep_out), len(shapes))
        for i in range(len(shapes)):
            for j in range(i + 1, len(shapes)):
                one, other = shapes[i].parentJoint, shapes[j].parentJoint
                fixed = one == other
                # A box stands still like the links of the base, but is no part of the robot.
                connected = j not in boxes and self._connects(one, other)
                if not (fixed or connected or frozenset((self._links[i], self._links[j])) in skipped):
                    self._geometry.addCollisionPair(pinocchio.CollisionPair(i, j))
        self._pairs = list(self._geometry.collisionPairs)

    def _connects(self, one: int, other: int) -> bool:
        """Whether a single joint lies between what the joints `one` and `other` carry."""
        return self._model.parents[one] == other or self._model.parents[other] == one

    def _joint_map(self) -> tuple[list[int], list[int]]:
        """Which of the model's joints takes its position from which of the robot's; mimics follow theirs."""
        robot, where, source = self.robot, [], []
        for name in list(self._model.names)[1:]:
            driver = robot.mimics.get(name, name)
            if driver in robot.joint_names:
                where.append(self._model.joints[self._model.getJointId(name)].idx_q)
                source.append(robot.joint_names.index(driver))
        return where, source

    def _longest_ways(self) -> Array:
        """(J,): for each joint, the longest chain of placements from it to the surface of what it carries."""
        model = self._model
        ways = np.zeros(model.njoints)
        for shape in self._geometry.geometryObjects:
            shape.geometry.computeLocalAABB()
            radius = shape.geometry.aabb_radius + float(np.linalg.norm(shape.geometry.aabb_center))
            radius += float(np.linalg.norm(shape.placement.translation))
            ways[shape.parentJoint] = max(ways[shape.parentJoint], radius)
        for joint in range(model.njoints - 1, 0, -1):
            step = float(np.linalg.norm(model.jointPlacements[joint].translation))
            if model.joints[joint].shortname().startswith("JointModelP"):  # what slides also reaches further
                step += float(
                    np.abs([model.lowerPositionLimit, model.upperPositionLimit])[
                        :, model.joints[joint].idx_q
                    ].max()
                )
            parent = model.parents[joint]
            ways[parent] = max(ways[parent], ways[joint] + step)
        levers = np.zeros(len(self.robot.joints))
        for where, source in zip(self._where, self._source):
            joint = next(i for i in range(1, model.njoints) if model.joints[i].idx_q == where)
            slides = model.joints[joint].shortname().startswith("JointModelP")
            levers[source] += 1.0 if slides else ways[joint]
        return levers


def _collision_urdf(robot: Robot) -> str:
    """The URDF without what is only looked at, its meshes' names made absolute."""
    root = ElementTree.parse(robot.urdf).getroot()
    for link in root.findall("link"):
        for visual in link.findall("visual"):
            link.remove(visual)
    for mesh in root.iter("mesh"):
        path = robot.urdf.parent / mesh.get("filename", "")
        if not path.is_file():
            raise RobotError(
                f"{robot.urdf}: collision mesh {mesh.get('filename')} is not in {robot.urdf.parent}; "
                "put it there: the safety gate needs it"
            )
        mesh.set("filename", str(path.resolve()))
    return ElementTree.tostring(root, encoding="unicode")


def _hull(geometry: coal.CollisionGeometry) -> coal.CollisionGeometry:
    if not isinstance(geometry, coal.BVHModelBase):
        return geometry
    geometry.buildConvexHull(True, "Qt")
    return geometry.convex
