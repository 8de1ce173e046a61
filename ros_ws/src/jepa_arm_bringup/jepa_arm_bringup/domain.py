"""Which ROS domain a graph runs in, so that two graphs never command one arm by mistake."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from jepa_arm_bringup.errors import DomainBusy, GraphError
from jepa_arm_bringup.processes import PROCESSES

# Above 101 the ports of a domain fall into Linux's range of short-lived ports.
LAST_SAFE_DOMAIN = 101
LAST_DOMAIN = 232
# A node that is already there is discovered well within this.
LOOK_FOR_S = 1.5
# What a held domain's lock is called in /proc/net/unix.
LOCK_PREFIX = "@jepa_arm_domain_"


class Domain:
    """A ROS domain that this process holds: no other jepa-arm graph of this machine takes it meanwhile."""

    def __init__(self, number: int, lock: socket.socket) -> None:
        self.number = number
        self._lock = lock

    def release(self) -> None:
        self._lock.close()


def claim_domain(number: int | None = None) -> Domain:
    """The domain `number`, or that of ROS_DOMAIN_ID, or the first free one. Raises `DomainBusy`."""
    if number is None and os.environ.get("ROS_DOMAIN_ID"):
        number = _number(os.environ["ROS_DOMAIN_ID"], "ROS_DOMAIN_ID")
    if number is None:
        return _free_domain()
    if not 0 <= number <= LAST_DOMAIN:
        raise GraphError(f"there is no ROS domain {number}: choose one from 0 to {LAST_SAFE_DOMAIN}")
    lock = _lock(number)
    if lock is None:
        raise DomainBusy(_busy(number, "a jepa-arm graph runs"))
    if _has_participants(number) and (nodes := _our_nodes(number)):
        lock.close()
        raise DomainBusy(_busy(number, f"{', '.join(nodes)} run"))
    return Domain(number, lock)


def running_domains() -> list[int]:
    """The domains that jepa-arm graphs of this machine hold."""
    names = (line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    numbers = {name.removeprefix(LOCK_PREFIX) for name in names if name.startswith(LOCK_PREFIX)}
    return sorted(int(number) for number in numbers if number.isdigit())


def domains_to_ask(number: int | None) -> list[int]:
    """The domain `number`, or those of every graph here, or that of ROS_DOMAIN_ID. Raises `GraphError`."""
    domains = [number] if number is not None else running_domains()
    if not domains and os.environ.get("ROS_DOMAIN_ID", "").isdigit():
        domains = [int(os.environ["ROS_DOMAIN_ID"])]
    if not domains:
        raise GraphError("no jepa-arm graph runs on this machine; name its ROS domain with --domain-id")
    return domains


def domain_to_ask(number: int | None) -> int:
    """The one domain among `domains_to_ask`. Raises `GraphError` if there are several."""
    domains = domains_to_ask(number)
    if len(domains) > 1:
        several = ", ".join(map(str, domains))
        raise GraphError(f"graphs run in the ROS domains {several}: choose one with --domain-id")
    return domains[0]


def _free_domain() -> Domain:
    start = os.getpid() % LAST_SAFE_DOMAIN
    for i in range(LAST_SAFE_DOMAIN):
        number = 1 + (start + i) % LAST_SAFE_DOMAIN
        lock = _lock(number)
        if lock is not None:
            if not _has_participants(number):
                return Domain(number, lock)
            lock.close()
    raise DomainBusy(f"every ROS domain from 1 to {LAST_SAFE_DOMAIN} is in use: stop a graph")


def _busy(number: int, who: str) -> str:
    return f"ROS domain {number} is busy: {who} in it already; stop that, or pass another --domain-id"


def _number(text: str, where: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise GraphError(f"{where} is {text!r}: it must be a number from 0 to {LAST_SAFE_DOMAIN}") from error


def _lock(number: int) -> socket.socket | None:
    """Bound while the domain is held: the name goes with the process, however that ends, and is no file."""
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        lock.bind(f"\0{LOCK_PREFIX[1:]}{number}")
    except OSError:
        lock.close()
        return None
    return lock


def _has_participants(number: int) -> bool:
    """Whether some ROS process of this machine is in the domain: each holds UDP ports of the domain's own."""
    ports = range(7400 + 250 * number, 7400 + 250 * (number + 1))
    for table in ("/proc/net/udp", "/proc/net/udp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        # Trying to bind a port instead would keep a process from it that starts at this moment.
        if any(int(line.split()[1].rpartition(":")[2], 16) in ports for line in lines):
            return True
    return False


def _our_nodes(number: int) -> list[str]:
    """The nodes of a jepa-arm graph that are visible in the domain."""
    from jepa_arm_ros.graph_client import GraphClient

    ours = {process.name for process in PROCESSES}
    with GraphClient(number, f"jepa_arm_lookout_{os.getpid()}") as client:

        def found() -> set[str]:
            return ours & set(client.node.get_node_names())

        client.spin_until(lambda: bool(found()), LOOK_FOR_S)
        return sorted(f"/{name}" for name in found())
