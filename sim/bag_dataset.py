"""A LeRobot dataset out of an MCAP file of ROS 2 messages. No ROS is needed: the file says what is in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mcap.exceptions import McapError
from mcap.reader import NonSeekingReader
from mcap_ros2.decoder import DecoderFactory
from numpy.typing import NDArray

from hardware.kinematics import Kinematics
from hardware.robot import load_robot
from perception.errors import DatasetError
from perception.lerobot.assembly import Assembler
from perception.lerobot.layout import Recording
from perception.lerobot.running import RunningEpisode
from perception.lerobot.writer import DatasetWriter, recover

PICTURES = "camera/image_raw"
STATES = "joint_states"
SETPOINTS = "joint_trajectory_controller/joint_trajectory"
TOPICS = (PICTURES, STATES, SETPOINTS)


@dataclass(frozen=True)
class Wanted:
    """What the bag does not say. Without `fps`, the rate of the camera in the robot file."""

    robot: str
    task: str
    camera: str
    fps: int | None = None


def dataset_of_bag(bag: Path, out: Path, wanted: Wanted, tell: Callable[[str], None]) -> None:
    """Add what `bag` holds to the dataset in `out`: an episode for each stretch with pictures.

    Raises DatasetError naming the topic that is missing.
    """
    robot = load_robot(wanted.robot)
    fps, tool_of = wanted.fps or round(robot.camera.rate_hz), Kinematics(robot).tool_position
    for line in recover(out):
        tell(line)
    found = dict.fromkeys(TOPICS, 0)
    writer: DatasetWriter | None = None
    running: RunningEpisode | None = None
    rows = Assembler(robot.joint_names, fps, tool_of)
    for topic, log_ns, message in messages(bag, tell):
        found[topic] += 1
        if topic == STATES:
            rows.state(message.name, np.array(message.position), stamp_ns(message))
        elif topic == SETPOINTS:
            if message.points:
                rows.setpoint(message.joint_names, np.array(message.points[-1].positions), log_ns)
        else:
            image = picture(message)
            try:
                complete = rows.frame(image, stamp_ns(message))
            except DatasetError as gap:
                tell(f"{gap}: what follows is another episode")
                rows, complete = Assembler(robot.joint_names, fps, tool_of), []
                if writer is not None and running is not None:
                    keep(writer, running, tell)
                    running = None
            if complete and writer is None:
                height, width, _ = image.shape
                recording = Recording(robot.name, robot.joint_names, wanted.camera, width, height, fps)
                writer = DatasetWriter.open(out, recording)
            if complete and writer is not None:
                running = running or writer.begin(wanted.task)
                for row in complete:
                    running.add(row, wait=True)
    if writer is None or running is None:
        missing = [topic for topic in TOPICS if not found[topic]]
        lacks = f"no messages of {missing[0]}" if missing else "pictures, but no joints at their times"
        raise DatasetError(f"{bag} holds {lacks}: record it with `jepa-arm bag record` while the arm runs")
    keep(writer, running, tell)


def keep(writer: DatasetWriter, running: RunningEpisode, tell: Callable[[str], None]) -> None:
    seconds = running.seconds
    tell(f"episode {writer.finish(running)}: {seconds:.1f} s")


def messages(bag: Path, tell: Callable[[str], None]) -> Iterator[tuple[str, int, Any]]:
    """Topic, time of arrival [ns] and message of all that is needed, in order, up to where it was cut."""
    topics = [*TOPICS, *(f"/{topic}" for topic in TOPICS)]
    with bag.open("rb") as file:
        reader = NonSeekingReader(file, decoder_factories=[DecoderFactory()])
        try:
            for _, channel, message, decoded in reader.iter_decoded_messages(topics, log_time_order=False):
                yield channel.topic.lstrip("/"), message.log_time, decoded
        except McapError as error:
            tell(f"{bag} ends in the middle ({error}): what came before is taken")


def picture(message: Any) -> NDArray[np.uint8]:
    """(H, W, 3) RGB. Raises DatasetError on another encoding than rgb8."""
    if message.encoding != "rgb8":
        raise DatasetError(f"{PICTURES} is {message.encoding}, expected rgb8")
    rows = np.frombuffer(bytes(message.data), np.uint8).reshape(message.height, message.step)
    return rows[:, : 3 * message.width].reshape(message.height, message.width, 3)


def stamp_ns(message: Any) -> int:
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
