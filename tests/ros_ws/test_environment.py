"""Nobody exports anything: a process gets all that ROS needs from `ros_environment`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jepa_arm_bringup.domain import claim_domain
from jepa_arm_bringup.environment import fast_dds_profile, ros_environment

FRAMES = 60
WITHIN_S = 60

# Both halves of a camera and its reader; the reader's last word is how many of the frames it got.
CAMERA = """
import array, sys, threading, rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
width, height, frames = map(int, sys.argv[1:])
rclpy.init()
node = rclpy.create_node("camera")
qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
publisher = node.create_publisher(Image, "image", qos)
while publisher.get_subscription_count() == 0:
    rclpy.spin_once(node, timeout_sec=0.05)
data = array.array("B", bytes(width * height * 3))
clock = threading.Event()
number = 0
while publisher.get_subscription_count():
    image = Image(height=height, width=width, encoding="rgb8", step=width * 3)
    image.header.frame_id = str(number)
    image.data = data
    publisher.publish(image)
    number += 1
    clock.wait(1 / 30)
"""
READER = """
import sys, rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
frames = int(sys.argv[3])
rclpy.init()
node = rclpy.create_node("reader")
numbers = []
node.create_subscription(
    Image, "image", lambda image: numbers.append(int(image.header.frame_id)),
    QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT),
)
while not numbers or numbers[-1] < numbers[0] + frames - 1:
    rclpy.spin_once(node, timeout_sec=0.5)
print(len([number for number in numbers if number < numbers[0] + frames]))
"""


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    domain = claim_domain()
    yield {**ros_environment(), "ROS_DOMAIN_ID": str(domain.number)}
    domain.release()


@pytest.mark.parametrize("size", [(128, 128), (640, 480)], ids=["128x128", "VGA"])
def test_no_frame_at_30_hz_is_lost_between_two_processes(
    environment: dict[str, str], size: tuple[int, int]
) -> None:
    arguments = [*map(str, size), str(FRAMES)]
    camera = subprocess.Popen([sys.executable, "-c", CAMERA, *arguments], env=environment)
    try:
        reader = subprocess.run(
            [sys.executable, "-c", READER, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
        )
    finally:
        camera.kill()
        camera.wait()
    assert reader.returncode == 0, reader.stderr
    assert int(reader.stdout.split()[-1]) == FRAMES


def test_ros_works_in_an_environment_that_knows_nothing_of_it() -> None:
    program = (
        "from jepa_arm_bringup.environment import enter_ros_environment; enter_ros_environment()\n"
        "import rclpy\n"
        "from jepa_arm_interfaces.msg import Latent\n"
        "from ament_index_python.packages import get_package_prefix\n"
        "rclpy.init(); rclpy.create_node('alone').create_publisher(Latent, 'latent', 1)\n"
        "print(get_package_prefix('jepa_arm_interfaces'))"
    )
    ros = {name: os.environ[name] for name in ("ROS_DISTRO", "PYTHONPATH") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": os.defpath, "HOME": os.environ["HOME"], **ros},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_dir()


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", "/mine.xml")
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/my/prefix")
    environment = ros_environment()
    assert environment["RMW_IMPLEMENTATION"] == "rmw_cyclonedds_cpp"
    assert environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "SUBNET"
    assert environment["FASTRTPS_DEFAULT_PROFILES_FILE"] == "/mine.xml"
    assert environment["AMENT_PREFIX_PATH"].endswith("/my/prefix")


def test_a_graph_stays_on_this_machine_and_has_room_for_its_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ROS_AUTOMATIC_DISCOVERY_RANGE", "FASTRTPS_DEFAULT_PROFILES_FILE"):
        monkeypatch.delenv(name, raising=False)
    environment = ros_environment()
    assert environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert environment["FASTRTPS_DEFAULT_PROFILES_FILE"] == str(fast_dds_profile())
    assert "<segment_size>33554432</segment_size>" in fast_dds_profile().read_text()
