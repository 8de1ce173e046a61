"""The planners by name.

Baselines: `hold`, `random`. `mode1`: the reflex alone. `cem`: plain search by the distance of latents.
`mode2`: the reflex imagined for several times of arrival, the best one refined by a short search under the
learned time-to-go; `icem`, `mppi` and `gradient` are the same with another refiner.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

from planner.budget import Budget, Clock
from planner.bundle import Bundle
from planner.contract import Planner
from planner.errors import PlannerError
from planner.planners import REFINERS, CemPlanner, HoldPlanner, Mode1Planner, Mode2Planner, RandomPlanner
from planner.vjepa2_bundle import VJepa2AcBundle


def _mode2(bundle: Bundle, seed: int, budget: Budget) -> Planner:
    """Where torch runs the bundle on CUDA, with all of a plan there: graphs one by one would mostly wait."""
    if bundle.variant.runtime == "torch":
        from perception.runtimes.pytorch import device_here

        if device_here() == "cuda":
            from planner.device.planner import DevicePlanner

            return DevicePlanner(bundle, seed, budget)
    return Mode2Planner(bundle, seed, budget)


PLANNERS: dict[str, Callable[[Bundle, int, Budget], Planner]] = {
    "hold": lambda bundle, seed, budget: HoldPlanner(bundle),
    "random": lambda bundle, seed, budget: RandomPlanner(bundle, seed),
    "mode1": Mode1Planner,
    "cem": CemPlanner,
    **{name: partial(Mode2Planner, name=name) for name in REFINERS},
    "mode2": _mode2,
}


def make_planner(
    name: str,
    bundle: Bundle,
    seed: int = 0,
    budget_ms: float | None = None,
    clock: Clock = time.perf_counter,
) -> Planner:
    """The planner called `name`, over the bundle's world model.

    With `budget_ms` a plan takes no longer than that and one iteration of its search; what it leaves out for
    it, it says in `Plan.dropped`. Raises PlannerError for any other name, a budget that is none, or a planner
    that needs what is not installed.
    """
    planners: Mapping[str, Callable[..., Planner]] = PLANNERS
    if isinstance(bundle, VJepa2AcBundle):
        from planner.vjepa2_ac import PLANNERS as planners
    if name not in planners:
        raise PlannerError(f"no planner {name!r}; there are {', '.join(planners)}")
    if budget_ms is not None and not 0 < budget_ms < float("inf"):
        raise PlannerError(f"a plan cannot be made in {budget_ms:g} ms: name a budget above 0")
    return planners[name](bundle, seed, Budget(None if budget_ms is None else budget_ms * 1e-3, clock))
