"""Training samples out of recorded episodes, drawn so that step n's batch depends on (seed, n) alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perception.dataset import DatasetInfo, Episodes
from perception.jepa.augmentation import augment

# Hindsight goals of each window: more make a step dearer without teaching much more.
GOALS = 1
# Half of the goals are this near: that is where a plan is decided, however far the model can see.
NEAR_STEPS = 12
NEAR_SHARE = 0.5


@dataclass(frozen=True)
class Normaliser:
    """Tool state (P,) metres to about zero mean and unit deviation; `low` and `high` are its range."""

    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]

    # An axis that hardly moves (push holds its height) must not have its noise blown up.
    SMALLEST_STD_M = 0.02

    @classmethod
    def fit(cls, tool: NDArray[np.float32]) -> Normaliser:
        flat = tool.reshape(-1, tool.shape[-1])
        std = np.maximum(flat.std(0), cls.SMALLEST_STD_M).astype(np.float32)
        return cls(flat.mean(0), std, flat.min(0), flat.max(0))

    def __call__(self, tool: NDArray[np.float32]) -> NDArray[np.float32]:
        return (tool - self.mean) / self.std


class Sample(NamedTuple):
    """A batch of windows of L model steps, with goals G that were seen later in their episodes.

    `frames` uint8 (B, L, S, S, 3), `tool` (B, L, P), `actions` blocks (B, L−1, block·A), `goals` uint8
    (B, G, S, S, 3), `steps_left` int64 (B, L, G) from each frame to each goal, negative where it came before.
    """

    frames: Tensor
    tool: Tensor
    actions: Tensor
    goals: Tensor
    steps_left: Tensor


class Windows:
    """Windows of `length` model steps, `block` recorded actions each, from the training episodes."""

    def __init__(
        self,
        info: DatasetInfo,
        episodes: Episodes,
        block: int,
        length: int,
        max_steps: int,
        normaliser: Normaliser,
    ) -> None:
        self.frames = episodes.frames
        self.block, self.length, self.session, self.same = block, length, info.session, info.same
        self.max_steps = max_steps
        self.tool, self.tool_std = normaliser(episodes.tool), normaliser.std
        self.actions = episodes.actions / np.float32(info.action_limit_m)
        self.starts = info.steps - block * (length - 1) + 1

    def sample(self, seed: int, step: int, batch: int, together: int, share: slice = slice(None)) -> Sample:
        """`batch` windows; each run of `together` is from one session, its pictures augmented alike.

        Neighbours in a run are of different episodes. Where episodes hold features of a frozen encoder
        instead of pictures, these come as they are, (B, L, F). Of the whole batch only `share`, whole runs,
        is taken.
        """
        rng = np.random.default_rng([seed, step])
        runs = batch // together
        session = rng.integers(len(self.frames) // self.session, size=runs).repeat(together)
        turn = rng.integers(self.session, size=runs).repeat(together) + np.tile(np.arange(together), runs)
        episode = session * self.session + turn % self.session
        start = rng.integers(self.starts, size=batch)
        goal_at = self._goals(rng, start)
        changes = rng.integers(2**62, size=runs).repeat(together)[share][::together]
        episode, start, goal_at = episode[share], start[share], goal_at[share]
        frames, tool, actions = self.take(episode, start)
        pictures = np.concatenate([frames.numpy(), self.frames[episode[:, None], goal_at]], axis=1)
        # Features, kept in half precision, were computed of pictures as they are.
        is_picture = pictures.dtype == np.uint8
        seen = torch.from_numpy(
            augment(pictures, together, changes, self.same) if is_picture else pictures.astype(np.float32)
        )
        at = start[:, None] + self.block * np.arange(self.length)
        steps_left = torch.from_numpy((goal_at[:, None] - at[:, :, None]) // self.block)
        return Sample(seen[:, : self.length], tool, actions, seen[:, self.length :], steps_left)

    def _goals(self, rng: np.random.Generator, start: NDArray[np.int64]) -> NDArray[np.int64]:
        """Recorded steps (B, GOALS) of later pictures of the episodes, whole model steps away."""
        now = start[:, None] + self.block * rng.integers(self.length - 1, size=(len(start), GOALS))
        near = min(NEAR_STEPS, self.max_steps)
        furthest = np.where(rng.random(now.shape) < NEAR_SHARE, near, self.max_steps)
        seen = np.minimum(furthest, (self.frames.shape[1] - 1 - now) // self.block)
        return now + self.block * (1 + (rng.random(now.shape) * seen).astype(np.int64))

    def take(self, episode: NDArray[np.int64], start: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """The windows that begin at recorded step `start` (B,) of `episode` (B,)."""
        at = start[:, None] + self.block * np.arange(self.length)
        every = start[:, None] + np.arange(self.block * (self.length - 1))
        actions = self.actions[episode[:, None], every].reshape(len(episode), self.length - 1, -1)
        return (
            torch.from_numpy(self.frames[episode[:, None], at]),
            torch.from_numpy(self.tool[episode[:, None], at]),
            torch.from_numpy(np.ascontiguousarray(actions)),
        )


class ReflexBatch(NamedTuple):
    """z (B, D), normalised tool (B, P), z_goal (B, D), steps left (B, 1), the block taken (B, block·A), and z
    (B, D) and tool (B, P) after it."""

    latent: Tensor
    tool: Tensor
    goal: Tensor
    steps_left: Tensor
    taken: Tensor
    following: Tensor
    following_tool: Tensor


class EnergyBatch(NamedTuple):
    """z (B, D), normalised tool (B, P), z_goal (B, D), steps to go int64 (B,)."""

    latent: Tensor
    tool: Tensor
    goal: Tensor
    steps_to_go: Tensor


class GoalPairs:
    """Hindsight goals for the heads: a latent, a later latent of the same episode, the actions in between.

    Batches come with the normalised tool states (B, P) of where they start.
    """

    ELSEWHERE_SHARE = 0.2

    def __init__(
        self,
        info: DatasetInfo,
        latents: NDArray[np.float32],
        tool: NDArray[np.float32],
        actions: NDArray[np.float32],
        block: int,
        max_steps: int,
    ) -> None:
        """`latents` (V·E, T+1, D), of V views of the episodes one after the other; normalised `tool` states
        (E, T+1, P); `actions` (E, T, A) m."""
        self.latents = latents
        self.block = block
        self.max_steps = max_steps
        views = len(latents) // len(actions)
        self.tool = np.tile(tool, (views, 1, 1))
        self.actions = np.tile(actions / np.float32(info.action_limit_m), (views, 1, 1))
        self.steps, self.session = info.steps, info.session

    def proposal_batch(self, seed: int, step: int, batch: int, share: slice = slice(None)) -> ReflexBatch:
        """For the reflex, with what comes of the block that was taken. Of the whole batch only `share`."""
        rng = np.random.default_rng([seed, step, 1])
        episode, now, steps = self._pairs(rng, batch, least=1)
        episode, now, steps = episode[share], now[share], steps[share]
        every = now[:, None] + np.arange(self.block)
        actions = self.actions[episode[:, None], every].reshape(len(episode), -1)
        return ReflexBatch(
            latent=torch.from_numpy(self.latents[episode, now]),
            tool=torch.from_numpy(self.tool[episode, now]),
            goal=torch.from_numpy(self.latents[episode, now + self.block * steps]),
            steps_left=torch.from_numpy(steps.astype(np.float32)[:, None]),
            taken=torch.from_numpy(np.ascontiguousarray(actions)),
            following=torch.from_numpy(self.latents[episode, now + self.block]),
            following_tool=torch.from_numpy(self.tool[episode, now + self.block]),
        )

    def energy_batch(self, seed: int, step: int, batch: int, share: slice = slice(None)) -> EnergyBatch:
        """For the energy. A share of the goals is from other episodes of the session. Of the whole batch only
        `share`."""
        rng = np.random.default_rng([seed, step, 2])
        episode, now, steps = self._pairs(rng, batch, least=0)
        goal_episode, goal_at = episode.copy(), now + self.block * steps
        elsewhere = rng.random(batch) < self.ELSEWHERE_SHARE
        count = int(elsewhere.sum())
        # Of the same session: another camera or light alone must not tell that a goal is elsewhere.
        place = episode[elsewhere] % self.session
        others = (place + rng.integers(1, max(self.session, 2), size=count)) % self.session
        goal_episode[elsewhere] = episode[elsewhere] - place + others
        goal_at[elsewhere] = rng.integers(self.steps + 1, size=count)
        label = np.where(elsewhere, self.max_steps + 1, steps)
        return EnergyBatch(
            latent=torch.from_numpy(self.latents[episode, now][share]),
            tool=torch.from_numpy(self.tool[episode, now][share]),
            goal=torch.from_numpy(self.latents[goal_episode, goal_at][share]),
            steps_to_go=torch.from_numpy(label[share]),
        )

    def _pairs(
        self, rng: np.random.Generator, batch: int, least: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        near = min(NEAR_STEPS, self.max_steps)
        furthest = np.where(rng.random(batch) < NEAR_SHARE, near, self.max_steps)
        steps = rng.integers(least, furthest + 1)
        now = (rng.random(batch) * (self.steps - self.block * np.maximum(steps, 1) + 1)).astype(np.int64)
        return rng.integers(len(self.latents), size=batch), now, steps
