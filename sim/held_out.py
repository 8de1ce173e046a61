"""Fresh frames to check a runtime by, for bundles that carry none: play that nothing was trained on."""

from __future__ import annotations

import numpy as np

from hardware.robot import load_robot
from perception.preprocessing import prepare
from planner.bundle import Bundle
from planner.held_out import STRETCH_STEPS, STRETCHES, HeldOut
from sim.play import Play
from sim.tasks import make_loop, make_task, place_at_random

# Neither the stream of recorded play nor that of evaluation.
STREAM = 0x02
# Long enough for play to reach the object.
LONGEST_LEAD = 40


def render_held_out(bundle: Bundle, seed: int = 0) -> HeldOut:
    """A stretch of play in each of STRETCHES scenes of the bundle's task, seen by its camera."""
    task = make_task(bundle.info.task)
    loop = make_loop(task, load_robot(bundle.robot))
    block, size, stretches = bundle.action.block, bundle.info.image_size, []
    try:
        for scene in range(STRETCHES):
            rng = np.random.default_rng([seed, STREAM, scene])
            loop.world.restart(int(rng.integers(2**63)))
            place_at_random(task, loop, rng)
            play = Play(task, rng)
            for _ in range(int(rng.integers(LONGEST_LEAD))):
                loop.execute(play(loop))
            frames, tools, actions = [], [], []
            for step in range((STRETCH_STEPS - 1) * block + 1):
                if step % block == 0:
                    frames.append(prepare(loop.world.render(), size))
                    tools.append(loop.tool_state())
                actions.append(play(loop))
                loop.execute(actions[-1])
            blocks = np.array(actions[:-1], np.float32).reshape(STRETCH_STEPS - 1, -1)
            stretches.append((np.array(frames), np.array(tools, np.float32), blocks))
    finally:
        loop.world.close()
    seen, tool, done = (np.stack(arrays) for arrays in zip(*stretches, strict=True))
    return HeldOut(seen, tool, done / np.float32(bundle.action.limit_m))
