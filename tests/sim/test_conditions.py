from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import conditions
from sim.conditions import GROUPS, NOMINAL, PERTURBATIONS, Conditions, drawn, perturbed, randomised

# What each group may change, and how far from nominal in evaluation.
RANGES: dict[str, dict[str, float]] = {
    "camera": {"camera_shift": 0.02, "camera_turn": np.radians(3.0)},
    "light": {"light_direction": 0.8, "brightness": 0.25, "tint": 0.06},
    "colours": {"block_colour": 0.15, "table_colour": 0.15},
    "friction-mass": {"friction": 0.3, "mass": 0.3},
    "size": {"size": 0.15},
    "latency": {"latency_s": 0.05},
}
NUMBERS = [(group, name) for group, ranges in RANGES.items() for name in ranges]
seeds = st.integers(0, 2**32 - 1)


def changed(found: Conditions) -> set[str]:
    return {
        field.name for field in fields(found) if getattr(found, field.name) != getattr(NOMINAL, field.name)
    }


def offset(found: Conditions, name: str) -> float:
    """How far a number, or the furthest of a vector's, is from nominal."""
    return float(np.abs(np.subtract(getattr(found, name), getattr(NOMINAL, name))).max())


def test_the_ranges_above_are_of_every_group_and_field() -> None:
    assert RANGES.keys() == GROUPS.keys()
    assert {name for _, name in NUMBERS} | {"texture"} == {field.name for field in fields(Conditions)}
    assert PERTURBATIONS == ("none", *RANGES, "all")


@given(st.sampled_from(sorted(RANGES)), seeds)
def test_a_perturbation_changes_its_own_group_only_and_all_of_it(name: str, seed: int) -> None:
    found = changed(perturbed(name, np.random.default_rng(seed)))
    assert found - {"texture"} == set(RANGES[name])
    assert "texture" not in found or name == "colours"


@given(st.sampled_from(PERTURBATIONS), seeds)
def test_a_perturbation_stays_within_its_ranges(name: str, seed: int) -> None:
    found = perturbed(name, np.random.default_rng(seed))
    for group, field in NUMBERS:
        assert offset(found, field) <= RANGES[group][field] + 1e-12
    assert found.latency_s >= 0 and min(found.friction, found.mass, found.size, found.brightness) > 0
    assert found.light_direction[2] == NOMINAL.light_direction[2], "light comes from above"


@given(seeds)
def test_all_perturbations_at_once_change_everything_and_none_changes_nothing(seed: int) -> None:
    assert changed(perturbed("all", np.random.default_rng(seed))) >= {name for _, name in NUMBERS}
    assert perturbed("none", np.random.default_rng(seed)) == NOMINAL


@given(st.sampled_from(PERTURBATIONS), seeds)
def test_the_same_generator_draws_the_same_conditions(name: str, seed: int) -> None:
    first, second = (perturbed(name, np.random.default_rng(seed)) for _ in range(2))
    assert first == second
    assert randomised(np.random.default_rng(seed)) == randomised(np.random.default_rng(seed))


@given(seeds, st.sets(st.sampled_from(sorted(GROUPS))))
def test_what_is_to_be_the_same_in_all_play_never_differs(seed: int, same: set[str]) -> None:
    found = changed(randomised(np.random.default_rng(seed), tuple(same)))
    assert not found & {field for group in same for field in RANGES[group]}


def test_what_is_not_said_to_be_the_same_still_differs() -> None:
    rng = np.random.default_rng(0)
    found = [changed(randomised(rng, ("camera", "size"))) for _ in range(100)]
    others = set(GROUPS) - {"camera", "size"}
    assert set().union(*found) - {"texture"} == {field for group in others for field in RANGES[group]}


@given(seeds, st.floats(0.0, 2.0))
@settings(max_examples=50)
def test_the_factor_stretches_the_range(seed: int, factor: float) -> None:
    names = ("camera", "light", "friction-mass", "size")
    plain, stretched = (drawn(names, np.random.default_rng(seed), f) for f in (1.0, factor))
    for group, field in NUMBERS:
        if group in names:
            assert offset(stretched, field) == pytest.approx(factor * offset(plain, field), abs=1e-12)


@pytest.fixture(scope="module")
def play() -> list[Conditions]:
    rng = np.random.default_rng(0)
    return [randomised(rng) for _ in range(3000)]


@pytest.mark.parametrize(("group", "field"), NUMBERS, ids=[field for _, field in NUMBERS])
def test_play_is_over_ranges_that_hold_evaluation_s(play: list[Conditions], group: str, field: str) -> None:
    largest, evaluated = max(offset(found, field) for found in play), RANGES[group][field]
    if group == "latency":
        assert 0.98 * evaluated < largest <= evaluated
    else:
        assert evaluated * 1.2 < largest <= evaluated * conditions.PLAY_FACTOR


def test_a_share_of_the_sessions_of_play_is_in_the_nominal_cell(play: list[Conditions]) -> None:
    all_left_alone = (1 - conditions.PLAY_SHARE) ** len(GROUPS)
    expected = conditions.NOMINAL_SHARE + (1 - conditions.NOMINAL_SHARE) * all_left_alone
    assert np.mean([found == NOMINAL for found in play]) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("group", RANGES)
def test_play_leaves_each_group_nominal_in_a_share_of_the_episodes(
    play: list[Conditions], group: str
) -> None:
    share, randomised_share = conditions.PLAY_SHARE, 1 - conditions.NOMINAL_SHARE
    differs = np.array([bool(changed(found) & set(RANGES[group])) for found in play])
    assert differs.mean() == pytest.approx(randomised_share * share, abs=0.04)
    others = [np.array([bool(changed(f) & set(RANGES[g])) for f in play]) for g in RANGES if g != group]
    for other in others:
        assert (differs & other).mean() == pytest.approx(randomised_share * share**2, abs=0.04)


def test_half_of_the_colours_come_with_a_texture_and_hardly_two_are_the_same(play: list[Conditions]) -> None:
    textures = [found.texture for found in play if found.table_colour != NOMINAL.table_colour]
    patterned = [texture for texture in textures if texture is not None]
    assert len(patterned) / len(textures) == pytest.approx(conditions.TEXTURE_SHARE, abs=0.05)
    assert len(set(patterned)) > 0.99 * len(patterned)
