"""What an arm promises, and a checker that holds any arm to it.

Joints are matched by name everywhere, never by index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hardware.errors import ContractError

# How far (rad) from the commanded position an arm may send its joints when it is told to stay where it is.
HOLD_TOLERANCE = 0.05


@dataclass(frozen=True)
class JointState:
    """Measured joints: `positions` (J,) rad, `velocities` (J,) rad/s, taken at `stamp_ns`.

    A reading keeps its stamp: an arm that has nothing new hands out the same stamp again, or raises.
    """

    names: tuple[str, ...]
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]
    stamp_ns: int

    def ordered(self, names: tuple[str, ...]) -> JointState:
        """The same state with its joints in the order of `names`. Raises KeyError on a missing name."""
        if names == self.names:
            return self
        index = {name: i for i, name in enumerate(self.names)}
        order = [index[name] for name in names]
        return JointState(names, self.positions[order], self.velocities[order], self.stamp_ns)


@dataclass(frozen=True)
class JointCommand:
    """Where the joints should be `duration_s` from now, and how fast they then still move.

    `positions` (J,) rad; `velocities` (J,) rad/s at the end of the command. A non-zero final velocity
    promises a further command; zero says the motion ends there. `stamp_ns` is the stamp of the camera
    frame the command was decided from, so its age is measurable at the motor.
    """

    names: tuple[str, ...]
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]
    duration_s: float
    stamp_ns: int


@runtime_checkable
class Arm(Protocol):
    """A driven arm. Connect before use; disconnecting twice is fine.

    `command` returns what was actually sent to the drives. `stop` brings the joints to rest and holds
    them where they are measured to be. Joint states are snapshots: they do not change afterwards.
    """

    @property
    def joint_names(self) -> tuple[str, ...]: ...

    def connect(self) -> None: ...

    def state(self) -> JointState: ...

    def command(self, command: JointCommand) -> JointCommand: ...

    def stop(self) -> None: ...

    def disconnect(self) -> None: ...


@runtime_checkable
class Diagnosed(Protocol):
    """An arm that also tells a technician how it is."""

    def diagnostics(self) -> dict[str, str]: ...


@runtime_checkable
class LedByHand(Protocol):
    """An arm that can be let go of, so that someone leads it; `connect` takes hold of it where it is."""

    def connect(self) -> None: ...

    def let_go(self) -> None: ...


def check_arm(arm: Arm) -> None:
    """Raise `ContractError`, naming the broken promise, if `arm` does not behave as an Arm.

    Commands the arm to the position it is measured at, so nothing moves.
    """
    if not isinstance(arm, Arm):
        raise ContractError(f"{type(arm).__name__} lacks part of the Arm contract")
    arm.connect()
    try:
        state = arm.state()
        _check_state(state, arm.joint_names)
        positions = state.positions.copy()
        hold = JointCommand(state.names, positions, np.zeros_like(positions), 0.1, state.stamp_ns)
        _check_sent(arm.command(hold), hold)
        arm.stop()
        later = arm.state()
        _check_state(later, arm.joint_names)
        if later.stamp_ns < state.stamp_ns:
            raise ContractError(
                f"state stamp {later.stamp_ns} ns comes before {state.stamp_ns} ns; stamps only grow"
            )
        if not np.array_equal(state.positions, positions):
            raise ContractError("a state changed after it was handed out; hand out a copy of the buffer")
    finally:
        arm.disconnect()
    try:
        arm.disconnect()
    except Exception as error:
        raise ContractError(
            f"disconnect() on a disconnected arm raised {error!r}; it must do nothing"
        ) from error


def _check_sent(sent: JointCommand, hold: JointCommand) -> None:
    if not isinstance(sent, JointCommand) or set(sent.names) != set(hold.names):
        raise ContractError("command() must return the JointCommand that was actually sent")
    if sent.positions.shape != hold.positions.shape or not np.all(np.isfinite(sent.positions)):
        raise ContractError(f"command() sent {sent.positions}: it needs one finite position for each joint")
    held = dict(zip(hold.names, hold.positions))
    for name, position in zip(sent.names, sent.positions):
        if abs(position - held[name]) > HOLD_TOLERANCE:
            raise ContractError(
                f"command() sent {position:.3f} to {name}, which was told to hold {held[name]:.3f}"
            )


def _check_state(state: JointState, names: tuple[str, ...]) -> None:
    if sorted(state.names) != sorted(names):
        raise ContractError(f"state() reports joints {state.names}, the arm says it has {names}")
    for field in ("positions", "velocities"):
        values = getattr(state, field)
        if values.shape != (len(state.names),):
            raise ContractError(f"state().{field} has shape {values.shape}, expected ({len(state.names)},)")
        if not np.all(np.isfinite(values)):
            raise ContractError(f"state().{field} is not finite: {values}")
    if state.stamp_ns < 0:
        raise ContractError(f"state().stamp_ns is negative: {state.stamp_ns}")
