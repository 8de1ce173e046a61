"""Records an episode to the folder named, thirty rows a second, and says how many, until it is killed."""

import sys
import time
from pathlib import Path

import numpy as np

from perception.lerobot.layout import Recording
from perception.lerobot.running import Row
from perception.lerobot.writer import DatasetWriter

recording = Recording("so101", ("a", "b"), "front", 64, 48, 30)
episode = DatasetWriter.open(Path(sys.argv[1]), recording).begin("push")
began_s = time.monotonic()
while True:
    shade = np.full((48, 64, 3), episode.rows % 200, np.uint8)
    numbers = np.full(3, episode.rows, np.float32)
    episode.add(Row(shade, numbers[:2], numbers[:2] + 1, numbers, numbers))
    print(episode.rows, flush=True)
    time.sleep(max(0.0, began_s + episode.rows / 30 - time.monotonic()))
