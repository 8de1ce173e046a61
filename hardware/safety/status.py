"""The words of the safety gate: its states, its reasons, its answers and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum, IntEnum


class SafetyState(IntEnum):
    """What the gate is doing with the arm."""

    IDLE = 0  # holding still, ready for a command
    ACTIVE = 1  # following commands
    STOPPING = 2  # decelerating within limits after a fault or a stop
    STOPPED = 3  # holding; only a reset leaves this state


class Caution(IntEnum):
    """How much the world surprises whoever commands; each level includes those below it."""

    CALM = 0  # motion as commanded
    SLOW = 1  # motion at `GateConfig.slow_share` of its speed
    HOLD = 2  # come to rest; go on when it has been calm again for a while
    STOP = 3  # come to rest and stay there until reset


class Reason(str, Enum):
    """Why a command was refused or the arm was stopped: a code for programs, a `text` for people."""

    text: str

    NONE = "none", ""
    COMMAND_STALE = "command_stale", "no further command came while the arm was moving"
    IMAGE_STALE = "image_stale", "the camera image behind the command is too old"
    STATE_STALE = "state_stale", "no fresh joint state from the arm"
    NOT_FINITE = "not_finite", "a number is NaN or infinite"
    MALFORMED = "malformed", "not one position and velocity per joint, or no positive duration"
    UNKNOWN_JOINT = "unknown_joint", "the command names a joint that the robot does not have"
    MISSING_JOINT = "missing_joint", "the command leaves out a joint of the robot"
    DUPLICATE_JOINT = "duplicate_joint", "the command names a joint twice"
    POSITION_LIMIT = "position_limit", "the target is outside a joint's position limits"
    VELOCITY_LIMIT = "velocity_limit", "the command ends with a joint faster than its limit"
    DISCONTINUITY = "discontinuity", "the target is further off than the joints can go in its time"
    WORKSPACE = "workspace", "the target brings the tool outside the workspace"
    COLLISION = "collision", "the target brings the arm too near to itself or to what it must keep out of"
    NEAR_COLLISION = "near_collision", "slowed: the arm comes near to itself or to what it must keep out of"
    NEAR_SINGULARITY = (
        "near_singularity",
        "slowed: the arm comes near a posture in which it loses a direction",
    )
    COMMAND_RATE = "command_rate", "commands come faster than any planner decides"
    SECOND_SOURCE = "second_source", "two sources command one arm"
    TRACKING = "tracking", "the arm does not follow its setpoints; it may be blocked"
    DEADLINE_MISSED = "deadline_missed", "the gate was held up for too long while the arm moved"
    SURPRISE = "surprise", "the world does not behave as its model expects; look what has changed"
    UNKNOWN_CAUTION = "unknown_caution", "the level of caution is none of calm, slow, hold, stop"
    OPERATOR_STOP = "operator_stop", "stopped by the operator"
    E_STOP = "e_stop", "an emergency stop is pressed"
    MOVING = "moving", "the arm is still coming to rest"

    def __new__(cls, code: str, text: str) -> Reason:
        reason = str.__new__(cls, code)
        reason._value_ = code
        reason.text = text
        return reason


@dataclass(frozen=True)
class Verdict:
    """The answer to a command or a reset; `text` is a sentence naming what was wrong."""

    accepted: bool
    reason: Reason = Reason.NONE
    text: str = ""


@dataclass(frozen=True)
class SafetyStatus:
    """The gate's state, the reason and sentence of its last stop, and counts since it was made."""

    state: SafetyState
    reason: Reason
    text: str
    commands_accepted: int
    commands_refused: int
    pauses: int  # commands that ran out while the arm was moving, whether or not a stop followed
    states_ignored: int
    stops: int
    caution: Caution  # in force now
    speed_share: float  # how much of the commanded speed is let through now: 0 while holding or stopped
    slows: int
    holds: int
    # How often each reason refused a command, stopped the arm or slowed it; only those that did.
    counts: Mapping[Reason, int]


@dataclass(frozen=True)
class GateConfig:
    """The gate's settings. All are positive; times are in seconds."""

    # A command is followed for its duration, and no longer than this after it arrived; the arm rests at most
    # the robot's max_braking_s and one tick later.
    command_timeout_s: float = 0.085
    # A motion that promises a further command is at rest this long after its image was taken, whatever comes:
    # when the camera falls silent, however late was decided.
    rest_after_image_s: float = 0.19
    # A motion without a follow-up pauses first, and is a fault this long after its last command arrived.
    fault_after_s: float = 0.25
    max_image_age_s: float = 0.15
    state_timeout_s: float = 0.1
    # More commands a second than this, for more than a tenth of one, are no planner's.
    max_command_rate_hz: float = 200.0
    # How far (rad) the measured joints may be from their setpoints.
    max_tracking_error: float = 0.2
    # How far (m) outside the workspace still counts as its edge.
    workspace_tolerance_m: float = 0.002
    # The source of the last accepted command keeps the arm to itself for this long.
    source_hold_s: float = 0.5
    # Condition numbers of the tool's Jacobian (joint speeds against m/s and rad/s alike) from which a motion
    # that makes it larger is slowed, and at which it ends. At 40 the Panda's tool moves 5 cm/s for 1 rad/s.
    singularity_slow: float = 40.0
    singularity_stop: float = 100.0
    # The share of its speed that is left to a motion under Caution.SLOW; at most 1.
    slow_share: float = 0.5
    # Caution is lowered only after lower levels have come for this long without a gap of more than the next.
    calm_after_s: float = 1.0
    caution_timeout_s: float = 0.3
    # A tick longer than this moves the arm no further than one of this length.
    max_tick_s: float = 0.05

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0.0 < value < float("inf"):
                raise ValueError(f"gate setting {field.name} = {value} must be a positive, finite number")
        if self.slow_share > 1.0:
            raise ValueError(f"gate setting slow_share = {self.slow_share} must be at most 1")
        if self.singularity_slow >= self.singularity_stop:
            raise ValueError(
                f"gate setting singularity_slow = {self.singularity_slow} must be below singularity_stop = "
                f"{self.singularity_stop}"
            )
