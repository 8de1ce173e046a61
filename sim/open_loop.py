"""How well a bundle predicts open loop: latents imagined ahead of play that it has never seen.

errors = open_loop_errors(make_task("push"), bundle)
errors.relative                 # (HORIZON,): the share of the error that "nothing changes" makes
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hardware.robot import load_robot
from perception.preprocessing import prepare
from planner.bundle import Bundle
from planner.contract import Array
from planner.world_model import State, WorldModel
from sim.control import ControlLoop
from sim.play import Play
from sim.tasks import Task, make_loop, place_at_random

HORIZON = 12
EPISODES = 16
# Model steps of one episode: its rollouts begin at every step that has HORIZON of them after it.
EPISODE_STEPS = 24
# Neither the stream of recorded play nor that of evaluation.
STREAM = 0x01


@dataclass(frozen=True)
class OpenLoopErrors:
    """Mean squared latent errors (HORIZON,) after 1, 2, … model steps: of the model, of standing still."""

    predicted: NDArray[np.float64]
    standing_still: NDArray[np.float64]
    rollouts: int

    @property
    def relative(self) -> NDArray[np.float64]:
        return self.predicted / self.standing_still


def open_loop_errors(task: Task, bundle: Bundle, episodes: int = EPISODES, seed: int = 0) -> OpenLoopErrors:
    """Imagine HORIZON steps ahead from every step of fresh play, and compare with what came."""
    model = bundle.world_model()
    loop = make_loop(task, load_robot(bundle.robot))
    try:
        squares = [
            _squares(model, *_play(task, loop, bundle, np.random.default_rng([seed, STREAM, episode])))
            for episode in range(episodes)
        ]
    finally:
        loop.world.close()
    predicted, still = (np.concatenate(parts) for parts in zip(*squares, strict=True))
    return OpenLoopErrors(predicted.mean(0), still.mean(0), len(predicted))


def _play(
    task: Task, loop: ControlLoop, bundle: Bundle, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Latents (T+1, D), tool states (T+1, P) in metres and action blocks (T, block·A) in −1…1."""
    loop.world.restart(int(rng.integers(2**63)))
    place_at_random(task, loop, rng)
    play, encoder, block = Play(task, rng), bundle.encoder(), bundle.action.block
    latents, tools, actions = [], [], []
    for step in range(EPISODE_STEPS * block + 1):
        if step % block == 0:
            picture = prepare(loop.world.render(), encoder.spec.image_size)
            latents.append(encoder.encode(picture[None])[0])
            tools.append(loop.tool_state())
        if step < EPISODE_STEPS * block:
            actions.append(play(loop))
            loop.execute(actions[-1])
    blocks = np.array(actions, np.float32).reshape(EPISODE_STEPS, -1) / np.float32(bundle.action.limit_m)
    return np.array(latents), np.array(tools, np.float32), blocks


def _squares(
    model: WorldModel, latents: Array, tools: Array, blocks: Array
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Squared errors (N, HORIZON) of N rollouts, and of taking their first latent for all later ones."""
    starts = np.arange(1, EPISODE_STEPS - HORIZON + 1)
    ahead = starts[:, None] + np.arange(HORIZON)
    state = State(latents[starts], latents[starts - 1], model.normalise(tools[starts]))
    imagined = model.rollout(state, blocks[ahead]).latents
    came = latents[ahead + 1].astype(np.float64)
    return _mean_square(imagined - came), _mean_square(latents[starts][:, None] - came)


def _mean_square(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.mean(differences**2, axis=-1))
