"""Draws docs/push.png from the frames of one episode: `.venv/bin/python docs/picture.py`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from hardware.robot import load_robot
from planner.bundle import load_bundle
from sim.pilots import make_pilot
from sim.results import TOLERANCE_M
from sim.tasks import distance_m, make_loop, make_task, new_episode

ROOT = Path(__file__).resolve().parent.parent
SEED = 7_000_004
SIDE = 256
CAPTIONS = ("goal picture", "start", "underway", "there")


def main() -> None:
    bundle = load_bundle(ROOT / "models" / "panda-push")
    task = make_task("push")
    loop = make_loop(task, load_robot(bundle.robot))
    episode = new_episode(task, loop, SEED)
    pilot = make_pilot("mode2", bundle, task, SEED)
    pilot.begin(loop, episode)
    frames = [loop.world.render()]
    for _ in range(episode.budget_steps):
        loop.execute(pilot.act(loop).action)
        frames.append(loop.world.render())
        if distance_m(task, loop, episode) < TOLERANCE_M / 2:
            break
    pictures = (episode.goal_image, frames[0], frames[2 * len(frames) // 3], frames[-1])
    strip = np.hstack([captioned(image, text) for image, text in zip(pictures, CAPTIONS)])
    cv2.imwrite(str(ROOT / "docs" / "push.png"), strip[:, :, ::-1])


def captioned(image: np.ndarray, text: str) -> np.ndarray:
    large = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    framed = cv2.copyMakeBorder(large, 4, 28, 4, 4, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    cv2.putText(framed, text, (10, SIDE + 24), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (40, 40, 40), 1, cv2.LINE_AA)
    return framed


if __name__ == "__main__":
    main()
