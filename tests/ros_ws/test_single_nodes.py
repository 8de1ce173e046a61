"""Single nodes over DDS: a real camera's, an arm's, and what all of them do with wrong parameters."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from jepa_arm_interfaces.msg import Latent
from jepa_arm_ros import qos
from jepa_arm_ros.messages import frame_from_image, image_message, setpoint_message, stamp_ns
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from sensor_msgs.msg import CameraInfo, Image, JointState
from trajectory_msgs.msg import JointTrajectory

from hardware.arm.contract import check_arm
from hardware.camera.contract import Frame
from hardware.robot import ROBOTS_DIR, load_robot

from .conftest import ANSWERS_WITHIN_S, STARTS_WITHIN_S, Peer, now_ns
from .recording_arm import RecordingArm

pytestmark = pytest.mark.ros

StartNode = Callable[..., subprocess.Popen[str]]


@pytest.mark.parametrize(
    "node, parameters, words",
    [
        ("sim_node", {"task": "juggle"}, "no task 'juggle'; there are reach, push"),
        ("encoder_node", {"bundel": "x"}, "unknown parameter bundel; known: bundle, force_runtime, max_"),
        ("planner_node", {"robot": "r2d2"}, "no robot named 'r2d2'"),
        ("gate_node", {"rate_hz": 1e9}, "parameter rate_hz is 1000000000.0, expected float from 20 to 1000"),
        ("arm_node", {"arm": ""}, "parameter arm is '', which names nothing that can be imported"),
        ("arm_node", {"arm": "feetech"}, "no arm file for robot 'panda' on bus feetech"),
        ("arm_node", {"arm": "arm.yaml"}, "arm.yaml: no such arm file"),
        (
            "camera_node",
            {"camera": "no.such:Camera"},
            "camera no.such:Camera names nothing that can be imported",
        ),
        ("camera_node", {"camera": "realsense,fsp=30"}, "there is no option fsp for this kind of camera"),
    ],
)
def test_a_wrong_parameter_is_one_line_and_exit_code_2(
    start_node: StartNode, own_domain: int, node: str, parameters: dict[str, object], words: str
) -> None:
    process = start_node(node, own_domain, **parameters)
    output = process.communicate(timeout=STARTS_WITHIN_S)[0]
    lines = [line for line in output.splitlines() if "pybullet build time" not in line and "argv" not in line]
    assert process.returncode == 2, output
    assert len(lines) == 1 and words in lines[0], output


def test_a_bundle_that_is_not_there_keeps_a_node_unconfigured(
    start_node: StartNode, activate: Callable[..., str], own_domain: int, tmp_path: Path
) -> None:
    start_node("encoder_node", own_domain, bundle=str(tmp_path / "nothing"))
    assert activate("encoder", own_domain) == "failed"


def test_a_node_runs_the_runtime_it_is_told_and_no_other(
    start_node: StartNode, activate: Callable[..., str], own_domain: int, bundle: Path
) -> None:
    told = {"bundle": str(bundle), "force_runtime": True}
    process = start_node("encoder_node", own_domain, **told, runtime="caffe")
    assert activate("encoder", own_domain) == "failed"
    process.kill()
    process.wait()
    start_node("encoder_node", own_domain, **told, runtime="openvino:fp32")
    assert activate("encoder", own_domain) == "active"


def test_the_encoder_drops_old_frames_and_counts_them(
    start_node: StartNode, activate: Callable[..., str], own_domain: int, peer: Peer, bundle: Path
) -> None:
    latents: list[Latent] = []
    counts: dict[str, str] = {}

    def on_diagnostics(message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == "encoder: image":
                counts.update({value.key: value.value for value in status.values})

    peer.node.create_subscription(Latent, "latent", latents.append, qos.LATENT)
    peer.node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, qos.RECORD)
    publisher = peer.node.create_publisher(Image, "camera/image_raw", qos.CAMERA_INFO)
    start_node("encoder_node", own_domain, bundle=str(bundle))
    assert activate("encoder", own_domain) == "active"

    def publish(age_ns: int) -> None:
        publisher.publish(
            image_message(Frame(np.zeros((128, 128, 3), np.uint8), now_ns() - age_ns, "camera"))
        )

    # Best effort: what is sent before the encoder listens is lost, so send until it counts.
    assert peer.spin_until(lambda: publish(500_000_000) or int(counts.get("late", 0)) > 0)
    assert latents == []
    late = counts["late"]
    assert peer.spin_until(lambda: publish(0) or (len(latents) > 0 and counts["received"] > late))


def test_a_node_that_is_not_active_publishes_nothing(
    start_node: StartNode, own_domain: int, peer: Peer
) -> None:
    states: list[JointState] = []
    peer.node.create_subscription(JointState, "joint_states", states.append, qos.JOINT_STATES)
    client = peer.node.create_client(ChangeState, "sim/change_state")
    start_node("sim_node", own_domain)
    assert peer.spin_until(client.service_is_ready)
    for transition, active in (
        (Transition.TRANSITION_CONFIGURE, False),
        (Transition.TRANSITION_ACTIVATE, True),
        (Transition.TRANSITION_DEACTIVATE, False),
    ):
        answer = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
        assert peer.spin_until(answer.done) and answer.result().success
        states.clear()
        assert peer.spin_until(lambda: len(states) > 5, ANSWERS_WITHIN_S if active else 0.3) == active


def test_the_camera_node_publishes_what_the_camera_sees(
    start_node: StartNode, activate: Callable[..., str], own_domain: int, peer: Peer, tmp_path: Path
) -> None:
    for i in range(60):
        cv2.imwrite(str(tmp_path / f"{i:03}.png"), np.full((128, 128, 3), (i, 0, 255 - i), np.uint8))
    frames, infos = [], []
    peer.node.create_subscription(Image, "camera/image_raw", frames.append, qos.IMAGE)
    peer.node.create_subscription(CameraInfo, "camera/camera_info", infos.append, qos.CAMERA_INFO)
    start_node("camera_node", own_domain, camera=f"file:{tmp_path},fps=10", max_age_s=5.0)
    assert activate("camera", own_domain) == "active"
    assert peer.spin_until(lambda: len(frames) >= 10 and len(infos) >= 10)
    mount = load_robot("panda").camera
    for message in frames:
        frame = frame_from_image(message)
        shade = int(frame.image[0, 0, 2])
        assert frame.frame_id == mount.frame_id
        assert (frame.image == (255 - shade, 0, shade)).all(), "red and blue are swapped"
    stamps = [stamp_ns(message.header.stamp) for message in frames]
    assert stamps == sorted(set(stamps))
    assert set(stamps) & {stamp_ns(info.header.stamp) for info in infos}
    focal = mount.height / 2 / np.tan(mount.vertical_fov / 2)
    assert infos[0].k[0] == infos[0].k[4] == pytest.approx(focal)


def test_the_camera_node_knows_its_calibration_and_tells_that_the_camera_was_moved(
    start_node: StartNode, activate: Callable[..., str], own_domain: int, peer: Peer, tmp_path: Path
) -> None:
    for name in ("panda.yaml", "panda_peg.urdf"):
        shutil.copy(ROBOTS_DIR / name, tmp_path / name)
    robot = tmp_path / "panda.yaml"
    lens = {"width": 640, "height": 480, "fx": 600.0, "fy": 600.0, "cx": 320.0, "cy": 240.0}
    measured = {"distortion": [0.1, 0.0, 0.0, 0.0, 0.0], "position": [1.0, 0.0, 0.5], "views": 15}
    residuals = {"lens_rms_px": 0.1, "pose_rms_px": 0.5, "position_std_m": 0.001, "angle_std_rad": 0.002}
    section = {"date": "2026-01-01", **lens, **measured, **residuals, "rotation_vector": [0.0, 2.0, 0.0]}
    calibration = {"camera_calibration": {**section, "reference": "panda_camera.png"}}
    robot.write_text(robot.read_text() + yaml.safe_dump(calibration))

    rng = np.random.default_rng(0)
    table = cv2.resize(
        rng.integers(30, 255, (60, 80, 3), np.uint8), (700, 520), interpolation=cv2.INTER_CUBIC
    )
    cv2.imwrite(str(tmp_path / "panda_camera.png"), table[20:500, 20:660])
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(60):
        noise = rng.integers(0, 3, (480, 640, 3), np.uint8)
        cv2.imwrite(str(pictures / f"{i:03}.png"), cv2.add(table[20:500, 6:646], noise))

    told: dict[str, str] = {}
    infos: list[CameraInfo] = []

    def on_diagnostics(message: DiagnosticArray) -> None:
        told.update({status.name: status.message for status in message.status})

    peer.node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, qos.RECORD)
    peer.node.create_subscription(CameraInfo, "camera/camera_info", infos.append, qos.CAMERA_INFO)
    camera = f"file:{pictures},fps=5"
    start_node("camera_node", own_domain, camera=camera, robot=str(robot), max_age_s=5.0)
    assert activate("camera", own_domain) == "active"
    moved = "camera moved since calibration: 14 px"
    assert peer.spin_until(lambda: told.get("camera: placement") == moved), told
    assert peer.spin_until(lambda: len(infos) > 0)
    assert (infos[0].width, infos[0].height) == (128, 128)
    assert infos[0].k[0] == pytest.approx(600.0 * 128 / 480)
    assert list(infos[0].d) == [0.1, 0.0, 0.0, 0.0, 0.0]


def test_the_recording_arm_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECORDING_ARM_LOG", str(tmp_path / "log"))
    check_arm(RecordingArm())


def test_the_arm_node_drives_the_arm_and_stops_it_when_setpoints_stop(
    start_node: StartNode, activate: Callable[..., str], own_domain: int, peer: Peer, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    states: list[JointState] = []
    peer.node.create_subscription(JointState, "joint_states", states.append, qos.JOINT_STATES)
    publisher = peer.node.create_publisher(
        JointTrajectory, "joint_trajectory_controller/joint_trajectory", qos.COMMAND
    )
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {"RECORDING_ARM_LOG": str(log), "PYTHONPATH": path}
    process = start_node("arm_node", own_domain, environment=environment, arm="recording_arm:RecordingArm")
    assert activate("arm", own_domain) == "active"
    assert peer.spin_until(lambda: len(states) > 0 and publisher.get_subscription_count() > 0)
    assert tuple(states[0].name) == RecordingArm.joint_names

    target = np.full(len(RecordingArm.joint_names), 0.25)
    publisher.publish(setpoint_message(RecordingArm.joint_names, target, 0.01))
    assert peer.spin_until(lambda: states[-1].position[0] == 0.25)
    assert peer.spin_until(lambda: "stop" in log.read_text().split())
    assert log.read_text().split() == ["connect", "command", "stop"]

    process.terminate()
    process.communicate(timeout=STARTS_WITHIN_S)
    assert log.read_text().split()[-1] == "disconnect"
