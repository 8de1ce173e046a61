"""That a plan can be captured, shown without a GPU; that it was, where there is one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from planner.bundle import Bundle
from planner.device.networks import networks_on
from planner.device.plan import Mode2Plan
from planner.device.planner import DevicePlanner
from planner.device.run import PlanRun, Work
from planner.optimisers.cem import Cem

REFINER = Cem(samples=24, iterations=2, elites=6, std=0.3)
NO_CUDA = "torch finds no NVIDIA GPU here: the captured plan has not been run"


class Recorder(TorchDispatchMode):
    """A stand-in for a CUDA graph: what is done on tensors, and to which; `replay` does it again to them."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, Any, Any, list[torch.Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.done.append((func, args, kwargs, tensors_of(result)))
        return result

    def replay(self) -> None:
        for func, args, kwargs, results in self.done:
            for kept, fresh in zip(results, tensors_of(func(*args, **kwargs)), strict=True):
                if kept.data_ptr() != fresh.data_ptr():  # neither a view nor done in place
                    kept.copy_(fresh)

    def names(self) -> set[str]:
        return {func.overloadpacket.__name__ for func, *_ in self.done}


def tensors_of(result: Any) -> list[torch.Tensor]:
    results = result if isinstance(result, (tuple, list)) else (result,)
    return [value for value in results if isinstance(value, torch.Tensor)]


def plan_of(bundle: Bundle, device: str = "cpu") -> Mode2Plan:
    networks = copy.deepcopy(networks_on(bundle, "cpu"))
    return Mode2Plan(networks, bundle, REFINER, 6).to(device)


@pytest.mark.parametrize("name", ["push", "reach"])
def test_every_operation_is_on_one_device_and_none_asks_for_a_value(
    name: str, request: pytest.FixtureRequest
) -> None:
    """Meta tensors have no values, and mix with no others."""
    plan = plan_of(request.getfixturevalue(name), "meta")
    inputs = torch.zeros(plan.inputs, device="meta")
    last = torch.zeros(plan.length, plan.dim, device="meta")
    plan.refinement.draw(None)
    for iterations in (0, 2):
        outputs = plan(inputs, last, iterations)
        assert (outputs.shape, outputs.device.type) == ((plan.outputs,), "meta")


@pytest.mark.parametrize("name", ["push", "reach"])
def test_recorded_once_it_is_the_plan_of_every_later_scene(
    name: str, request: pytest.FixtureRequest, draw_stretch: Callable[..., Any]
) -> None:
    """Nothing of the scene that it was recorded in is left in it, and its noise is drawn anew."""
    bundle, recorders = request.getfixturevalue(name), []

    def record(work: Work, generator: torch.Generator) -> Work:
        recorders.append(Recorder())
        with recorders[-1]:
            work()
        return recorders[-1].replay

    eager = PlanRun(plan_of(bundle), "cpu", (0, 2))
    recorded = PlanRun(plan_of(bundle), "cpu", (0, 2), capture=record)
    stretches = [draw_stretch(bundle, seed) for seed in range(3)]
    plan, near = plan_of(bundle), set()
    for run in (eager, recorded):
        run.seed(7)
    for stretch in stretches:
        for at, observation in enumerate(stretch.observations):
            inputs = plan.pack(observation, stretch.goal, plan.length if at == 0 else 1)
            iterations = 2 if at % 4 else 0
            expected, found = (run(inputs, iterations) for run in (eager, recorded))
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
            near.add(bool(plan.unpack(found).steps <= plan.trusted_steps))
    assert near == {True, False}
    waits = {"_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "lift_fresh"}
    assert len(recorders[1].done) > 100 and not waits & recorders[1].names()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_CUDA)
@pytest.mark.parametrize("name", ["push", "reach"])
def test_captured_it_is_the_eager_plan(
    name: str, request: pytest.FixtureRequest, draw_stretch: Callable[..., Any]
) -> None:
    """With the same seed: a captured graph's random numbers go on as the generator's do."""
    bundle = request.getfixturevalue(name)
    plan = plan_of(bundle)
    eager = PlanRun(plan_of(bundle), "cuda", (0, 2), capture=lambda work, generator: work)
    captured = PlanRun(plan_of(bundle), "cuda", (0, 2))
    for run in (eager, captured):
        run.seed(7)
    for stretch in (draw_stretch(bundle, seed) for seed in range(3)):
        for at, observation in enumerate(stretch.observations):
            inputs = plan.pack(observation, stretch.goal, plan.length if at == 0 else 1)
            expected, found = (run(inputs, 2 if at % 4 else 0) for run in (eager, captured))
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_CUDA)
def test_on_cuda_it_is_the_plan_of_the_cpu_and_fresh_each_time(push: Bundle, stretches: list[Any]) -> None:
    silent = Cem(samples=512, iterations=3, elites=32, std=0.0, min_std=0.0)
    planners = [DevicePlanner(push, refiner=silent, horizon=8, device=device) for device in ("cpu", "cuda")]
    for stretch in stretches:
        for planner in planners:
            planner.begin(stretch.goal)
        for observation in stretch.observations:
            expected, found = (planner.plan(observation) for planner in planners)
            assert found.energy == pytest.approx(expected.energy, rel=1e-3)
    planner, here = DevicePlanner(push, refiner=REFINER, device="cuda"), stretches[5].observations[2]
    planner.begin(stretches[5].goal)
    first = planner.plan(here).actions
    again = [planner.plan(here).actions for _ in range(4)]
    assert not all(np.array_equal(first, other) for other in again)
    planner.begin(stretches[5].goal)
    np.testing.assert_array_equal(planner.plan(here).actions, first)
