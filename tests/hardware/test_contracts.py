"""The public checks hold any camera and any arm to their contract: each broken promise is found and named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hardware.arm.contract import JointCommand, JointState, check_arm
from hardware.camera.contract import Frame, NoNewFrame, check_camera
from hardware.errors import ContractError


class GoodCamera:
    """Keeps every promise; the broken ones below each break one."""

    def __init__(self) -> None:
        self.is_open = False
        self.count = 0

    def open(self) -> None:
        self.is_open = True

    def read(self, timeout_s: float) -> Frame:
        if not self.is_open:
            raise RuntimeError("not open")
        self.count += 1
        return Frame(np.full((4, 6, 3), self.count, np.uint8), self.count * 1000, "camera")

    def close(self) -> None:
        self.is_open = False


class Repeats(GoodCamera):
    """The stamp stays the same from the second frame on."""

    def read(self, timeout_s: float) -> Frame:
        return dataclasses.replace(super().read(timeout_s), stamp_ns=1000)


class GoesBack(GoodCamera):
    def read(self, timeout_s: float) -> Frame:
        frame = super().read(timeout_s)
        return dataclasses.replace(frame, stamp_ns=10_000 - frame.stamp_ns)


class Spoils(GoodCamera):
    """Gives every frame `changes`."""

    def __init__(self, **changes) -> None:
        super().__init__()
        self.changes = changes

    def read(self, timeout_s: float) -> Frame:
        return dataclasses.replace(super().read(timeout_s), **self.changes)


class ChangesSize(GoodCamera):
    def read(self, timeout_s: float) -> Frame:
        frame = super().read(timeout_s)
        return dataclasses.replace(frame, image=np.zeros((4, 6 + self.count, 3), np.uint8))


class ReusesItsBuffer(GoodCamera):
    def __init__(self) -> None:
        super().__init__()
        self.buffer = np.zeros((4, 6, 3), np.uint8)

    def read(self, timeout_s: float) -> Frame:
        frame = super().read(timeout_s)
        self.buffer += 1
        return dataclasses.replace(frame, image=self.buffer)


class NeverReady(GoodCamera):
    def read(self, timeout_s: float) -> Frame:
        super().read(timeout_s)
        raise NoNewFrame


class ReadsWhenClosed(GoodCamera):
    def close(self) -> None:
        pass


class ClosesOnce(GoodCamera):
    def close(self) -> None:
        if not self.is_open:
            raise RuntimeError("already closed")
        super().close()


class CannotClose:
    def open(self) -> None: ...

    def read(self, timeout_s: float) -> Frame: ...


IMAGE = np.zeros((4, 6, 3), np.uint8)
BROKEN_CAMERAS = {
    "repeats a frame": (Repeats, "does not come after"),
    "goes back in time": (GoesBack, "does not come after"),
    "floats": (lambda: Spoils(image=IMAGE.astype(np.float32)), "uint8"),
    "no array": (lambda: Spoils(image=[[[0]]]), "uint8"),
    "grey": (lambda: Spoils(image=IMAGE[:, :, 0]), r"\(H, W, 3\)"),
    "four channels": (lambda: Spoils(image=np.zeros((4, 6, 4), np.uint8)), r"\(H, W, 3\)"),
    "stamp in seconds": (lambda: Spoils(stamp_ns=0.5), "stamp_ns"),
    "stamp before time": (lambda: Spoils(stamp_ns=-1), "stamp_ns"),
    "nameless": (lambda: Spoils(frame_id=""), "frame_id"),
    "changes size": (ChangesSize, "size"),
    "reuses its buffer": (ReusesItsBuffer, "changed after"),
    "never ready": (NeverReady, "no new frame within"),
    "reads when closed": (ReadsWhenClosed, "after close"),
    "closes once": (ClosesOnce, "close"),
    "cannot close": (CannotClose, "lacks"),
}


def test_a_camera_that_keeps_its_promises_passes():
    camera = GoodCamera()
    check_camera(camera)
    assert not camera.is_open


@pytest.mark.parametrize("make, promise", BROKEN_CAMERAS.values(), ids=BROKEN_CAMERAS)
def test_a_camera_that_breaks_a_promise_is_told_which(make, promise):
    with pytest.raises(ContractError, match=promise):
        check_camera(make())


def test_a_camera_is_closed_even_when_it_fails_the_check():
    camera = Repeats()
    with pytest.raises(ContractError):
        check_camera(camera)
    assert not camera.is_open


class GoodArm:
    """Keeps every promise; the broken ones below each break one."""

    joint_names: tuple[str, ...] = ("shoulder", "elbow")

    def __init__(self) -> None:
        self.connected = False
        self.positions = np.array([0.5, -0.5])
        self.stamp_ns = 0

    def connect(self) -> None:
        self.connected = True

    def state(self) -> JointState:
        self.stamp_ns += 1
        return JointState(self.joint_names, self.positions.copy(), np.zeros(2), self.stamp_ns)

    def command(self, command: JointCommand) -> JointCommand:
        index = [command.names.index(name) for name in self.joint_names]
        self.positions[:] = command.positions[index]
        return command

    def stop(self) -> None: ...

    def disconnect(self) -> None:
        self.connected = False


class SpoilsState(GoodArm):
    """Gives every state `changes`."""

    def __init__(self, **changes) -> None:
        super().__init__()
        self.changes = changes

    def state(self) -> JointState:
        return dataclasses.replace(super().state(), **self.changes)


class SpoilsCommand(GoodArm):
    """Says that it sent something else than it was told."""

    def __init__(self, **changes) -> None:
        super().__init__()
        self.changes = changes

    def command(self, command: JointCommand) -> JointCommand:
        return dataclasses.replace(command, **self.changes)


class SendsNothing(GoodArm):
    def command(self, command: JointCommand) -> JointCommand:
        return None  # type: ignore[return-value]


class HandsOutItsBuffer(GoodArm):
    def state(self) -> JointState:
        return dataclasses.replace(super().state(), positions=self.positions)

    def stop(self) -> None:
        self.positions += 0.01


class TimeRunsBack(GoodArm):
    def state(self) -> JointState:
        return dataclasses.replace(super().state(), stamp_ns=100 - self.stamp_ns)


class BreaksWhenStopped(GoodArm):
    def stop(self) -> None:
        self.positions[:] = np.nan


class DisconnectsOnce(GoodArm):
    def disconnect(self) -> None:
        if not self.connected:
            raise RuntimeError("already disconnected")
        super().disconnect()


class CannotStop:
    joint_names = ("shoulder",)

    def connect(self) -> None: ...

    def state(self) -> JointState: ...

    def command(self, command: JointCommand) -> JointCommand: ...

    def disconnect(self) -> None: ...


BROKEN_ARMS = {
    "other names": (lambda: SpoilsState(names=("shoulder", "wrist")), "joints"),
    "a name twice": (lambda: SpoilsState(names=("shoulder", "elbow", "elbow")), "joints"),
    "a position too few": (lambda: SpoilsState(positions=np.zeros(1)), "positions has shape"),
    "no velocities": (lambda: SpoilsState(velocities=np.zeros(0)), "velocities has shape"),
    "NaN position": (lambda: SpoilsState(positions=np.array([np.nan, 0.0])), "not finite"),
    "infinite velocity": (lambda: SpoilsState(velocities=np.array([np.inf, 0.0])), "not finite"),
    "stamp before time": (lambda: SpoilsState(stamp_ns=-1), "negative"),
    "time runs back": (TimeRunsBack, "comes before"),
    "hands out its buffer": (HandsOutItsBuffer, "changed after"),
    "sends nothing": (SendsNothing, "actually sent"),
    "sends to other joints": (lambda: SpoilsCommand(names=("a", "b")), "actually sent"),
    "sends NaN": (lambda: SpoilsCommand(positions=np.full(2, np.nan)), "finite position"),
    "sends too little": (lambda: SpoilsCommand(positions=np.zeros(1)), "finite position"),
    "sends elsewhere": (lambda: SpoilsCommand(positions=np.zeros(2)), "hold 0.500"),
    "mixes up its joints": (lambda: SpoilsCommand(names=("elbow", "shoulder")), "hold"),
    "breaks when stopped": (BreaksWhenStopped, "not finite"),
    "disconnects once": (DisconnectsOnce, "disconnect"),
    "cannot stop": (CannotStop, "lacks"),
}


def test_an_arm_that_keeps_its_promises_passes_and_is_not_moved():
    arm = GoodArm()
    check_arm(arm)
    np.testing.assert_array_equal(arm.positions, [0.5, -0.5])
    assert not arm.connected


@pytest.mark.parametrize("make, promise", BROKEN_ARMS.values(), ids=BROKEN_ARMS)
def test_an_arm_that_breaks_a_promise_is_told_which(make, promise):
    with pytest.raises(ContractError, match=promise):
        check_arm(make())


def test_a_joint_state_can_be_read_in_another_order():
    state = JointState(("a", "b", "c"), np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0]), 7)
    ordered = state.ordered(("c", "a"))
    assert ordered.names == ("c", "a") and ordered.stamp_ns == 7
    np.testing.assert_array_equal(ordered.positions, [3.0, 1.0])
    np.testing.assert_array_equal(ordered.velocities, [6.0, 4.0])
    with pytest.raises(KeyError):
        state.ordered(("d",))
