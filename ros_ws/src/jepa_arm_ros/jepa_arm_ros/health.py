"""Health of every subscription for free: wrap its callback, and /diagnostics tells its rate and age.

health = Health(node)
node.create_subscription(Image, "camera/image_raw", health.monitor("image", on_image), qos.IMAGE)
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from hardware.control_loop import LoopTiming
from jepa_arm_ros.messages import NANOSECONDS, stamp_ns

REPORT_PERIOD_S = 1.0
LOOP = "loop"
# Above this the steps of a loop at 100 Hz come at odd times.
MOST_JITTER_MS = 5.0


@dataclass
class Stream:
    """What is known of one subscription; ages are in milliseconds on the ROS clock."""

    received: int = 0
    late: int = 0
    ages_ms: list[float] = field(default_factory=list)
    reported: int = 0
    reported_late: int = 0


class Health:
    """Counts what a node's subscriptions receive, and publishes it once a second on /diagnostics."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._streams: dict[str, Stream] = {}
        self._extra: Callable[[], dict[str, Any]] = dict
        self._timing: Callable[[], LoopTiming | None] = lambda: None
        self._statuses: list[Callable[[], DiagnosticStatus]] = []
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._reported_at = time.monotonic()
        node.create_timer(REPORT_PERIOD_S, self.report)

    def monitor(self, name: str, callback: Callable[..., None]) -> Callable[..., None]:
        """`callback`, counted under `name`; messages with a header also have their age measured."""
        stream = self._streams.setdefault(name, Stream())

        def count(message: Any) -> None:
            stream.received += 1
            if hasattr(message, "header"):
                stream.ages_ms.append(self.age_s(message.header.stamp) * 1e3)

        # rclpy looks at the number of arguments to know whether to pass the message's info.
        if len(inspect.signature(callback).parameters) == 2:

            def monitored_with_info(message: Any, info: Any) -> None:
                count(message)
                callback(message, info)

            return monitored_with_info

        def monitored(message: Any) -> None:
            count(message)
            callback(message)

        return monitored

    def late(self, name: str) -> None:
        """Count a message of `name` that came too late to be used."""
        self._streams[name].late += 1

    def also_report(self, values: Callable[[], dict[str, Any]]) -> None:
        """Call `values` for more key-value pairs in every report."""
        self._extra = values

    def also_report_status(self, make: Callable[[], DiagnosticStatus]) -> None:
        """Call `make` for a status of its own in every report; its name is given the node's in front."""
        self._statuses.append(make)

    def also_report_loop(self, timing: Callable[[], LoopTiming | None]) -> None:
        """Call `timing` for how well the node's control loop keeps its time, once it runs."""
        self._timing = timing

    def age_s(self, stamp: Any) -> float:
        """How long ago `stamp` was, on the node's clock."""
        return (self._node.get_clock().now().nanoseconds - stamp_ns(stamp)) / NANOSECONDS

    def report(self) -> None:
        now = time.monotonic()
        elapsed, self._reported_at = max(now - self._reported_at, 1e-6), now
        name = self._node.get_name()
        array = DiagnosticArray()
        array.header.stamp = self._node.get_clock().now().to_msg()
        array.status = [_stream_status(f"{name}: {key}", s, elapsed) for key, s in self._streams.items()]
        for make in self._statuses:
            status = make()
            status.name = f"{name}: {status.name}"
            array.status.append(status)
        if (timing := self._timing()) is not None:
            array.status.append(_loop_status(f"{name}: {LOOP}", timing))
        extra = {key: str(value) for key, value in self._extra().items()}
        if extra:
            values = [KeyValue(key=key, value=value) for key, value in extra.items()]
            array.status.append(DiagnosticStatus(name=f"{name}: node", message="running", values=values))
        self._publisher.publish(array)


def _stream_status(name: str, stream: Stream, elapsed_s: float) -> DiagnosticStatus:
    """The last period of `stream`, which starts a new one."""
    count, late = stream.received - stream.reported, stream.late - stream.reported_late
    ages, stream.ages_ms = stream.ages_ms, []
    stream.reported, stream.reported_late = stream.received, stream.late
    status = DiagnosticStatus(name=name, level=DiagnosticStatus.OK, message="receiving")
    if late:
        status.level, status.message = DiagnosticStatus.WARN, f"{late} late in the last second"
    if not count:
        status.level, status.message = DiagnosticStatus.STALE, "nothing received in the last second"
    values = {
        "received": str(stream.received),
        "late": str(stream.late),
        "rate_hz": f"{count / elapsed_s:.1f}",
        "age_ms_mean": f"{sum(ages) / len(ages):.1f}" if ages else "",
        "age_ms_max": f"{max(ages):.1f}" if ages else "",
    }
    status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
    return status


def _loop_status(name: str, timing: LoopTiming) -> DiagnosticStatus:
    """Of the last ten seconds; what was missed, since the start."""
    late = timing.p99_ms > MOST_JITTER_MS
    status = DiagnosticStatus(name=name, message=str(timing))
    status.level = DiagnosticStatus.WARN if late else DiagnosticStatus.OK
    values = {
        "rate_hz": f"{timing.rate_hz:g}",
        "late_ms_p50": f"{timing.p50_ms:.3f}",
        "late_ms_p99": f"{timing.p99_ms:.3f}",
        "late_ms_max": f"{timing.max_ms:.3f}",
        "missed": str(timing.missed),
        "real_time": str(timing.real_time).lower(),
    }
    status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
    return status
