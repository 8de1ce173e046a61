"""Mode-2 with all of a plan on one device: what `make_planner` gives where torch runs a bundle on CUDA.

Rollouts, energies, sampling, elites and warm start stay there; a plan is one copy in, one launch, one copy
out. On a CPU it is the same, run eagerly: for tests and for comparison.
"""

from __future__ import annotations

from perception.errors import ModelError
from perception.runtimes.pytorch import device_here
from planner.budget import Allowance, Budget
from planner.bundle import Bundle
from planner.contract import Array, Observation
from planner.device.networks import networks_on
from planner.device.plan import Mode2Plan
from planner.device.run import PlanRun
from planner.errors import PlannerError
from planner.optimisers.cem import Cem
from planner.planners import MODE2, Found, Mode2Planner


class DevicePlanner(Mode2Planner):
    """Mode-2 on `device` ("cpu" or "cuda"), by default the one that torch runs bundles on here.

    A captured plan takes as long every time, far from the goal too, where nothing is refined. With a budget
    there is one for every number of iterations that may be left of the search, and the largest that fits is
    launched: samples and horizon are not cut.

    Raises PlannerError if there can be no such plan.
    """

    def __init__(
        self,
        bundle: Bundle,
        seed: int = 0,
        budget: Budget | None = None,
        refiner: Cem = MODE2,
        horizon: int = 6,
        device: str | None = None,
    ) -> None:
        super().__init__(bundle, seed, budget, refiner=refiner, horizon=horizon)
        self.device, self._effort = device or device_here(), refiner.full
        least = 0 if self.budget.limited else self._effort.iterations
        try:
            networks = networks_on(bundle, self.device)
            self._plan = Mode2Plan(networks, bundle, refiner, horizon)
            self._run = PlanRun(self._plan, self.device, range(least, self._effort.iterations + 1))
        except (ModelError, RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
            raise PlannerError(f"no plan on {self.device}: {error}; choose another runtime") from error

    def begin(self, goal: Array) -> None:
        super().begin(goal)
        self._run.seed(self._seed)

    def search(self, observation: Observation) -> Found:
        inputs = self._plan.pack(observation, self.goal, self.passed(observation.stamp_ns))
        iterations, began = self._affordable(), self.budget.clock()
        planned = self._plan.unpack(self._run(inputs, iterations))
        self.budget.refining.learn(1 + iterations, 1, self.budget.clock() - began)
        compared, dropped = self.arrival_count, ""
        if planned.steps <= self.trusted_steps:
            compared += 2 + iterations * self._effort.samples
            full = Allowance(self.horizon, self._effort)
            dropped = full.shortfall(full, iterations)
        return Found(planned.actions, planned.energy, compared, dropped)

    def _prepare(self) -> None:
        """Nothing: no session runs, everything is in the captured plan."""

    def _affordable(self) -> int:
        """The most iterations that there is time for; what comes before them counts as one more."""
        full = self._effort.iterations
        return next((count for count in range(full, 0, -1) if self.budget.time_for(1 + count, 1)), 0)
