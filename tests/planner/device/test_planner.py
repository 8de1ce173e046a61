"""The plan on the device is the plan of numpy where the noise is the same, and keeps its promises."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cli
from planner.bundle import Bundle
from planner.contract import Observation, Plan
from planner.device import planner as device_planner
from planner.device.planner import DevicePlanner
from planner.device.refinement import Refinement
from planner.device.run import PlanRun
from planner.energy import path_energy
from planner.errors import PlannerError
from planner.optimisers.cem import Cem
from planner.planners import Mode2Planner
from planner.registry import PLANNERS, make_planner

TOLERANCE_M = 1e-5
PERIOD_NS = 100_000_000
LATER_NS = 10**11  # the last plan is over by then
SILENT = [Cem(samples=32, iterations=0, elites=8, std=0.2), Cem(32, 2, 8, std=0.0, min_std=0.0)]
SEARCHED = 5  # of the stretches, the one in which refinement finds most
NOISY = Cem(samples=24, iterations=2, elites=6, std=0.3)


def device_plan(bundle: Bundle, refiner: Cem = NOISY, **more: Any) -> DevicePlanner:
    return DevicePlanner(bundle, refiner=refiner, device="cpu", **more)


def plans_along(planner: Any, stretch: Any) -> list[Plan]:
    planner.begin(stretch.goal)
    return [planner.plan(observation) for observation in stretch.observations]


def assert_the_same(bundle: Bundle, stretches: list[Any], refiner: Cem, horizon: int) -> list[Plan]:
    ours = device_plan(bundle, refiner, horizon=horizon)
    theirs = Mode2Planner(bundle, refiner=refiner, horizon=horizon)
    everything = []
    for stretch in stretches:
        for plan, expected in zip(plans_along(ours, stretch), plans_along(theirs, stretch), strict=True):
            np.testing.assert_allclose(plan.actions, expected.actions, atol=TOLERANCE_M * 0.1)
            assert plan.energy == pytest.approx(expected.energy, rel=1e-4)
            assert (plan.candidates, plan.dropped) == (expected.candidates, expected.dropped)
            everything.append(plan)
    return everything


@pytest.mark.parametrize(("refiner", "horizon"), list(zip(SILENT, (6, 7))), ids=["no iterations", "no noise"])
def test_without_noise_it_is_numpy_s_plan_far_and_near_and_from_plan_to_plan(
    push: Bundle, stretches: list[Any], draw_stretch: Callable[..., Any], refiner: Cem, horizon: int
) -> None:
    plans = assert_the_same(
        push, [*stretches[:2], *(draw_stretch(push, seed) for seed in (0, 1))], refiner, horizon
    )
    compared = {plan.candidates for plan in plans}
    assert compared == {12, 14 + refiner.iterations * refiner.samples}, "far from goals and near them"


def test_with_the_same_noise_it_is_numpy_s_plan(
    push: Bundle, stretches: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = {}

    def seed(run: PlanRun, number: int) -> None:
        drawn["rng"] = np.random.default_rng(number)

    def draw(refinement: Refinement, generator: Any) -> None:
        for noise in refinement.noise.unbind(0):
            noise.copy_(torch.from_numpy(drawn["rng"].standard_normal(noise.shape, dtype=np.float32)))
        refinement.noise[1:, 1].zero_()

    monkeypatch.setattr(Refinement, "draw", draw)
    monkeypatch.setattr(PlanRun, "seed", seed)
    searched = stretches[SEARCHED]
    # What refinement finds here is so good that the rest of the last plan is taken.
    here, actions_over = searched.observations[2], (0, 1, 2.7, 4, 4.1, 30)
    waiting = [replace(here, stamp_ns=round(passed * PERIOD_NS)) for passed in actions_over]
    both = [replace(searched, observations=seen) for seen in (searched.observations[:6], waiting)]
    plans = assert_the_same(push, both, NOISY, 6)
    assert all(plan.candidates == 14 + NOISY.iterations * NOISY.samples for plan in plans)


def test_a_reflex_of_one_answer_does_as_well(reach: Bundle, draw_stretch: Callable[..., Any]) -> None:
    plans = assert_the_same(reach, [draw_stretch(reach, seed) for seed in range(2)], SILENT[1], 6)
    assert len({plan.candidates for plan in plans}) == 2, "far from goals and near them"


def test_it_goes_on_from_its_last_plan(push: Bundle, stretches: list[Any]) -> None:
    """Where refinement found something better than all that the reflex does, it is not lost again."""
    planner, gains = device_plan(push), []
    for observation in stretches[SEARCHED].observations[:4]:
        planner.begin(stretches[SEARCHED].goal)
        energies = [planner.plan(observation).energy for _ in range(6)]
        assert all(after <= before + 1e-4 for before, after in zip(energies, energies[1:]))
        gains.append(energies[0] - energies[-1])
    assert max(gains) > 0.05


def test_the_refinement_never_loses_to_its_seed_and_energies_are_of_the_plan_s_own_path(
    push: Bundle, stretches: list[Any]
) -> None:
    planner, unrefined = device_plan(push), device_plan(push, SILENT[0])
    goal, gains = stretches[SEARCHED].goal, []
    for observation in stretches[SEARCHED].observations:
        for each in (planner, unrefined):
            each.begin(goal)
        plan, seed = planner.plan(observation), unrefined.plan(observation)
        assert plan.energy <= seed.energy + 1e-4
        gains.append(seed.energy - plan.energy)
        blocks = (plan.actions / np.float32(push.action.limit_m)).reshape(1, planner.horizon, -1)
        imagined = planner.world_model.rollout(observation, blocks)
        assert plan.energy == pytest.approx(path_energy(planner.energy, imagined, goal)[0], rel=1e-3)
    assert max(gains) > 0.05


def test_the_same_seed_gives_the_same_plans_and_noise_is_fresh_in_each(
    push: Bundle, stretches: list[Any]
) -> None:
    def plans(seed: int) -> np.ndarray:
        planner = device_plan(push, seed=seed)
        return np.stack([plan.actions for plan in plans_along(planner, stretches[SEARCHED])])

    first = plans(5)
    np.testing.assert_array_equal(plans(5), first)
    assert not np.array_equal(plans(6), first)
    planner, here = device_plan(push), stretches[SEARCHED].observations[2]
    planner.begin(stretches[SEARCHED].goal)
    alike = [
        planner.plan(Observation(here.latent, here.previous, here.tool, count * LATER_NS)).actions
        for count in range(4)
    ]
    assert not all(np.array_equal(alike[0], other) for other in alike[1:])


def test_a_new_goal_forgets_all_about_the_last_one(push: Bundle, stretches: list[Any]) -> None:
    fresh, used = device_plan(push), device_plan(push)
    plans_along(used, stretches[1])
    for plan, expected in zip(plans_along(used, stretches[0]), plans_along(fresh, stretches[0]), strict=True):
        np.testing.assert_array_equal(plan.actions, expected.actions)


def test_planning_before_a_goal_is_refused(push: Bundle, stretches: list[Any]) -> None:
    with pytest.raises(PlannerError, match=r"no goal .* begin\(\)"):
        device_plan(push).plan(stretches[0].observations[0])


@pytest.fixture(scope="module")
def restless(push: Bundle) -> DevicePlanner:
    """Its noise goes from one end of the limits to the other."""
    return device_plan(push, Cem(samples=32, iterations=2, elites=4, std=2.0))


@given(seed=st.integers(0, 99), x=st.floats(-0.05, 1.05), y=st.floats(-0.05, 1.05), scale=st.floats(0, 2))
@settings(deadline=None, max_examples=30)
def test_no_plan_leaves_the_limits_nor_what_training_saw(
    push: Bundle, restless: DevicePlanner, seed: int, x: float, y: float, scale: float
) -> None:
    """From everywhere in it and a little outside, however far the goal."""
    low, high = np.array(push.info.tool.low), np.array(push.info.tool.high)
    place = low + np.array([x, y, 0.5]) * (high - low)
    now, before, away = np.random.default_rng(seed).standard_normal((3, push.info.latent_dim))
    restless.begin(now + scale * away)
    stamp_ns = 0
    for _ in range(2):  # the second from the rest of the first
        latents = now.astype(np.float32), before.astype(np.float32)
        plan = restless.plan(Observation(*latents, place.astype(np.float32), stamp_ns))
        assert np.abs(plan.actions).max() <= push.action.limit_m * (1 + 1e-6)
        way = place[:2] + np.concatenate([np.zeros((1, 2)), plan.actions.astype(np.float64).cumsum(0)])
        excess = np.maximum(np.maximum(way - high[:2], low[:2] - way), 0.0)
        assert np.diff(excess, axis=0).max() <= TOLERANCE_M
        stamp_ns += PERIOD_NS


def test_what_is_not_a_number_becomes_no_motion_and_is_forgotten(push: Bundle, stretches: list[Any]) -> None:
    planner, there = device_plan(push), stretches[0].observations[-1]
    planner.begin(stretches[0].goal)
    planner.plan(Observation(there.latent * np.float32(np.nan), there.previous, there.tool, 0))
    broken = Observation(there.latent, there.previous, there.tool * np.float32(np.nan), 0)
    assert not np.isfinite(planner.plan(broken).actions).any()
    plan = planner.plan(there)
    assert np.isfinite(plan.actions).all() and np.isfinite(plan.energy)


class Machine:
    """A clock that only plans move: `fixed_s` each, and `each_s` more for every iteration."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fixed_s: float, each_s: float) -> None:
        self.fixed_s, self.each_s, self.now_s = fixed_s, each_s, 100.0
        plan = PlanRun.__call__

        def timed(run: PlanRun, inputs: Any, iterations: int) -> Any:
            self.now_s += self.fixed_s + self.each_s * iterations
            return plan(run, inputs, iterations)

        monkeypatch.setattr(PlanRun, "__call__", timed)

    def clock(self) -> float:
        return self.now_s


THREE = Cem(samples=8, iterations=3, elites=4, std=0.2)


def budgeted(monkeypatch: pytest.MonkeyPatch, bundle: Bundle, machine: Machine, budget_ms: float) -> Any:
    """As `make_planner` gives it where there is CUDA."""
    monkeypatch.setitem(
        PLANNERS, "mode2", lambda bundle, seed, budget: device_plan(bundle, THREE, seed=seed, budget=budget)
    )
    return make_planner("mode2", bundle, 0, budget_ms, machine.clock)


@pytest.mark.parametrize(
    ("budget_ms", "dropped"),
    [(9.0, ""), (6.5, "1 of 3 iterations"), (4.5, "2 of 3 iterations"), (1.0, "3 of 3 iterations")],
)
def test_with_a_budget_the_iterations_that_fit_are_run_and_the_others_told(
    push: Bundle, stretches: list[Any], monkeypatch: pytest.MonkeyPatch, budget_ms: float, dropped: str
) -> None:
    machine = Machine(monkeypatch, fixed_s=2e-3, each_s=2e-3)
    planner = budgeted(monkeypatch, push, machine, budget_ms)
    near = stretches[0].observations[-1]
    planner.begin(stretches[0].goal)
    plans = [planner.plan(near) for _ in range(12)]
    assert plans[0].dropped == "", "of the first, nothing is known"
    assert {plan.dropped for plan in plans[4:]} == {dropped}
    if budget_ms > 2.0:
        assert max(plan.elapsed_s for plan in plans[4:]) <= budget_ms * 1e-3
    done = int(round((plans[-1].elapsed_s - 2e-3) / 2e-3))
    assert plans[-1].candidates == 14 + done * THREE.samples


def test_when_the_machine_is_quick_again_nothing_is_dropped_any_more(
    push: Bundle, stretches: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, fixed_s=2e-3, each_s=2e-3)
    planner = budgeted(monkeypatch, push, machine, 9.0)
    planner.begin(stretches[0].goal)
    near, told = stretches[0].observations[-1], []
    for slower in (1, 10, 1):
        machine.fixed_s, machine.each_s = 2e-3 * slower, 2e-3 * slower
        told.append([planner.plan(near).dropped for _ in range(40)][-1])
    assert told == ["", "3 of 3 iterations", ""]


def test_far_from_the_goal_nothing_is_refined_so_nothing_is_dropped(
    push: Bundle, draw_stretch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = budgeted(monkeypatch, push, Machine(monkeypatch, 2e-3, 2e-3), 1.0)
    stretch = draw_stretch(push, 0)
    planner.begin(-stretch.goal)
    plans = [planner.plan(stretch.observations[-1]) for _ in range(4)]
    assert {(plan.candidates, plan.dropped) for plan in plans} == {(12, "")}


def test_mode2_is_planned_on_the_device_where_torch_runs_the_bundle_on_cuda(
    push: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert type(make_planner("mode2", push)) is Mode2Planner, "not on a CPU"
    monkeypatch.setattr("perception.runtimes.pytorch.device_here", lambda: "cuda")
    monkeypatch.setattr(device_planner, "DevicePlanner", lambda bundle, seed, budget: (bundle, seed))
    made: Any = make_planner("mode2", push, seed=3)
    assert made == (push, 3)
    other = push.on(push.variant.__class__("onnxruntime", "fp32", ""))
    assert type(make_planner("mode2", other)) is Mode2Planner, "not on another runtime"


def test_a_device_that_is_not_there_is_named(push: Bundle) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is CUDA here")
    with pytest.raises(PlannerError, match="no plan on cuda: .*; choose another runtime"):
        DevicePlanner(push, device="cuda")


def test_in_closed_loop_it_holds_the_goal(
    push: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(
        PLANNERS, "mode2", lambda bundle, seed, budget: DevicePlanner(bundle, seed, budget, device="cpu")
    )
    file = tmp_path / "push.json"
    command = ["eval", "--task", "push", "--episodes", "2", "--seed", "21", "--planner", "mode2"]
    assert cli.main([*command, "--runtime", "torch", "--json", str(file)]) == 0
    assert json.loads(file.read_text())["held_success_rate"] == 1.0
