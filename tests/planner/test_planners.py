from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.bundle import Bundle, load_bundle
from planner.contract import Observation
from planner.energy import latent_distance, path_energy
from planner.errors import PlannerError
from planner.planners import CemPlanner, Mode1Planner, Mode2Planner
from planner.registry import PLANNERS, make_planner
from planner.world_model import Imagined, State

PERIOD_NS = 100_000_000
REFINING = ("mode2", "icem", "mppi", "gradient")
SEARCHING = ("mode1", "cem", *REFINING)

latents = st.tuples(st.floats(-20, 20), st.floats(-20, 20))


def observe(latent: Any, stamp_ns: int = 0) -> Observation:
    now = np.array(latent, np.float32)
    return Observation(now, now, np.array([0.5, 0.0, 0.1], np.float32), stamp_ns)


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return load_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def scene(bundle: Bundle) -> tuple[Observation, np.ndarray]:
    """Where the untrained bundle sees itself, and a goal."""
    rng = np.random.default_rng(3)
    now, before, goal = rng.standard_normal((3, bundle.info.latent_dim)).astype(np.float32)
    return Observation(now, before, np.array([0.5, 0.1, 0.025], np.float32), 0), goal


@pytest.mark.parametrize("name", PLANNERS)
def test_plans_are_whole_finite_and_within_limits(
    bundle: Bundle, scene: tuple[Observation, np.ndarray], name: str
) -> None:
    observation, goal = scene
    planner = make_planner(name, bundle, seed=0)
    assert planner.name == name
    planner.begin(goal)
    plan = planner.plan(observation)
    steps, dim = plan.actions.shape
    assert plan.actions.dtype == np.float32
    assert dim == bundle.action.dim and steps > 0 and steps % bundle.action.block == 0
    assert np.abs(plan.actions).max() <= bundle.action.limit_m * (1 + 1e-6)
    assert np.isfinite(plan.energy) and plan.candidates >= 1 and plan.elapsed_s >= 0
    assert (np.abs(plan.actions).max() > 0) == (name != "hold")


@pytest.mark.parametrize("name", PLANNERS)
def test_the_same_seed_gives_the_same_plans(
    bundle: Bundle, scene: tuple[Observation, np.ndarray], name: str
) -> None:
    def plans(seed: int) -> np.ndarray:
        planner = make_planner(name, bundle, seed)
        planner.begin(scene[1])
        return np.concatenate([planner.plan(scene[0]).actions for _ in range(3)])

    np.testing.assert_array_equal(plans(5), plans(5))
    if name in ("random", "cem", *REFINING):
        assert not np.array_equal(plans(5), plans(6))


@pytest.mark.parametrize("name", ("hold", *SEARCHING))
def test_a_new_goal_forgets_all_about_the_last_one(
    bundle: Bundle, scene: tuple[Observation, np.ndarray], name: str
) -> None:
    observation, goal = scene
    fresh, used = make_planner(name, bundle, 0), make_planner(name, bundle, 0)
    used.begin(-goal)
    used.plan(observation)
    for planner in (fresh, used):
        planner.begin(goal)
    np.testing.assert_array_equal(used.plan(observation).actions, fresh.plan(observation).actions)


@pytest.mark.parametrize("name", ("cem", *REFINING))
def test_a_plan_s_energy_is_that_of_its_own_imagined_path(
    bundle: Bundle, scene: tuple[Observation, np.ndarray], name: str
) -> None:
    observation, goal = scene
    planner: Any = make_planner(name, bundle, 0)
    planner.begin(goal)
    plan = planner.plan(observation)
    energy = latent_distance if name == "cem" else planner.energy
    assert plan.energy == pytest.approx(energy_of(planner, energy, observation, plan.actions, goal), rel=1e-3)


def energy_of(
    planner: Any, energy: Any, observation: Observation, actions: np.ndarray, goal: np.ndarray
) -> float:
    blocks = (actions / planner.action.limit_m).astype(np.float32).reshape(1, planner.horizon, -1)
    return float(path_energy(energy, planner.world_model.rollout(observation, blocks), goal)[0])


def mode2_never_loses_to_its_start(planner: Any, observation: Observation, goal: np.ndarray) -> None:
    """Not to Mode-1 in any time of arrival; near the goal, nor to staying put or its last plan's rest."""
    model = planner.world_model
    planner.begin(goal)
    planner.plan(observation)
    later = Observation(
        observation.latent, observation.previous, observation.tool, observation.stamp_ns + PERIOD_NS
    )
    stay = np.zeros((planner.horizon * planner.action.block, planner.action.dim), np.float32)
    rest = planner.warm_start(later.stamp_ns) * planner.action.limit_m
    plan = planner.plan(later)
    steps = model.steps_from(later, goal)
    nothing = np.zeros((0, planner.horizon, model.block_dim), np.float32)
    reflex = model.rollout_reflex(later, goal, planner.arrivals(steps), nothing)
    slack = 1e-4 * (1 + abs(plan.energy))
    assert plan.energy <= path_energy(planner.energy, reflex, goal).min() + slack
    if steps <= planner.trusted_steps:
        assert plan.energy <= energy_of(planner, planner.energy, later, stay, goal) + slack
        assert plan.energy <= energy_of(planner, planner.energy, later, rest, goal) + slack


@pytest.mark.parametrize("name", REFINING)
def test_mode2_never_loses_to_its_start(
    bundle: Bundle, scene: tuple[Observation, np.ndarray], name: str
) -> None:
    planner: Any = make_planner(name, bundle, 0)
    planner.trusted_steps = 1e9
    mode2_never_loses_to_its_start(planner, *scene)


@pytest.mark.parametrize("name", ("mode2", "icem", "mppi"))
@given(now=latents, goal=latents)
@settings(deadline=None, max_examples=25)
def test_mode2_never_loses_to_its_start_in_the_plane(toy_bundle: Any, name: str, now: Any, goal: Any) -> None:
    planner = Mode2Planner(toy_bundle, name=name)
    mode2_never_loses_to_its_start(planner, observe(now), np.array(goal, np.float32))


@given(st.floats(0.0, 60.0, allow_nan=False))
def test_mode1_s_own_time_of_arrival_competes_and_far_from_the_goal_all_are_close_to_it(
    toy_bundle: Any, steps: float
) -> None:
    planner = Mode2Planner(toy_bundle)
    own, *others = planner.arrivals(steps)
    most = planner.world_model.max_steps
    assert own == pytest.approx(min(max(steps, 1.0), most)) and len(others) == 11
    assert min(others) >= 1.0 and max(others) <= most
    if steps > planner.trusted_steps:
        assert 0.75 * own - 1e-3 <= min(others) and max(others) <= 1.05 * own + 1e-3
    else:
        assert min(others) == 1.0 and max(others) >= own


def test_mode2_goes_on_from_its_last_plan_where_the_reflex_is_of_no_use(toy_bundle: Any) -> None:
    planner: Any = Mode2Planner(toy_bundle)
    planner.world_model.propose = lambda latents, tools, goal, left: np.zeros((len(latents), 4), np.float32)
    planner.begin(np.array([6.0, -6.0], np.float32))
    energies = [planner.plan(observe((0.0, 0.0))).energy for _ in range(12)]
    assert all(after <= before + 1e-5 for before, after in zip(energies, energies[1:]))
    assert energies[-1] < 0.6 * energies[0]


@pytest.mark.parametrize("kind", [Mode1Planner, CemPlanner, Mode2Planner])
def test_in_the_plane_the_goal_is_reached(toy_bundle: Any, kind: Any) -> None:
    planner = kind(toy_bundle)
    place, goal = np.array([6.0, -3.0], np.float32), np.array([-2.0, 1.0], np.float32)
    planner.begin(goal)
    for step in range(20):
        plan = planner.plan(observe(place, step * PERIOD_NS))
        place = place + plan.actions[0] / toy_bundle.action.limit_m
    assert np.abs(place - goal).max() < 0.6


@pytest.mark.parametrize("passed", [0, 1, 2, 5])
def test_a_warm_start_is_the_last_plan_from_now_on(toy_bundle: Any, passed: int) -> None:
    planner = Mode2Planner(toy_bundle)
    planner.begin(np.array([-9.0, 4.0], np.float32))
    began = 7 * PERIOD_NS
    last = planner.plan(observe((9.0, 0.0), began)).actions / toy_bundle.action.limit_m
    rest = planner.warm_start(began + passed * PERIOD_NS)
    assert rest.shape == last.shape and np.abs(last).max() > 0
    np.testing.assert_allclose(rest[: len(last) - passed], last[passed:], rtol=1e-6)
    np.testing.assert_array_equal(rest[len(last) - passed :], 0.0)


def test_a_warm_start_follows_the_clock_not_the_number_of_plans(toy_bundle: Any) -> None:
    planner = CemPlanner(toy_bundle)
    planner.begin(np.array([-9.0, 4.0], np.float32))
    planner.plan(observe((9.0, 0.0), 0))
    at_once, after_two_thirds = planner.warm_start(0), planner.warm_start(PERIOD_NS * 2 // 3)
    np.testing.assert_array_equal(after_two_thirds[0], at_once[1])


def test_there_is_nothing_to_warm_start_from_at_first_or_much_later(toy_bundle: Any) -> None:
    planner = CemPlanner(toy_bundle)
    planner.begin(np.array([-9.0, 4.0], np.float32))
    assert not planner.warm_start(0).any()
    planner.plan(observe((9.0, 0.0), 0))
    assert planner.warm_start(PERIOD_NS).any()
    assert not planner.warm_start(100 * PERIOD_NS).any()
    planner.begin(np.array([1.0, 1.0], np.float32))
    assert not planner.warm_start(PERIOD_NS).any()


@pytest.mark.parametrize("name", SEARCHING)
def test_planning_before_a_goal_is_refused(
    bundle: Bundle, scene: tuple[Observation, np.ndarray], name: str
) -> None:
    with pytest.raises(PlannerError, match=r"no goal .* begin\(\)"):
        make_planner(name, bundle).plan(scene[0])


def test_a_planner_that_does_not_exist_is_named_with_those_that_do(bundle: Bundle) -> None:
    with pytest.raises(
        PlannerError, match="no planner 'mode3'; there are hold, random, mode1, cem, mode2, icem"
    ):
        make_planner("mode3", bundle)


def test_a_path_at_the_goal_costs_nothing_and_a_nearer_one_less() -> None:
    goal = np.array([1.0, 2.0], np.float32)
    paths = goal + np.float32([0.0, 0.5, 3.0])[:, None, None] * np.ones((3, 4, 2), np.float32)
    tools, actions = np.zeros((3, 4, 2), np.float32), np.zeros((3, 4, 4), np.float32)
    end = State(paths[:, -1], paths[:, -2], tools[:, -1])
    there, near, far = path_energy(latent_distance, Imagined(paths, tools, actions, end), goal)
    assert there == 0.0 < near < far
