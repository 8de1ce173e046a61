"""The PyBullet world: a robot on a table, perhaps a block, and one camera.

The arm is driven by joint position targets, as a real one is; whoever wants task-space motion goes
through `sim.control`. Physics runs at 240 Hz. The same calls after the same `restart` give the same bytes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np
import pinocchio
import pybullet
import pybullet_data
from numpy.typing import NDArray
from pybullet_utils.bullet_client import BulletClient

from hardware.arm.contract import JointState
from hardware.robot import Robot
from sim.blocks import Block
from sim.conditions import NOMINAL, Conditions
from sim.errors import SimulationError

# A client that Ctrl-C met in its making would complain of lacking this when it is deleted.
BulletClient._client = -1

PHYSICS_HZ = 240
PHYSICS_STEP_NS = 1_000_000_000 // PHYSICS_HZ
# Bullet's own 0.1 leaves the arm 40 ms behind its setpoints; a real position servo is stiffer than that.
POSITION_GAIN = 0.5
GEAR_FORCE_N = 100.0
TABLE_COLOUR = (0.55, 0.52, 0.48, 1.0)


class World:
    """One simulated robot cell. Close it to free the physics client."""

    def __init__(self, robot: Robot, block: Block | None = None, pixel_noise: float = 2.0) -> None:
        """`pixel_noise` is the camera's Gaussian noise, standard deviation in grey levels of 255."""
        self.robot = robot
        self.block = block
        self.pixel_noise = pixel_noise
        self._bullet = BulletClient(pybullet.DIRECT)
        self.restart(seed=0)

    def _build(self) -> None:
        bullet = self._bullet
        bullet.setGravity(0.0, 0.0, -9.81)
        bullet.setTimeStep(1.0 / PHYSICS_HZ)
        self._lay_table()
        self._arm = self._load_arm()
        indices = {}
        for joint in range(bullet.getNumJoints(self._arm)):
            info = bullet.getJointInfo(self._arm, joint)
            indices[info[1].decode()] = joint
            if info[12].decode() == self.robot.tool_link:
                self._tool = joint
        self._joints = [indices[name] for name in self.robot.joint_names]
        # A joint that mimics another gets its targets, and a gear: else what is grasped pushes both aside.
        self._copies = [(indices[name], self._names.index(of)) for name, of in self.robot.mimics.items()]
        self._driven = self._joints + [joint for joint, _ in self._copies]
        for joint, of in self._copies:
            gear = bullet.createConstraint(
                self._arm,
                self._joints[of],
                self._arm,
                joint,
                pybullet.JOINT_GEAR,
                (1, 0, 0),
                (0, 0, 0),
                (0, 0, 0),
            )
            bullet.changeConstraint(gear, gearRatio=-1, erp=0.1, maxForce=GEAR_FORCE_N)
        self._gains = [POSITION_GAIN] * len(self._driven)
        self._efforts = [bullet.getJointInfo(self._arm, joint)[10] for joint in self._driven]
        self._object = None if self.block is None else self._make_block(self.block)
        mount = self.robot.camera
        self._view = bullet.computeViewMatrix(mount.position, mount.target, mount.up)
        self.knock_camera(np.array(self.conditions.camera_shift), np.array(self.conditions.camera_turn))
        self._projection = bullet.computeProjectionMatrixFOV(
            float(np.degrees(mount.vertical_fov)), mount.width / mount.height, 0.05, 3.0
        )
        self.set_joints(np.asarray(self.robot.home))

    @property
    def _names(self) -> tuple[str, ...]:
        return self.robot.joint_names

    def _lay_table(self) -> None:
        bullet, conditions = self._bullet, self.conditions
        half, colour = (0.45, 0.5, 0.02), _shifted(TABLE_COLOUR, conditions.table_colour)
        shape = bullet.createCollisionShape(pybullet.GEOM_BOX, halfExtents=half)
        visual = bullet.createVisualShape(pybullet.GEOM_BOX, halfExtents=half, rgbaColor=colour)
        table = bullet.createMultiBody(0.0, shape, visual, (0.45, 0.0, -0.02))
        if conditions.texture is not None:
            bullet.changeVisualShape(table, -1, textureUniqueId=self._load_texture(conditions.texture))

    def _load_texture(self, seed: int) -> int:
        """A pattern of blurred patches, light enough to keep the table's colour."""
        patches = np.random.default_rng(seed).integers(150, 256, (9, 9, 3), dtype=np.uint8)
        with tempfile.TemporaryDirectory() as folder:
            # Bullet remembers textures by file name.
            path = Path(folder) / f"{seed}.png"
            cv2.imwrite(str(path), cv2.resize(patches, (96, 96), interpolation=cv2.INTER_CUBIC))
            return int(self._bullet.loadTexture(str(path)))

    def _make_block(self, block: Block) -> int:
        bullet, conditions = self._bullet, self.conditions
        size, count = conditions.size, len(block.boxes)
        halves, centres = block.halves(size), block.centres(size)
        kinds = [pybullet.GEOM_BOX] * count
        colour = _shifted(block.colour, conditions.block_colour)
        shape = bullet.createCollisionShapeArray(
            shapeTypes=kinds, halfExtents=halves, collisionFramePositions=centres
        )
        visual = bullet.createVisualShapeArray(
            shapeTypes=kinds, halfExtents=halves, visualFramePositions=centres, rgbaColors=[colour] * count
        )
        body = int(
            bullet.createMultiBody(
                block.mass * conditions.mass, shape, visual, (0.5, 0.0, block.height / 2 * size)
            )
        )
        bullet.changeDynamics(body, -1, lateralFriction=block.friction * conditions.friction)
        return body

    def _load_arm(self) -> int:
        with tempfile.TemporaryDirectory() as folder:
            resolved = Path(folder) / self.robot.urdf.name
            resolved.write_text(self.robot.urdf_text(Path(pybullet_data.getDataPath())))
            try:
                return int(self._bullet.loadURDF(str(resolved), useFixedBase=True))
            except pybullet.error as error:
                raise SimulationError(
                    f"PyBullet cannot load {self.robot.urdf}: {error}; check its mesh file names"
                ) from error

    def restart(self, seed: int, conditions: Conditions = NOMINAL) -> None:
        """Back to the first state of this world, under `conditions`; camera noise starts over from `seed`."""
        self.conditions = conditions
        # Restoring a saved state would keep Bullet's contact caches, and with them traces of the past.
        self._bullet.resetSimulation()
        self._build()
        self._noise = np.random.default_rng(seed)
        self._steps = 0
        self._saved_targets: dict[int, NDArray[np.float64]] = {}
        self._light = 1.0

    def save(self) -> int:
        """Remember the physical state; give the handle to `restore`, then to `forget`."""
        handle = int(self._bullet.saveState())
        self._saved_targets[handle] = self._targets
        return handle

    def restore(self, handle: int) -> None:
        self._bullet.restoreState(handle)
        # Bullet's saved state leaves out what the motors were told.
        self.set_joint_targets(self.robot.joint_names, self._saved_targets[handle])

    def forget(self, handle: int) -> None:
        self._bullet.removeState(handle)
        del self._saved_targets[handle]

    @property
    def time_ns(self) -> int:
        """Simulated time since the last `restart`."""
        return self._steps * PHYSICS_STEP_NS

    def advance(self, steps: int) -> None:
        """Run `steps` physics steps of 1/240 s."""
        for _ in range(steps):
            self._bullet.stepSimulation()
        self._steps += steps

    def joint_state(self) -> JointState:
        """Measured joints, stamped with simulated time."""
        states = self._bullet.getJointStates(self._arm, self._joints)
        return JointState(
            self.robot.joint_names,
            np.array([state[0] for state in states]),
            np.array([state[1] for state in states]),
            self.time_ns,
        )

    def set_joint_targets(self, names: tuple[str, ...], positions: NDArray[np.float64]) -> None:
        """Position targets (J,) rad for the joint motors, matched by name."""
        if set(names) != set(self._names):
            raise SimulationError(f"targets for {names}; {self.robot.name} has joints {self._names}")
        if names != self._names:
            by_name = dict(zip(names, positions, strict=True))
            positions = np.array([by_name[name] for name in self._names])
        self._targets = np.array(positions, dtype=np.float64)
        self._bullet.setJointMotorControlArray(
            self._arm,
            self._driven,
            pybullet.POSITION_CONTROL,
            targetPositions=[*positions, *(positions[of] for _, of in self._copies)],
            forces=self._efforts,
            positionGains=self._gains,
        )

    def set_joints(self, positions: NDArray[np.float64]) -> None:
        """Put the joints (J,) rad there at once, at rest."""
        for joint, position in zip(self._joints, positions, strict=True):
            self._bullet.resetJointState(self._arm, joint, float(position))
        for joint, of in self._copies:
            self._bullet.resetJointState(self._arm, joint, float(positions[of]))
        self.set_joint_targets(self.robot.joint_names, positions)

    def tool_position(self) -> NDArray[np.float64]:
        """True tool-tip position (3,) in metres, base frame."""
        return np.array(self._bullet.getLinkState(self._arm, self._tool, computeForwardKinematics=True)[4])

    def object_position(self) -> NDArray[np.float64] | None:
        """True centre of the object (3,) in metres, or None where the world has none."""
        if self._object is None:
            return None
        return np.array(self._bullet.getBasePositionAndOrientation(self._object)[0])

    def object_pose(self) -> NDArray[np.float64]:
        """True centre of the object in metres and its yaw in rad: (4,). NaN where the world has none."""
        if self._object is None:
            return np.full(4, np.nan)
        position, orientation = self._bullet.getBasePositionAndOrientation(self._object)
        return np.array([*position, self._bullet.getEulerFromQuaternion(orientation)[2]])

    def object_speed(self) -> float:
        """True speed of the object's centre in m/s; 0 where the world has none."""
        if self._object is None:
            return 0.0
        return float(np.linalg.norm(self._bullet.getBaseVelocity(self._object)[0]))

    def object_is_touched(self) -> bool:
        """Whether the arm touches the object now."""
        return self._object is not None and bool(self._bullet.getContactPoints(self._arm, self._object))

    def place_object(self, x: float, y: float, yaw: float) -> None:
        """Put the object on the table at (x, y) metres, turned by `yaw` rad, at rest."""
        if self._object is None or self.block is None:
            raise SimulationError("this world has no object to place")
        orientation = self._bullet.getQuaternionFromEuler((0.0, 0.0, yaw))
        height = self.block.height / 2 * self.conditions.size
        self._bullet.resetBasePositionAndOrientation(self._object, (x, y, height), orientation)
        self._bullet.resetBaseVelocity(self._object, (0, 0, 0), (0, 0, 0))

    def fix_object(self) -> None:
        """Glue the object to where it stands, until the next `restart`."""
        if self._object is None:
            raise SimulationError("this world has no object to fix")
        position, orientation = self._bullet.getBasePositionAndOrientation(self._object)
        self._bullet.createConstraint(
            self._object,
            -1,
            -1,
            -1,
            pybullet.JOINT_FIXED,
            (0, 0, 0),
            (0, 0, 0),
            position,
            childFrameOrientation=orientation,
        )

    def knock_camera(self, shift: NDArray[np.float64], turn: NDArray[np.float64]) -> None:
        """Move the camera by `shift` (3,) metres and `turn` (3,) rotation vector in rad, in its own frame.

        It stays so until the next `restart`.
        """
        knock = np.eye(4)
        knock[:3, :3] = pinocchio.exp3(-np.asarray(turn, dtype=np.float64))
        knock[:3, 3] = -np.asarray(shift, dtype=np.float64)
        view = np.array(self._view).reshape(4, 4).T  # OpenGL's matrices are column by column
        self._view = tuple((knock @ view).T.ravel())

    def set_light(self, share: float) -> None:
        """Let `share` of the light reach the camera from now on, 1 being all of it, until `restart`."""
        self._light = share

    def add_apparition(
        self, half: tuple[float, float, float], colour: tuple[float, float, float, float]
    ) -> int:
        """A box of half extents in metres that is seen but touches nothing, out of sight under the table."""
        visual = self._bullet.createVisualShape(pybullet.GEOM_BOX, halfExtents=half, rgbaColor=colour)
        return int(self._bullet.createMultiBody(0.0, -1, visual, (0.0, 0.0, -1.0)))

    def move_apparition(self, body: int, position: NDArray[np.float64]) -> None:
        """Put the centre of what `add_apparition` gave at `position` (3,) metres."""
        self._bullet.resetBasePositionAndOrientation(body, position, (0, 0, 0, 1))

    def render(self) -> NDArray[np.uint8]:
        """What the camera sees now: uint8 (H, W, 3) RGB, with its noise."""
        mount = self.robot.camera
        pixels = self._bullet.getCameraImage(
            mount.width,
            mount.height,
            self._view,
            self._projection,
            lightDirection=self.conditions.light_direction,
            shadow=0,
            renderer=pybullet.ER_TINY_RENDERER,
            flags=pybullet.ER_NO_SEGMENTATION_MASK,
        )[2]
        image = np.asarray(pixels, dtype=np.uint8).reshape(mount.height, mount.width, 4)[:, :, :3]
        gain = self._light * self.conditions.brightness * np.array(self.conditions.tint, np.float32)
        if (gain == 1.0).all() and self.pixel_noise <= 0:
            return np.ascontiguousarray(image)
        noise = self._noise.standard_normal(image.shape, dtype=np.float32) * self.pixel_noise
        return np.clip(image * gain.astype(np.float32) + noise + 0.5, 0, 255).astype(np.uint8)

    def close(self) -> None:
        if self._bullet.isConnected():
            self._bullet.disconnect()


def _shifted(
    colour: tuple[float, float, float, float], offset: tuple[float, float, float]
) -> tuple[float, float, float, float]:
    red, green, blue = (min(max(c + d, 0.0), 1.0) for c, d in zip(colour, offset))
    return red, green, blue, colour[3]
