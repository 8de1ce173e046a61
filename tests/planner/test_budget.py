from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.budget import Allowance, Budget, Pace
from planner.contract import Array, Observation, Plan
from planner.errors import PlannerError
from planner.optimisers.cem import Cem
from planner.optimisers.contract import Effort
from planner.planners import CemPlanner, Mode2Planner
from planner.registry import make_planner

GOAL = np.array([4.0, -3.0], np.float32)
MS = 1e-3


@dataclass
class Machine:
    """A clock that only imagining moves: every candidate step takes `each_s`, every step `fixed_s` more."""

    each_s: float
    fixed_s: float = 0.0
    now_s: float = 100.0
    spent: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now_s

    def work(self, candidates: int, steps: int) -> None:
        self.spent.append(steps * (self.fixed_s + self.each_s * candidates))
        self.now_s += self.spent[-1]


def on(machine: Machine, planner: Any) -> Any:
    """`planner` with a world model whose imagining takes `machine`'s time."""
    model = planner.world_model
    rollout, reflex = model.rollout, model.rollout_reflex
    inside: list[bool] = []

    def timed_rollout(start: Any, actions: Array) -> Any:
        if not inside:
            machine.work(len(actions), actions.shape[1])
        return rollout(start, actions)

    def timed_reflex(observation: Observation, goal: Array, arrivals: Array, others: Array) -> Any:
        machine.work(len(arrivals) + len(others), others.shape[1])
        inside.append(True)
        imagined = reflex(observation, goal, arrivals, others)
        inside.pop()
        return imagined

    model.rollout, model.rollout_reflex = timed_rollout, timed_reflex
    planner.begin(GOAL)
    return planner


def plans(planner: Any, count: int) -> list[Plan]:
    here = np.zeros(2, np.float32)
    return [
        planner.plan(Observation(here, here, np.array([0.5, 0, 0.1], np.float32), i * 100_000_000))
        for i in range(count)
    ]


def mode2(bundle: Any, machine: Machine, budget_s: float | None) -> Any:
    refiner = Cem(samples=48, iterations=4, elites=8, std=0.2)
    return on(machine, Mode2Planner(bundle, 0, Budget(budget_s, machine.clock), refiner=refiner))


def cem(bundle: Any, machine: Machine, budget_s: float | None) -> Any:
    return on(machine, CemPlanner(bundle, 0, Budget(budget_s, machine.clock)))


KINDS = pytest.mark.parametrize("make", [mode2, cem])


@KINDS
def test_without_a_budget_or_with_a_generous_one_nothing_is_dropped(toy_bundle: Any, make: Any) -> None:
    free = plans(make(toy_bundle, Machine(1e-4), None), 4)
    rich = plans(make(toy_bundle, Machine(1e-4), 100.0), 4)
    for one, other in zip(free, rich):
        assert one.dropped == other.dropped == ""
        np.testing.assert_array_equal(one.actions, other.actions)


@KINDS
@given(
    budget_s=st.floats(1e-4, 2.0),
    each_s=st.floats(1e-7, 1e-3),
    fixed_s=st.floats(0, 1e-2),
    slower=st.floats(0.1, 10.0),
)
@settings(deadline=None, max_examples=60)
def test_a_plan_never_overruns_by_more_than_one_iteration(
    toy_bundle: Any, make: Any, budget_s: float, each_s: float, fixed_s: float, slower: float
) -> None:
    """Also the first ones, of which nothing is known, and those after the machine has become slower."""
    machine = Machine(each_s, fixed_s)
    planner = make(toy_bundle, machine, budget_s)
    for speed in (1.0, slower):
        machine.each_s, machine.fixed_s = each_s * speed, fixed_s * speed
        for _ in range(6):
            machine.spent.clear()
            (plan,) = plans(planner, 1)
            assert plan.elapsed_s == pytest.approx(sum(machine.spent))
            # One iteration is two halves of imagining, before and after the hopeless are given up.
            longest = max(sum(machine.spent[i : i + 2]) for i in range(len(machine.spent)))
            assert plan.elapsed_s <= budget_s + longest + 1e-9


@KINDS
def test_once_the_pace_is_known_plans_keep_within_the_budget(toy_bundle: Any, make: Any) -> None:
    for budget_ms in (15, 20, 40, 80, 160, 640):
        machine = Machine(each_s=0.02 * MS, fixed_s=0.2 * MS)
        late = plans(make(toy_bundle, machine, budget_ms * MS), 30)[10:]
        assert max(plan.elapsed_s for plan in late) <= budget_ms * MS
        used = np.mean([plan.elapsed_s for plan in late])
        full = plans(make(toy_bundle, machine, None), 2)[1].elapsed_s
        assert used >= 0.4 * min(budget_ms * MS, full), "time that is there is used"


def test_iterations_go_first_then_samples_then_the_horizon_then_the_refinement(toy_bundle: Any) -> None:
    dropped = []
    for budget_ms in (640, 12, 6, 2.6, 0.9):
        machine = Machine(each_s=0.02 * MS, fixed_s=0.05 * MS)
        dropped.append(plans(mode2(toy_bundle, machine, budget_ms * MS), 40)[-1].dropped)
    assert dropped[0] == ""
    assert dropped[1].endswith("of 4 iterations")
    assert dropped[2].startswith("3 of 4 iterations, ") and dropped[2].endswith("of 48 samples")
    assert "steps ahead" in dropped[3] and "of 48 samples" in dropped[3]
    assert dropped[4].startswith("4 of 4 iterations") and "samples" not in dropped[4]


def test_when_the_machine_is_quick_again_nothing_is_dropped_any_more(toy_bundle: Any) -> None:
    machine = Machine(each_s=0.02 * MS)
    planner = mode2(toy_bundle, machine, 60 * MS)
    assert plans(planner, 20)[-1].dropped == ""
    machine.each_s = 0.2 * MS
    assert plans(planner, 20)[-1].dropped != ""
    machine.each_s = 0.02 * MS
    assert plans(planner, 60)[-1].dropped == ""


@given(st.floats(1e-7, 1e-3), st.floats(0, 1e-2), st.lists(st.integers(1, 300), min_size=2, max_size=20))
def test_the_pace_is_learned_from_two_sizes(each_s: float, fixed_s: float, sizes: list[int]) -> None:
    pace = Pace()
    for size in sizes:
        pace.learn(size, 6, 6 * (fixed_s + each_s * size))
    expected = 5 * (fixed_s + each_s * 100)
    if len(set(sizes[-10:])) > 1:
        assert pace.expect(100, 5) == pytest.approx(expected, rel=1e-3)
    assert pace.expect(sizes[-1], 6) == pytest.approx(6 * (fixed_s + each_s * sizes[-1]), rel=1e-3)


def test_nothing_is_expected_of_what_was_never_measured() -> None:
    assert Pace().expect(100, 6) == 0.0


def test_what_was_dropped_is_said_in_words() -> None:
    full = Allowance(6, Effort(48, 4))
    assert full.shortfall(full, 4) == ""
    cut = Allowance(4, Effort(12, 1))
    assert cut.shortfall(full, 1) == "3 of 4 iterations, 36 of 48 samples, 2 of 6 steps ahead"
    assert cut.shortfall(full, 0) == "4 of 4 iterations, 2 of 6 steps ahead"


@pytest.mark.parametrize("budget_ms", (0.0, -1.0, float("nan"), float("inf")))
def test_a_budget_that_is_none_is_refused(toy_bundle: Any, budget_ms: float) -> None:
    with pytest.raises(PlannerError, match="name a budget above 0"):
        make_planner("mode2", toy_bundle, 0, budget_ms)
