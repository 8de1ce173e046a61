"""Every topic of a ROS domain into an MCAP file, as the bytes that came: what ROS 2's own tools read.

The file is flushed twice a second, so that a cut loses no more than that.
"""

from __future__ import annotations

import importlib
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ament_index_python import get_package_share_directory
from jepa_arm_ros.graph_client import GraphClient
from mcap.writer import Writer
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile

from jepa_arm_bringup.errors import GraphError

# ROS's own; everybody has them, and nobody needs them in a bag.
LEFT_OUT = ("/parameter_events", "/rosout")
# What begins a part of a hidden topic's name, as those that actions are made of have.
HIDDEN = "/_"
LOOK_PERIOD_S = 0.5
SLICE_S = 0.1
DEPTH = 100
PRIMITIVE = re.compile(r"^(bool|byte|char|u?int(8|16|32|64)|float(32|64)|w?string)(<=\d+)?$")


def record_bag(path: Path, domain_id: int, seconds: float | None, tell: Callable[[str], None]) -> None:
    """Until `seconds` are over, or KeyboardInterrupt. Raises GraphError if nothing is published there."""
    if path.exists():
        raise GraphError(f"{path} exists: name another file")
    path.parent.mkdir(parents=True, exist_ok=True)
    with GraphClient(domain_id, "bag") as client, path.open("wb") as file:
        bag = Bag(client.node, file)
        try:
            _record(bag, client, seconds, tell)
        except KeyboardInterrupt:
            pass  # how it ends when no time was given
        finally:
            bag.close()
    for topic, count in sorted(bag.counts.items()):
        tell(f"  {count:7} {topic}")
    tell(f"{sum(bag.counts.values())} messages of {len(bag.counts)} topics in {path}")
    if not bag.counts:
        path.unlink()
        raise GraphError(f"nothing was published in ROS domain {domain_id}")


def _record(bag: Bag, client: GraphClient, seconds: float | None, tell: Callable[[str], None]) -> None:
    began_s = look_at_s = time.monotonic()
    while seconds is None or time.monotonic() - began_s < seconds:
        if time.monotonic() >= look_at_s:
            for topic in bag.look():
                tell(f"recording {topic}")
            bag.flush()
            look_at_s = time.monotonic() + LOOK_PERIOD_S
        client.spin(SLICE_S)


class Bag:
    """Subscribes to whatever is published, and writes it down."""

    def __init__(self, node: Node, file: Any) -> None:
        self._node, self._file = node, file
        self._writer = Writer(file)
        self._writer.start(profile="ros2", library="jepa-arm")
        self._schemas: dict[str, int] = {}
        self._subscribed: set[str] = set()
        self.counts: Counter[str] = Counter()

    def look(self) -> list[str]:
        """Subscribe to the topics that are new. Returns them."""
        new = []
        for topic, types in self._node.get_topic_names_and_types():
            if topic in self._subscribed or topic in LEFT_OUT or HIDDEN in topic:
                continue
            publishers = self._node.get_publishers_info_by_topic(topic)
            if publishers:
                self._subscribe(topic, types[0], publishers[0].qos_profile)
                new.append(topic)
        return new

    def flush(self) -> None:
        self._writer.flush()
        self._file.flush()

    def close(self) -> None:
        self._writer.finish()

    def _subscribe(self, topic: str, kind: str, offered: QoSProfile) -> None:
        """As the publisher offers it: what is kept for late comers comes too."""
        self._subscribed.add(topic)
        package, folder, name = kind.split("/")
        message = getattr(importlib.import_module(f"{package}.{folder}"), name)
        if kind not in self._schemas:
            text = definition(kind)
            self._schemas[kind] = self._writer.register_schema(kind, "ros2msg", text.encode())
        channel = self._writer.register_channel(topic, "cdr", self._schemas[kind])
        durability = offered.durability
        if durability not in (DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL):
            durability = DurabilityPolicy.VOLATILE
        profile = QoSProfile(
            reliability=offered.reliability,
            durability=durability,
            history=HistoryPolicy.KEEP_LAST,
            depth=DEPTH,
        )

        def write(data: bytes) -> None:
            now_ns = self._node.get_clock().now().nanoseconds
            self.counts[topic] += 1
            self._writer.add_message(channel, now_ns, data, now_ns, self.counts[topic])

        self._node.create_subscription(message, topic, write, profile, raw=True)


def definition(kind: str) -> str:
    """The text of message type `kind` ("sensor_msgs/msg/Image") and, after it, of all that it is made of."""
    parts, queue = [], [kind]
    done = {kind}
    while queue:
        now = queue.pop(0)
        text = _source(now)
        parts.append(text if now == kind else f"{'=' * 80}\nMSG: {now.replace('/msg/', '/')}\n{text}")
        for inner in _made_of(text, now.split("/")[0]):
            if inner not in done:
                done.add(inner)
                queue.append(inner)
    return "\n".join(parts)


def _source(kind: str) -> str:
    package, folder, name = kind.split("/")
    return (Path(get_package_share_directory(package)) / folder / f"{name}.msg").read_text()


def _made_of(text: str, package: str) -> list[str]:
    """The message types among the fields of a definition, each as "package/msg/Name"."""
    found = []
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) < 2:
            continue
        field = words[0].partition("[")[0]
        if PRIMITIVE.match(field):
            continue
        owner, _, name = field.rpartition("/")
        found.append(f"{owner or package}/msg/{name}")
    return found
