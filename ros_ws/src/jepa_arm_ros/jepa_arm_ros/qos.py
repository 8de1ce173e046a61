"""Every quality of service in one place, so that both ends of a topic agree."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions


def _profile(reliability: ReliabilityPolicy, depth: int, durability: DurabilityPolicy) -> QoSProfile:
    return QoSProfile(
        reliability=reliability, durability=durability, history=HistoryPolicy.KEEP_LAST, depth=depth
    )


# Only the newest picture matters: a late one is better lost than waited for.
IMAGE = _profile(ReliabilityPolicy.BEST_EFFORT, 1, DurabilityPolicy.VOLATILE)
# For whoever records: a short pause of theirs loses none.
PICTURES = _profile(ReliabilityPolicy.BEST_EFFORT, 10, DurabilityPolicy.VOLATILE)
# A reliable camera_info of the same stamp tells a listener which pictures it missed.
CAMERA_INFO = _profile(ReliabilityPolicy.RELIABLE, 10, DurabilityPolicy.VOLATILE)
# Deep enough to hold the joint states of one planning time, so that each frame meets its own.
JOINT_STATES = _profile(ReliabilityPolicy.RELIABLE, 20, DurabilityPolicy.VOLATILE)
NEWEST_JOINT_STATE = _profile(ReliabilityPolicy.BEST_EFFORT, 1, DurabilityPolicy.VOLATILE)
LATENT = _profile(ReliabilityPolicy.RELIABLE, 10, DurabilityPolicy.VOLATILE)
# A command or setpoint is replaced by the next one, never queued behind it.
COMMAND = _profile(ReliabilityPolicy.RELIABLE, 1, DurabilityPolicy.VOLATILE)
# Each press of a button counts; a publisher that keeps its last message matches too.
E_STOP = _profile(ReliabilityPolicy.RELIABLE, 10, DurabilityPolicy.VOLATILE)
# Whoever comes late still learns the present state.
STATUS = _profile(ReliabilityPolicy.RELIABLE, 1, DurabilityPolicy.TRANSIENT_LOCAL)
# Records for whoever evaluates: none may be missing.
RECORD = _profile(ReliabilityPolicy.RELIABLE, 100, DurabilityPolicy.VOLATILE)


def overridable() -> QoSOverridingOptions:
    """Lets `qos_overrides.<topic>.…` parameters change a topic's profile at start."""
    return QoSOverridingOptions.with_default_policies()
