"""Planning with V-JEPA 2-AC: imagine the features that actions lead to, and search for those of the goal.

    planner = make_planner("cem", load_bundle(Path("models/vjepa2-ac")))

As the published planner does (Assran et al. 2025, arXiv:2506.09985, section 4): the cross-entropy method
over tool displacements and the gripper, the tool's orientation held, under the mean absolute difference of
features at the end of the horizon. What differs is said in docs/vjepa2.md.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from perception.vjepa2.pose import Poses, moved
from planner.budget import Allowance, Budget
from planner.contract import Array, Observation, Planner
from planner.errors import BundleError
from planner.optimisers.cem import Cem
from planner.optimisers.contract import Cost, Problem
from planner.planners import Found, HoldPlanner, LatentPlanner
from planner.vjepa2_bundle import VJepa2AcBundle

# Futures imagined at once: a candidate's features are 1.4 MB, and its attention 17 MB, at the published size.
TOGETHER = 16
POSE_DIM = 7


class VJepa2AcModel:
    """The action-conditioned predictor at run time. Actions here are (…, 4): x, y, z and the gripper, in
    units of the action limit, as the optimisers have them."""

    def __init__(self, bundle: VJepa2AcBundle) -> None:
        info = bundle.info
        widths = {"latents": info.latent_dim, "actions": POSE_DIM, "states": POSE_DIM}
        self._predictor = bundle.open(info.graphs.predictor, widths)
        self._steps = info.search.horizon
        made_for = self._predictor.inputs[0].row[0]
        if made_for != self._steps:
            raise BundleError(
                f"{bundle.path / info.graphs.predictor.file} imagines {made_for} steps, and by bundle.yaml "
                f"the horizon is {self._steps}: set search.horizon to {made_for}, or convert the model again"
            )
        self._limit_m = info.action.limit_m
        self._pose = info.pose

    def pose(self, tool: Array) -> Poses:
        """The pose (7,) of the tool state (x, y, z, opening of the gripper's joint) in m."""
        opened = (tool[3] - self._pose.closed_m) / (self._pose.open_m - self._pose.closed_m)
        return np.array([*tool[:3], *self._pose.euler, np.clip(1.0 - opened, 0.0, 1.0)])

    def pose_actions(self, actions: Array) -> Poses:
        """Differences of poses (…, 7) of actions (…, 4)."""
        metres = actions.astype(np.float64) * self._limit_m
        found = np.zeros((*actions.shape[:-1], POSE_DIM))
        found[..., :3] = metres[..., :3]
        found[..., 6] = -metres[..., 3] / (self._pose.open_m - self._pose.closed_m)
        return found

    def rollout(self, observation: Observation, actions: Array) -> Array:
        """The latents (N, H, D) that action sequences (N, H, 4) lead to from an observation.

        H is at most the horizon that the graph was made for. Raises ValueError beyond.
        """
        count, horizon, _ = actions.shape
        latents = np.zeros((count, self._steps, observation.latent.size), np.float32)
        steps, poses = np.zeros((2, count, self._steps, POSE_DIM))
        steps[:, :horizon] = self.pose_actions(actions)
        latents[:, 0], poses[:, 0] = observation.latent, self.pose(observation.tool)
        inputs = {"latents": latents, "actions": steps.astype(np.float32)}
        following = latents
        for step in range(horizon):
            (following,) = self._predictor.run(inputs | {"states": poses.astype(np.float32)})
            if step + 1 < horizon:
                latents[:, step + 1] = following[:, step]
                poses[:, step + 1] = moved(poses[:, step], steps[:, step])
        return following[:, :horizon]

    def cost(self, observation: Observation, goal: Array) -> Cost:
        """The energy (N,) at the end of action sequences (N, H, 4)."""

        def energies(sequences: Array) -> Array:
            parts = (sequences[i : i + TOGETHER] for i in range(0, len(sequences), TOGETHER))
            ends = (self.rollout(observation, part)[:, -1] for part in parts)
            return np.concatenate([feature_distance(end, goal) for end in ends])

        return energies

    def steps_from(self, observation: Observation, goal: Array) -> float:
        """Infinite: nothing was learned of how far goals are, so none is ever taken for reached."""
        return float("inf")


def feature_distance(latents: Array, goal: Array) -> Array:
    """Mean absolute difference (N,) of latents (N, D) and a goal (D,), the energy of V-JEPA 2-AC."""
    return np.asarray(np.abs(latents - goal).mean(axis=1), np.float32)


def onto_l1_ball(vectors: Array, radius: float) -> Array:
    """The nearest points (…, A) of the L1 ball around zero (Duchi et al. 2008, figure 1)."""
    sizes = np.abs(vectors)
    ordered = -np.sort(-sizes, axis=-1)
    excess = (ordered.cumsum(-1) - radius) / np.arange(1, vectors.shape[-1] + 1)
    cut = np.maximum(excess.max(-1, keepdims=True), 0.0)
    return (np.sign(vectors) * np.maximum(sizes - cut, 0.0)).astype(np.float32)


class VJepa2AcPlanner(LatentPlanner):
    """The cross-entropy method under the distance of features."""

    name = "cem"

    def __init__(self, bundle: VJepa2AcBundle, seed: int = 0, budget: Budget | None = None) -> None:
        super().__init__(bundle, seed, budget)
        search, pose = bundle.info.search, bundle.info.pose
        self.model: VJepa2AcModel = bundle.world_model()
        self.horizon = search.horizon
        stroke = abs(pose.open_m - pose.closed_m) / bundle.action.limit_m
        self._grip_most, self._grip_least = search.closedness * stroke, search.closedness_least * stroke
        self.optimiser = Cem(search.samples, search.iterations, search.elites, std=(1.0, 1.0, 1.0, stroke))

    def allow(self, sequences: Array, observation: Observation) -> Array:
        """Each displacement within the L1 ball, the way within the arm's reach, the gripper's change within
        its bounds or none."""
        allowed = sequences.copy()
        allowed[..., :3] = onto_l1_ball(sequences[..., :3], 1.0)
        grip = np.clip(sequences[..., 3], -self._grip_most, self._grip_most)
        allowed[..., 3] = np.where(np.abs(grip) < self._grip_least, 0.0, grip)
        return super().allow(allowed, observation)

    def search(self, observation: Observation) -> Found:
        full = Allowance(self.horizon, self.optimiser.full)
        afford = self.budget.afford(full, seeds=0)
        problem = Problem(
            cost=self.model.cost(observation, self.goal),
            allow=lambda sequences: self.allow(sequences, observation),
            # The gripper moves by degrees here, as it did in training.
            switches=np.zeros(self.action.dim, np.bool_),
            time_for=lambda samples: self.budget.time_for(samples, afford.horizon),
        )
        start = self.warm_start(observation.stamp_ns)[: afford.horizon]
        actions, energy, candidates, done = self.refine(
            self.optimiser, problem, start, afford.effort, afford.horizon
        )
        return Found(actions, energy, candidates, afford.shortfall(full, done))


PLANNERS: dict[str, Callable[[VJepa2AcBundle, int, Budget], Planner]] = {
    "hold": lambda bundle, seed, budget: HoldPlanner(bundle),
    "cem": VJepa2AcPlanner,
}
