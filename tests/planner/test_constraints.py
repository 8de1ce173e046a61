from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from planner.bundle import ActionSpace, Bundle, ToolNormalisation, load_bundle
from planner.constraints import MotionLimits
from planner.contract import Observation
from planner.planners import Mode2Planner
from planner.registry import PLANNERS, make_planner

LIMIT_M, TOLERANCE_M = 0.02, 1e-6
LOW, HIGH = (0.3, -0.2, 0.02), (0.6, 0.2, 0.3)
PLANE = ActionSpace(axes=("x", "y"), limit_m=LIMIT_M, period_s=0.1, block=2, fixed={"z": 0.025})
GRASP = ActionSpace(axes=("x", "y", "z", "gripper"), limit_m=LIMIT_M, period_s=0.1, block=2)

tools = st.tuples(*(st.floats(low - 0.05, high + 0.05) for low, high in zip(LOW, HIGH)))


def sequences(dim: int) -> st.SearchStrategy[np.ndarray]:
    shape = st.tuples(st.integers(1, 4), st.integers(1, 12), st.just(dim))
    return shape.flatmap(lambda s: arrays(np.float32, s, elements=st.floats(-2, 2, width=32)))


def limits(action: ActionSpace) -> MotionLimits:
    grip = (0.0,) if "gripper" in action.axes else ()
    ones = (1.0,) * (3 + len(grip))
    wide = (0.04,) if grip else ()
    return MotionLimits(action, ToolNormalisation(mean=ones, std=ones, low=LOW + grip, high=HIGH + wide))


def way(actions: np.ndarray, tool: np.ndarray) -> np.ndarray:
    """Where the tool is after each action (N, T, moving axes), the start first."""
    moved = tool + LIMIT_M * actions.astype(np.float64).cumsum(1)
    return np.concatenate([np.broadcast_to(tool, (len(actions), 1, len(tool))), moved], axis=1)


def outside(places: np.ndarray, dim: int) -> np.ndarray:
    low, high = np.array(LOW)[:dim], np.array(HIGH)[:dim]
    return np.maximum(np.maximum(places - high, low - places), 0.0)


@given(sequences(2), tools)
@settings(deadline=None, max_examples=300)
def test_the_tool_never_leaves_the_range_nor_gets_further_out_of_it(
    wanted: np.ndarray, tool: tuple[float, ...]
) -> None:
    allowed = limits(PLANE).allow(wanted, tool)
    assert allowed.shape == wanted.shape and allowed.dtype == np.float32
    assert np.abs(allowed).max() <= 1.0
    excess = outside(way(allowed, np.array(tool[:2])), 2)
    assert np.diff(excess, axis=1).max() <= TOLERANCE_M


@given(sequences(2), tools)
@settings(deadline=None, max_examples=200)
def test_what_is_allowed_stays_as_it_is(wanted: np.ndarray, tool: tuple[float, ...]) -> None:
    once = limits(PLANE).allow(wanted, tool)
    np.testing.assert_allclose(limits(PLANE).allow(once, tool), once, atol=1e-4)
    still = np.zeros_like(wanted)
    np.testing.assert_array_equal(limits(PLANE).allow(still, tool), still)


@given(sequences(2))
@settings(deadline=None, max_examples=100)
def test_far_from_the_border_only_the_bounds_count(wanted: np.ndarray) -> None:
    """12 actions of 2 cm do not reach a border that is further away than that."""
    roomy = ToolNormalisation(mean=(0, 0, 0), std=(1, 1, 1), low=(-1, -1, -1), high=(1, 1, 1))
    allowed = MotionLimits(PLANE, roomy).allow(wanted, (0.0, 0.0, 0.0))
    np.testing.assert_array_equal(allowed, np.clip(wanted, -1, 1))


@given(sequences(2), tools)
@settings(deadline=None, max_examples=100)
def test_every_sequence_is_treated_by_itself(wanted: np.ndarray, tool: tuple[float, ...]) -> None:
    together = limits(PLANE).allow(wanted, tool)
    alone = [limits(PLANE).allow(one[None], tool)[0] for one in wanted]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-4)


def test_a_tool_outside_may_come_back_and_move_along_and_does_not_leave_again() -> None:
    tool = (HIGH[0] + 0.03, 0.0, 0.025)
    wanted = np.array([[[1, 1], [-1, 1], [-1, 0], [1, 0], [-1, -1], [1, 0]]], np.float32)
    allowed = limits(PLANE).allow(wanted, tool)[0]
    np.testing.assert_array_equal(allowed[:, 1], wanted[0, :, 1])
    np.testing.assert_allclose(allowed[:, 0], [0, 0, -1, 0, 0, 0], atol=1e-4)
    back = limits(PLANE).allow(np.full((1, 3, 2), -1, np.float32), tool)[0]
    np.testing.assert_allclose(back[:, 0], -1)


@given(sequences(4), tools)
@settings(deadline=None, max_examples=100)
def test_a_gripper_is_bounded_and_otherwise_let_be(wanted: np.ndarray, tool: tuple[float, ...]) -> None:
    grasp = limits(GRASP)
    assert grasp.switches.tolist() == [False, False, False, True]
    allowed = grasp.allow(wanted, (*tool, 0.04))
    np.testing.assert_array_equal(allowed[..., 3], np.clip(wanted[..., 3], -1, 1))
    excess = outside(way(allowed[..., :3], np.array(tool)), 3)
    assert np.diff(excess, axis=1).max() <= TOLERANCE_M


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return load_bundle(tiny_bundle)


@pytest.mark.parametrize("name", PLANNERS)
@pytest.mark.parametrize("beyond_m", (-0.001, 0.0, 0.02))
def test_no_planner_leads_the_tool_out_of_what_training_saw(
    bundle: Bundle, name: str, beyond_m: float
) -> None:
    """At every corner of the range, just inside, on it and outside, whatever the goal."""
    low, high = np.array(bundle.info.tool.low), np.array(bundle.info.tool.high)
    rng = np.random.default_rng(0)
    planner = make_planner(name, bundle)
    if isinstance(planner, Mode2Planner):
        planner.trusted_steps = 1e9
    for corner in np.array([[0, 0], [0, 1], [1, 0], [1, 1]]):
        tool = np.where(np.append(corner, 0), high + beyond_m, low - beyond_m)
        latent, previous, goal = rng.standard_normal((3, bundle.info.latent_dim)).astype(np.float32)
        planner.begin(goal)
        plan = planner.plan(Observation(latent, previous, tool.astype(np.float32), 0))
        places = tool[:2] + np.concatenate([np.zeros((1, 2)), plan.actions.astype(np.float64).cumsum(0)])
        excess = np.maximum(np.maximum(places - high[:2], low[:2] - places), 0.0)
        assert np.diff(excess, axis=0).max() <= 1e-5
