from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from perception.dataset import DatasetInfo, Episodes
from perception.jepa.monitors import (
    OPEN_LOOP_STEPS,
    Health,
    calibrate_surprise,
    effective_rank,
    encode_all,
    read_health,
)
from perception.jepa.windows import Normaliser, Windows
from perception.surprise import LONGEST, OPEN_LOOP

BLOCK = 2


class Constant(nn.Module):
    """The collapsed encoder: every picture means the same."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.linspace(-1.0, 1.0, 8).expand(len(image), 8)


class Thumbnail(nn.Module):
    """Sees where things are: 8×8 grey levels, as wide as a latent."""

    def forward(self, image: Tensor) -> Tensor:
        grey = image.float().mean(3) / 40.0
        return nn.functional.avg_pool2d(grey, image.shape[1] // 8).flatten(1)


class StandsStill(nn.Module):
    """Predicts that nothing changes."""

    def forward(
        self, latent: Tensor, previous: Tensor, tool: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor]:
        return latent, tool


@pytest.fixture(scope="module")
def held_out(tiny_dataset: Any) -> tuple[DatasetInfo, Episodes]:
    from perception.dataset import load_dataset

    return load_dataset(tiny_dataset)


def read(encoder: nn.Module, held_out: tuple[DatasetInfo, Episodes]) -> Health:
    info, episodes = held_out
    windows = Windows(info, episodes, BLOCK, OPEN_LOOP_STEPS + 2, 20, Normaliser.fit(episodes.tool))
    return read_health(encoder, StandsStill(), windows, episodes)  # type: ignore[arg-type]


def test_a_collapsed_encoder_shows_in_spread_and_rank_and_probe(
    held_out: tuple[DatasetInfo, Episodes],
) -> None:
    collapsed, sighted = read(Constant(), held_out), read(Thumbnail(), held_out)
    assert collapsed.std == pytest.approx(0.0, abs=1e-5)
    assert collapsed.effective_rank == pytest.approx(1.0, abs=0.01)
    assert sighted.std > 0.05
    assert sighted.effective_rank > 8
    assert sighted.tool_probe_cm < collapsed.tool_probe_cm / 2


def test_a_predictor_that_stands_still_scores_one(held_out: tuple[DatasetInfo, Episodes]) -> None:
    health = read(Thumbnail(), held_out)
    assert health.open_loop_normalised == pytest.approx(1.0, rel=1e-5)
    assert health.one_step_error < health.open_loop_error


def test_there_is_no_object_probe_without_an_object(held_out: tuple[DatasetInfo, Episodes]) -> None:
    info, episodes = held_out
    nothing = np.full_like(episodes.object, np.nan)
    health = read(Thumbnail(), (info, Episodes(episodes.frames, episodes.actions, episodes.tool, nothing)))
    assert health.object_probe_cm is None
    assert "object_probe_cm" not in health.as_dict()
    assert "object_probe_cm" in read(Thumbnail(), held_out).as_dict()


def test_the_probes_are_of_positions_whatever_the_gripper_and_the_yaw_are(
    held_out: tuple[DatasetInfo, Episodes],
) -> None:
    info, episodes = held_out
    wild = np.random.default_rng(0).normal(0.0, 50.0, (*episodes.tool.shape[:2], 1)).astype(np.float32)
    gripping = Episodes(
        episodes.frames,
        episodes.actions,
        np.concatenate([episodes.tool, wild], 2),
        np.concatenate([episodes.object[..., :3], wild], 2),
    )
    plain, found = read(Thumbnail(), held_out), read(Thumbnail(), (info, gripping))
    assert (found.tool_probe_cm, found.object_probe_cm) == (plain.tool_probe_cm, plain.object_probe_cm)


def test_surprise_is_calibrated_on_whole_held_out_episodes(
    held_out: tuple[DatasetInfo, Episodes],
) -> None:
    info, episodes = held_out
    windows = Windows(info, episodes, BLOCK, 3, 20, Normaliser.fit(episodes.tool))
    found = calibrate_surprise(Thumbnail(), StandsStill(), windows, windows)  # type: ignore[arg-type]
    assert found["episodes"] == len(episodes)
    levels = found["levels"]
    assert 0 < levels["slow"] <= levels["hold"] <= levels["stop"]
    latents = encode_all(Thumbnail(), episodes.frames)  # type: ignore[arg-type]
    usual = latents[:, BLOCK * (LONGEST - 1) :]
    np.testing.assert_allclose(found["yardstick"]["latent_mean"], usual.mean((0, 1)), rtol=1e-4)
    tool = episodes.tool
    # Standing still errs by what the tool moves in the open loop.
    moved = np.linalg.norm(tool[:, OPEN_LOOP * BLOCK :] - tool[:, : -OPEN_LOOP * BLOCK], axis=2)
    assert found["scales"]["tool"] == pytest.approx(moved[:, BLOCK:].max(), rel=1e-3)


def test_encoding_in_batches_changes_nothing() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 200, 8, 8, 3), dtype=np.uint8)
    latents = encode_all(Thumbnail(), frames)  # type: ignore[arg-type]
    assert latents.shape == (3, 200, 64)
    np.testing.assert_array_equal(latents[2, 7], Thumbnail()(torch.from_numpy(frames[2, 7][None])).numpy()[0])


@given(st.integers(1, 8), st.floats(0.01, 100.0), st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_the_effective_rank_of_k_equal_directions_is_k(rank: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns = rng.standard_normal((64, rank))
    columns = np.linalg.qr(columns - columns.mean(0))[0]
    turned = columns @ np.linalg.qr(rng.standard_normal((12, 12)))[0][:rank]
    latents = scale * (turned + 0.1)
    assert effective_rank(latents.astype(np.float32)) == pytest.approx(rank, rel=0.01)


def test_the_effective_rank_of_unequal_directions_lies_between() -> None:
    latents = np.random.default_rng(0).standard_normal((2000, 2)).astype(np.float32)
    assert 1.9 < effective_rank(latents) <= 2.0
    assert effective_rank(latents * np.float32([1.0, 0.1])) == pytest.approx(1.356, rel=0.03)
