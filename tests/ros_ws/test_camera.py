"""A RealSense through the camera node: every frame reaches the encoder once, and every fault is told."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from jepa_arm_interfaces.msg import Latent
from jepa_arm_ros import qos
from jepa_arm_ros.messages import latent_values, stamp_ns
from sensor_msgs.msg import CameraInfo, Image

from .conftest import ANSWERS_WITHIN_S, Peer

pytestmark = pytest.mark.ros
pytest.importorskip(
    "pyrealsense2", reason="pyrealsense2, or Debian's libusb-1.0-0, is missing", exc_type=ImportError
)

StartNode = Callable[..., subprocess.Popen[str]]
FRAMES = 300
PERIOD_S = 1 / 30
HERE = Path(__file__).parent
FAULTS = {
    "frozen_picture": "frozen",
    "frozen_stamp": "frozen",
    "dark": "dark",
    "silent": "silent",
}


class Rig:
    """The camera node with a RealSense that obeys, and what is heard of it."""

    def __init__(self, peer: Peer, start_node: StartNode, domain_id: int, folder: Path, **parameters) -> None:
        self.peer = peer
        self.status: dict[str, str] = {}
        self.images: list[int] = []
        self.infos: list[CameraInfo] = []
        self._path = str(folder / "feed")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        peer.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.RECORD)
        peer.node.create_subscription(
            Image,
            "camera/image_raw",
            lambda message: self.images.append(stamp_ns(message.header.stamp)),
            qos.IMAGE,
        )
        peer.node.create_subscription(CameraInfo, "camera/camera_info", self.infos.append, qos.CAMERA_INFO)
        stand_ins = [str(HERE), str(HERE.parent / "hardware"), os.environ.get("PYTHONPATH", "")]
        start_node(
            "camera_node",
            domain_id,
            environment={"PYTHONPATH": os.pathsep.join(stand_ins)},
            camera=f"fed_realsense:fed:{self._path}",
            **parameters,
        )

    def order(self, do: str, **arguments: object) -> None:
        self._socket.sendto(json.dumps({"do": do, **arguments}).encode(), self._path)

    def wait_for(self, state: str) -> None:
        self.status.clear()
        told = self.peer.spin_until(lambda: self.status.get("state") == state)
        assert told, f"the camera is not {state} but {self.status}"

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == "camera: stream":
                self.status = {value.key: value.value for value in status.values}
                self.status["message"] = status.message


def test_300_frames_reach_the_encoder_and_none_is_lost_or_repeated(
    start_node: StartNode,
    activate: Callable[..., str],
    own_domain: int,
    peer: Peer,
    tmp_path: Path,
    bundle: Path,
) -> None:
    """At 30 Hz; where this machine is slower, each frame waits for the latent of the one before."""
    latents: list[Latent] = []
    peer.node.create_subscription(Latent, "latent", latents.append, qos.LATENT)
    patient = {"max_age_s": 5.0, "reconnect_after_s": 60.0}
    rig = Rig(peer, start_node, own_domain, tmp_path, **patient)
    start_node("encoder_node", own_domain, bundle=str(bundle), runtime="onnxruntime", max_frame_age_s=5.0)
    assert activate("encoder", own_domain) == activate("camera", own_domain) == "active"

    def send(number: int, patience_s: float) -> int:
        """The stamp of a frame whose latent has come since, or was waited for in vain."""
        stamp_us = time.time_ns() // 1000
        rig.order("frame", number=number, stamp_ms=stamp_us / 1e3)
        peer.spin_until(
            lambda: bool(latents) and stamp_ns(latents[-1].header.stamp) >= stamp_us * 1000, patience_s
        )
        return stamp_us * 1000

    number = FRAMES
    deadline = time.monotonic() + ANSWERS_WITHIN_S
    while not latents:  # the camera, the encoder and the listener have to find one another
        assert time.monotonic() < deadline, "no latent comes"
        send(number := number + 1, 0.5)
    send(0, ANSWERS_WITHIN_S)
    latents.clear()

    sent = []
    for number in range(1, FRAMES + 1):
        due = time.monotonic() + PERIOD_S
        sent.append(send(number, 2.0))
        peer.spin_until(lambda due=due: time.monotonic() >= due)
    assert [stamp_ns(latent.header.stamp) for latent in latents] == sent
    assert len({latent_values(latent).tobytes() for latent in latents}) == FRAMES
    rig.status.clear()
    assert peer.spin_until(lambda: bool(rig.status))
    lost = {key: rig.status[key] for key in ("repeated", "dark", "wrong_size", "replaced", "reconnects")}
    assert set(lost.values()) == {"0"}, lost


def test_every_fault_is_told_for_what_it_is_and_none_of_its_frames_is_sent(
    start_node: StartNode, activate: Callable[..., str], own_domain: int, peer: Peer, tmp_path: Path
) -> None:
    rig = Rig(peer, start_node, own_domain, tmp_path)
    assert activate("camera", own_domain) == "active"
    reconnects = 0

    def see(fault: str, state: str, begin: Callable[[], None], end: Callable[[], None]) -> None:
        nonlocal reconnects
        begin()
        rig.wait_for(state)
        assert float(rig.status["age_ms"]) > 0.0, fault
        rig.images.clear()
        rig.wait_for(state)
        assert rig.images == [], f"frames are sent while the camera is {state} ({fault})"
        end()
        rig.wait_for("ok")
        assert peer.spin_until(lambda: len(rig.images) > 0), f"no frame is sent after {fault}"
        assert rig.images == sorted(set(rig.images))
        assert int(rig.status["reconnects"]) >= reconnects, fault
        reconnects = int(rig.status["reconnects"])

    def live() -> None:
        rig.order("stream", mode="live")

    live()
    rig.wait_for("ok")
    assert rig.status["reconnects"] == "0"
    for mode, state in FAULTS.items():
        see(mode, state, lambda mode=mode: rig.order("stream", mode=mode), live)
    before = reconnects
    see("pulled out", "unplugged", lambda: rig.order("pull_out"), lambda: rig.order("plug_in"))
    assert reconnects > before
    assert peer.spin_until(lambda: len(rig.infos) > 0)
    # The device's own lens: 150 pixels of focal length at the size that the robot file asks for.
    assert rig.infos[-1].k[0] == pytest.approx(150.0)
    np.testing.assert_allclose(rig.infos[-1].d, [0.1, -0.05, 0.001, 0.002, 0.01], rtol=1e-6)
