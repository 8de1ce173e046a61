"""A Mode-2 plan of the size that a GPU is for: network by network, and as one plan on the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from benchmarks.models import EAGER, Limits, Row, as_it_is, begun, eagerly, scaled, variants_for, weights_of
from benchmarks.plans import count_work, scenes
from perception.errors import ModelError
from perception.runtimes.registry import offers
from planner.bundle import Bundle
from planner.device.planner import DevicePlanner
from planner.errors import PlannerError
from planner.optimisers.cem import Cem
from planner.planners import Mode2Planner

SEARCH, HORIZON = Cem(samples=512, iterations=3, elites=32, std=0.2), 8
WHOLE = "torch whole plan"


def whole_plan_rows(bundle: Bundle, device: str, limits: Limits) -> Iterator[Row]:
    """The same search near the goal on every runtime of `device`, then as one plan on it."""
    near = scenes(bundle)[1]
    step = f"plan {SEARCH.samples}x{HORIZON}x{SEARCH.iterations}"
    (torch_variant,) = next(offer.variants for offer in offers() if offer.runtime == "torch")
    flops = count_work(bundle, begun(by_network(bundle), near.goal), near)[1]
    graphs = (bundle.info.graphs.predictor, bundle.info.graphs.proposal, bundle.info.graphs.energy)
    values = sum(weights_of(bundle, graph.file)[1] for graph in graphs)
    ways = [(EAGER, torch_variant), *((variant.name, variant) for variant in variants_for(device))]
    for name, variant in (*ways, (WHOLE, torch_variant)):
        on, precision = bundle.on(variant), variant.precision
        row = Row(bundle.name, step, 1, name, precision, flops, scaled(values, precision))
        try:
            made = DevicePlanner(on, 0, None, SEARCH, HORIZON, device) if name == WHOLE else by_network(on)
        except (ModelError, PlannerError) as error:
            yield replace(row, left_out=f"not run: {error}")
            continue
        around = eagerly if name == EAGER else as_it_is
        plan = around(partial(begun(made, near.goal).plan, near.observation))
        yield limits.tried(replace(row, run=plan))


def by_network(bundle: Bundle) -> Mode2Planner:
    return Mode2Planner(bundle, refiner=SEARCH, horizon=HORIZON)
