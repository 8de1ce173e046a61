"""`jepa-arm snapshot`: save what the camera sees now as a goal picture for `jepa-arm pursue`.

In the simulator nobody can put the object somewhere by hand: `--new-scene` sets a scene and saves its goal.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from jepa_arm_bringup.errors import GraphError, PictureError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EXAMPLE = "jepa-arm snapshot goal.png"
SIMULATOR_WITHIN_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="the .png to write")
    parser.add_argument(
        "--new-scene",
        type=int,
        metavar="SEED",
        help="simulator only: set the scene of this seed, and save the picture of its goal",
    )
    parser.add_argument("--domain-id", type=int, help="ROS domain of the graph (default: the one that runs)")


def run(args: argparse.Namespace) -> int:
    from jepa_arm_bringup.domain import domain_to_ask
    from jepa_arm_bringup.environment import enter_ros_environment

    if args.file.suffix.lower() != ".png":
        raise PictureError(f"{args.file}: goal pictures are kept without loss: name a .png")
    domain = domain_to_ask(args.domain_id)
    enter_ros_environment()
    image = now(domain) if args.new_scene is None else goal_of(domain, args.new_scene)
    write(image, args.file)
    height, width, _ = image.shape
    print(f"wrote {args.file}, {width}x{height}; pursue it with: jepa-arm pursue {args.file}")
    return 0


def now(domain: int) -> NDArray[np.uint8]:
    """What the camera sees: uint8 (H, W, 3) RGB. Raises EpisodeError if no picture comes."""
    from jepa_arm_ros.goal_client import GoalClient

    with GoalClient(domain) as client:
        return client.picture().image


def goal_of(domain: int, seed: int) -> NDArray[np.uint8]:
    """Sets the scene of `seed`: uint8 (H, W, 3) RGB of its goal. Raises GraphError without a simulator."""
    from jepa_arm_ros.episode_client import EpisodeClient
    from jepa_arm_ros.messages import frame_from_image

    with EpisodeClient(domain) as client:
        # Asked before anything else: setting a scene begins with stopping the arm.
        if not client.spin_until(lambda: client.node.count_publishers("sim/truth") > 0, SIMULATOR_WITHIN_S):
            raise GraphError(f"--new-scene: there is no simulator in ROS domain {domain}")
        scene = client.reset_scene(seed)
        client.reset_safety()
        return frame_from_image(scene.goal_image).image


def write(image: NDArray[np.uint8], path: Path) -> None:
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    _, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    path.write_bytes(encoded.tobytes())
