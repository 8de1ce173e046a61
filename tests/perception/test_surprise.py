from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.surprise import (
    FALSE_ALARM_RATES,
    LONGEST,
    SCORES,
    SHORTEST,
    Experience,
    Yardstick,
    calibrate,
    conformal_quantile,
    experience_of,
    surprise,
)

DIM, BLOCK = 4, 2


def drift(latent: np.ndarray, previous: np.ndarray, tool: np.ndarray, actions: np.ndarray):
    """A world in which the latent goes on as it went, and the tool moves by its actions."""
    return 2 * latent - previous, tool + actions.reshape(len(actions), BLOCK, -1).sum(1)


def recorded(episodes: int, steps: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latents, tool and actions of that world, with a camera's noise."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (episodes, steps, 3)).astype(np.float32)
    tool = np.concatenate([np.zeros((episodes, 1, 3)), actions.cumsum(1)], 1)
    speed = rng.standard_normal((episodes, 1, DIM))
    latents = rng.standard_normal((episodes, 1, DIM)) + 0.1 * speed * np.arange(steps + 1)[:, None]
    latents += 0.01 * rng.standard_normal(latents.shape)
    tool += 0.001 * rng.standard_normal(tool.shape)
    return latents.astype(np.float32), tool.astype(np.float32), actions


@pytest.fixture(scope="module")
def yardstick() -> Yardstick:
    usual, _ = experience_of(*recorded(200, 30), BLOCK)
    return Yardstick.fit(usual, np.ones(3), drift)


def scores(yardstick: Yardstick, latents: np.ndarray, tool: np.ndarray, actions: np.ndarray) -> np.ndarray:
    experience, moments = experience_of(latents, tool, actions, BLOCK)
    return yardstick.scores(experience, drift).reshape(len(latents), moments, len(SCORES))


@pytest.fixture(scope="module")
def scales(yardstick: Yardstick) -> np.ndarray:
    return calibrate(scores(yardstick, *recorded(200, 30, seed=1)))[0]


def test_every_moment_of_an_episode_is_experienced_in_order() -> None:
    latents = np.arange(2 * 12 * DIM, dtype=np.float32).reshape(2, 12, DIM)
    tool = np.arange(2 * 12 * 3, dtype=np.float32).reshape(2, 12, 3)
    actions = np.arange(2 * 11, dtype=np.float32).reshape(2, 11, 1)
    experience, moments = experience_of(latents, tool, actions, BLOCK)
    assert moments == 12 - BLOCK * (LONGEST - 1)
    last = experience.latents[2 * moments - 1], experience.tool[-1], experience.actions[-1]
    at = np.arange(12 - 1 - BLOCK * (LONGEST - 1), 12, BLOCK)
    np.testing.assert_array_equal(last[0], latents[1, at])
    np.testing.assert_array_equal(last[1], tool[1, at])
    np.testing.assert_array_equal(last[2], actions[1, at[0] : at[-1], 0].reshape(-1, BLOCK))


@pytest.mark.parametrize("name", SCORES)
def test_each_score_sees_its_own_anomaly(yardstick: Yardstick, scales: np.ndarray, name: str) -> None:
    latents, tool, actions = recorded(30, 30, seed=2)
    if name == "latent":
        latents[:, 15:] += 0.3
    elif name == "tool":
        tool[:, 15:] = tool[:, 15:16]
    elif name == "outlier":
        latents += np.float32(20.0)
    else:
        latents[:, 10:] = latents[:, 10:11]
    found = scores(yardstick, latents, tool, actions).max(1) / scales
    seen = found[:, SCORES.index(name)]
    assert seen.min() > 2.0
    usual = scores(yardstick, *recorded(30, 30, seed=2)).max(1)[:, SCORES.index(name)]
    assert (usual / scales[SCORES.index(name)]).max() < seen.min()


def test_a_resting_arm_under_a_noisy_camera_is_not_frozen(yardstick: Yardstick, scales: np.ndarray) -> None:
    latents, tool, actions = recorded(30, 30, seed=3)
    noise = 0.01 * np.random.default_rng(0).standard_normal(latents.shape).astype(np.float32)
    latents, tool, actions = latents[:, :1] + noise, 0 * tool, 0 * actions
    resting = scores(yardstick, latents, tool, actions)
    frozen = scores(yardstick, latents[:, :1] + 0 * noise, tool, actions)
    still = SCORES.index("stillness")
    assert frozen[..., still].min() > 1000 * resting[..., still].max()


@pytest.mark.parametrize("steps", range(SHORTEST, LONGEST + 1))
def test_a_short_past_is_enough(yardstick: Yardstick, steps: int) -> None:
    usual, _ = experience_of(*recorded(2, 30, seed=4), BLOCK)
    short = Experience(
        usual.latents[:, -steps:],
        usual.tool[:, -steps:],
        usual.actions[:, len(usual.actions[0]) + 1 - steps :],
    )
    whole, part = yardstick.scores(usual, drift), yardstick.scores(short, drift)
    np.testing.assert_allclose(part[:, [0, 2, 3]], whole[:, [0, 2, 3]], rtol=1e-5)
    assert np.all(part[:, 1] < 0.02)


def test_streams_are_scored_as_if_each_were_alone(yardstick: Yardstick) -> None:
    usual, _ = experience_of(*recorded(2, 12, seed=5), BLOCK)
    together = yardstick.scores(usual, drift)
    alone = Experience(usual.latents[1:2], usual.tool[1:2], usual.actions[1:2])
    np.testing.assert_allclose(together[1:2], yardstick.scores(alone, drift), rtol=1e-5)


@given(st.integers(0, 2**32 - 1), st.integers(2, 300), st.sampled_from([0.01, 0.03, 0.1, 0.5]))
def test_a_new_value_exceeds_the_conformal_quantile_at_most_at_its_rate(
    seed: int, count: int, rate: float
) -> None:
    """Of N + 1 values any is the new one: the share that exceeds the quantile of the others is counted."""
    values = np.random.default_rng(seed).standard_normal(count + 1)
    exceeding = sum(value > conformal_quantile(np.delete(values, i), rate) for i, value in enumerate(values))
    assert exceeding <= max(rate * (count + 1) + 1e-9, 1.0)


def test_too_few_episodes_give_the_largest_surprise() -> None:
    assert conformal_quantile(np.arange(50.0), 0.01) == 49.0
    assert conformal_quantile(np.arange(99.0), 0.01) == 98.0
    assert conformal_quantile(np.arange(199.0), 0.01) == 197.0


def test_levels_are_reached_by_their_share_of_episodes(yardstick: Yardstick) -> None:
    calibrated = scores(yardstick, *recorded(400, 30, seed=6))
    scales, levels = calibrate(calibrated)
    assert tuple(levels) == ("slow", "hold", "stop")
    fresh = surprise(scores(yardstick, *recorded(400, 30, seed=7)), scales).max(1)
    for name, level in levels.items():
        assert (surprise(calibrated, scales).max(1) > level).mean() <= FALSE_ALARM_RATES[name]
        assert (fresh > level).mean() <= FALSE_ALARM_RATES[name] + 0.04
