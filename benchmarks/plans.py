"""Planning, measured on a goal far away and one near, as a camera sees them where there is a simulator."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.timing import Case
from perception.preprocessing import prepare
from perception.runtimes.contract import WEIGHTS
from planner.bundle import Bundle
from planner.contract import Array, Observation, Planner
from planner.energy import TimeToGo
from planner.planners import Mode2Planner
from planner.registry import make_planner
from planner.scoring import PathCost

# Imagined and judged in full, as a search does it: enough candidates that their number no longer matters.
CANDIDATES, HORIZON = 200, 6
NEAR_STEPS = Mode2Planner.trusted_steps / 2


@dataclass(frozen=True)
class Scene:
    """Where a plan starts, where it should lead, and the learned time-to-go between."""

    name: str
    observation: Observation
    goal: Array
    steps: float


def plan_cases(bundle: Bundle) -> list[Case]:
    """One decision of every planner near the goal, of those that differ there also far from it."""
    far, near = scenes(bundle)
    names = ["mode2", "icem", "mppi"]
    if importlib.util.find_spec("torch") is not None and importlib.util.find_spec("safetensors") is not None:
        names.append("gradient")
    cases = [plan_case(bundle, name, far) for name in ("mode1", "cem", "mode2")]
    cases += [plan_case(bundle, name, near) for name in names]
    return [*cases, scoring_case(bundle, near)]


def plan_case(bundle: Bundle, name: str, scene: Scene) -> Case:
    planner = make_planner(name, bundle)
    planner.begin(scene.goal)
    candidates, flops = count_work(bundle, planner, scene)
    what = f"one decision, {scene.steps:.1f} steps to go, {candidates} sequence{'s' * (candidates > 1)}"
    label = f"plan {name}" if name in ("mode1", "cem") else f"plan {name} {scene.name}"
    # What runs in torch is not seen by the count.
    return Case(
        label, what, partial(planner.plan, scene.observation), flops=0 if name == "gradient" else flops
    )


def scoring_case(bundle: Bundle, scene: Scene) -> Case:
    model = bundle.world_model()
    cost = PathCost(model, TimeToGo(model), scene.observation, scene.goal)
    shape = (CANDIDATES, HORIZON * bundle.action.block, bundle.action.dim)
    sequences = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    what = f"{CANDIDATES} candidates, {HORIZON} steps and their energies"
    return Case("scoring", what, partial(cost, sequences), candidate_steps=CANDIDATES * HORIZON)


def scenes(bundle: Bundle) -> tuple[Scene, Scene]:
    """Far from a goal and near it."""
    seen = simulated(bundle) if importlib.util.find_spec("pybullet") is not None else drawn(bundle)
    model = bundle.world_model()
    steps = [model.steps_from(observation, goal) for observation, goal in seen]
    far, near = int(np.argmax(steps)), int(np.argmin(np.abs(np.array(steps) - NEAR_STEPS)))
    return Scene("far", *seen[far], steps[far]), Scene("near", *seen[near], steps[near])


def simulated(bundle: Bundle) -> list[tuple[Observation, Array]]:
    """What the camera sees at every step while the script reaches the goal."""
    from hardware.robot import load_robot
    from sim.pilots import ScriptedPilot
    from sim.tasks import make_loop, make_task, new_episode

    task = make_task(bundle.info.task)
    loop = make_loop(task, load_robot(bundle.robot))
    episode = new_episode(task, loop, seed=0)
    encoder, block = bundle.encoder(), bundle.action.block

    def encode(image: Any) -> Array:
        return encoder.encode(prepare(image, encoder.spec.image_size)[None])[0]

    goal, pilot = encode(episode.goal_image), ScriptedPilot(task)
    pilot.begin(loop, episode)
    latents = [encode(loop.look())] * (block + 1)
    seen = []
    for _ in range(episode.budget_steps):
        tool = np.asarray(loop.tool_state(), np.float32)
        seen.append((Observation(latents[-1], latents[-1 - block], tool, loop.world.time_ns), goal))
        loop.execute(pilot.act(loop).action)
        latents.append(encode(loop.look()))
    loop.world.close()
    return seen


def drawn(bundle: Bundle) -> list[tuple[Observation, Array]]:
    """Without a simulator: random latents as the far scene, the goal's own as the near one."""
    now, before, goal = (
        np.random.default_rng(0).standard_normal((3, bundle.info.latent_dim)).astype(np.float32)
    )
    tool = np.array(bundle.info.tool.mean, np.float32)
    return [(Observation(latent, before, tool, 0), goal) for latent in (now, goal)]


def count_work(bundle: Bundle, planner: Planner, scene: Scene) -> tuple[int, int]:
    """Sequences compared in one plan, and floating-point operations with the graphs' weights."""
    model, total = getattr(planner, "world_model", None), [0]
    flops = flops_per_row(bundle)

    def counted(call: Callable[..., Any], each: int) -> Callable[..., Any]:
        def run(rows: Any, *others: Any) -> Any:
            total[0] += each * len(rows)
            return call(rows, *others)

        return run

    calls = {"predict": "predictor", "propose": "proposal", "steps_to_go": "energy"}
    for call, graph in calls.items():
        setattr(model, call, counted(getattr(model, call), flops[graph]))
    candidates = planner.plan(scene.observation).candidates
    for call in calls:
        delattr(model, call)
    return candidates, total[0]


def flops_per_row(bundle: Bundle) -> dict[str, int]:
    """Floating-point operations with the weights of predictor, proposal and energy for one row of a batch.

    From the shapes in the header of the bundle's safetensors file, which needs no package to read.
    """
    content = (bundle.path / WEIGHTS).read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    flops = dict.fromkeys(("predictor", "proposal", "energy"), 0)
    for name, tensor in header.items():
        model = name.partition(".")[0]
        if model in flops and len(tensor["shape"]) == 2:
            flops[model] += 2 * tensor["shape"][0] * tensor["shape"][1]
    return flops
