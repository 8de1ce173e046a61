"""Limits on tensors are the limits of numpy."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from planner.bundle import ActionSpace, ToolNormalisation
from planner.constraints import MotionLimits
from planner.device.limits import TensorLimits

LOW, HIGH, LIMIT_M = (0.3, -0.2, 0.02), (0.6, 0.2, 0.3), 0.02
SPACES = [
    ActionSpace(axes=("x", "y"), limit_m=LIMIT_M, period_s=0.1, block=2, fixed={"z": 0.025}),
    ActionSpace(axes=("z", "gripper", "x"), limit_m=LIMIT_M, period_s=0.1, block=2),
]
tools = st.tuples(*(st.floats(low - 0.05, high + 0.05) for low, high in zip(LOW, HIGH)))


@st.composite
def problems(draw: st.DrawFn) -> tuple[ActionSpace, np.ndarray]:
    space = draw(st.sampled_from(SPACES))
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 12)), space.dim
    return space, draw(arrays(np.float32, shape, elements=st.floats(-2, 2, width=32)))


def tool_range(space: ActionSpace) -> ToolNormalisation:
    grip = (0.0,) if "gripper" in space.axes else ()
    ones = (1.0,) * (3 + len(grip))
    return ToolNormalisation(mean=ones, std=ones, low=LOW + grip, high=HIGH + (0.04,) * len(grip))


def allow(space: ActionSpace, wanted: np.ndarray, tool: tuple[float, ...]) -> np.ndarray:
    limits = TensorLimits(space, tool_range(space))
    return limits(torch.from_numpy(wanted), torch.tensor(tool, dtype=torch.float32)).numpy()


@given(problems(), tools)
@settings(deadline=None, max_examples=300)
def test_what_they_allow_is_the_same(
    problem: tuple[ActionSpace, np.ndarray], tool: tuple[float, ...]
) -> None:
    space, wanted = problem
    now = (*tool, 0.02)[: tool_range(space).dim]
    expected = MotionLimits(space, tool_range(space)).allow(wanted, now)
    np.testing.assert_allclose(allow(space, wanted, now), expected, atol=1e-5)


@given(problems(), tools)
@settings(deadline=None, max_examples=200)
def test_what_is_allowed_stays_as_it_is_to_the_last_bit(
    problem: tuple[ActionSpace, np.ndarray], tool: tuple[float, ...]
) -> None:
    """Rounding must not creep into a plan that is looked at again and again."""
    space, wanted = problem
    now = (*tool, 0.02)[: tool_range(space).dim]
    moving = [axis != "gripper" for axis in space.axes]
    safe = np.where(moving, wanted * np.float32(0.01), np.clip(wanted, -1, 1)).astype(np.float32)
    middle = (0.45, 0.0, 0.15, 0.02)[: len(now)]
    np.testing.assert_array_equal(allow(space, safe, middle), safe)
