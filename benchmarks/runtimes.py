"""The runtimes of this machine side by side: the encoder and whole plans on each, one thread, in one run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from benchmarks.plans import scenes
from benchmarks.timing import Case, Timing
from perception.errors import ModelError
from perception.runtimes.registry import REFERENCE, offers
from planner.bundle import Bundle
from planner.registry import make_planner

ENCODER = "encoder"
PLANS = {"far": "plan mode2 far", "near": "plan mode2 near"}
TORCH = "torch:fp32"


def runtime_cases(bundle: Bundle) -> list[Case]:
    """Three cases for each runtime and precision that runs the bundle, exact enough to act by or not."""
    seen, size = scenes(bundle), bundle.info.image_size
    image = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    cases = []
    for variant in (variant for offer in offers() for variant in offer.variants):
        try:
            on = bundle.on(variant)
            encoder, planners = on.encoder(), [(scene, make_planner("mode2", on)) for scene in seen]
        except ModelError:
            continue  # int8 that was not quantised, weights of another release
        cases.append(Case(f"{ENCODER} {variant.name}", variant.version, partial(encoder.encode, image)))
        for scene, planner in planners:
            planner.begin(scene.goal)
            plan = partial(planner.plan, scene.observation)
            cases.append(Case(f"{PLANS[scene.name]} {variant.name}", variant.version, plan))
    return cases


def times_as_fast(timings: Sequence[Timing], other: str = REFERENCE.name) -> dict[str, float]:
    """How many times as fast as on `other` each runtime's case is, by the medians of one run.

    Empty where `other` was not measured.
    """
    medians = {timing.name: float(np.median(timing.milliseconds)) for timing in timings}
    ratios = {}
    for step in (ENCODER, *PLANS.values()):
        reference = medians.get(f"{step} {other}")
        for name, median in medians.items():
            if reference is not None and name.startswith(f"{step} ") and ":" in name:
                ratios[name] = round(reference / median, 2)
    return ratios
