"""Which runtime a bundle runs on. One other than ONNX Runtime has to be exact enough, on this very machine.

    bundle = on_runtime(load_bundle(path), "auto", tell=print)

`auto` never fails: what cannot be used is told in one line, and ONNX Runtime is always there. A runtime asked
for by name is used or refused. What was found out is remembered (`perception.runtimes.cache`) until bundle,
libraries or processor are others.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perception.errors import ModelError
from perception.runtimes.cache import cache_folder, key_of, processor, recall, write_whole
from perception.runtimes.contract import WEIGHTS, Variant
from perception.runtimes.onnx import file_sha256
from perception.runtimes.registry import REFERENCE, offer_of, offers, runtime_named
from planner.accuracy import LEAST_COSINE, LEAST_OVERLAP, LEAST_SPEARMAN, Accuracy, measure_accuracy
from planner.bundle import Bundle, BundleInfo, load_bundle
from planner.contract import Observation
from planner.energy import TimeToGo, path_energy
from planner.errors import RuntimeRefused
from planner.held_out import HeldOut

# A gain below this is within the noise of timing, and not worth another runtime.
LEAST_GAIN = 1.1
CANDIDATES, HORIZON, ROUNDS = 32, 6, 15
# How things are found out. With another number, what is remembered is found out anew.
METHOD = 2

# What a runtime may raise that does not work: ours, torch's and OpenVINO's, a missing library's.
FAILURES = (ModelError, RuntimeError, OSError)

# Renders fresh frames for a bundle that carries none, if it can; None where there is no simulator.
Render = Callable[[Bundle], HeldOut | None]
Tell = Callable[[str], object]


def load_bundle_on(path: Path, request: str, force: bool, tell: Tell) -> Bundle:
    """The bundle in `path` on the requested runtime, checked by the frames that it carries."""
    return on_runtime(load_bundle(path), request, force, None, tell)


def on_runtime(
    bundle: Bundle, request: str, force: bool = False, render: Render | None = None, tell: Tell = print
) -> Bundle:
    """`bundle` on what `request` names: auto, a runtime, or a runtime:precision.

    Raises RuntimeRefused if a runtime asked for by name cannot be used here, or is not exact enough and not
    forced; `render` gives the frames to find out by where the bundle carries none.
    """
    if request in (REFERENCE.runtime, REFERENCE.name):
        return bundle.on(REFERENCE)
    if not isinstance(bundle.info, BundleInfo):
        # What is compared are a reflex and a learned energy, which such a model has not.
        if request != "auto":
            raise RuntimeRefused(
                f"bundle {bundle.name} runs on {REFERENCE.runtime} only: leave out --runtime"
            )
        tell(f"runtime {REFERENCE.runtime}: bundle {bundle.name} runs on no other")
        return bundle.on(REFERENCE)
    examiner = _Examiner(bundle, render)
    if request == "auto":
        return bundle.on(_fastest(examiner, tell))
    return bundle.on(_named(examiner, request, force, tell))


@dataclass(frozen=True)
class Verdict:
    """Whether a variant may run a bundle: its accuracy, or why that could not be found out."""

    accuracy: Accuracy | None
    problem: str = ""

    @property
    def why_not(self) -> str:
        return self.problem if self.accuracy is None else self.accuracy.why_not


class _Examiner:
    """Finds out how exact variants are for one bundle, and remembers it."""

    def __init__(self, bundle: Bundle, render: Render | None) -> None:
        self.bundle = bundle
        self._render = render
        self._held_out: HeldOut | None = None

    def key(self, variants: Sequence[Variant]) -> str:
        """Another for other graphs, weights, libraries, processors and limits of accuracy."""
        weights = self.bundle.path / WEIGHTS
        files = [graph.sha256 for graph in self.bundle.info.graphs.all]
        files += [file_sha256(weights)] if weights.exists() else []
        limits = [LEAST_COSINE, LEAST_SPEARMAN, LEAST_OVERLAP]
        return key_of([METHOD, files, [asdict(variant) for variant in variants], processor(), limits])

    def examine(self, variant: Variant) -> Verdict:
        path = cache_folder() / "accuracy" / f"{self.key([variant])}.json"
        known = recall(path)
        if known is not None and set(known) == {"cosine", "spearman", "overlap"}:
            return Verdict(Accuracy(**known))
        held_out = self.held_out()
        if held_out is None:
            return Verdict(
                None,
                f"how exact it is cannot be found out: bundle {self.bundle.name} carries no held-out frames, "
                "and no simulator here renders some of its arm (export it again with --data)",
            )
        try:
            accuracy = measure_accuracy(self.bundle.on(variant), held_out)
        except ModelError as error:
            return Verdict(None, str(error))
        _remember(path, asdict(accuracy))
        return Verdict(accuracy)

    def held_out(self) -> HeldOut | None:
        if self._held_out is None:
            self._held_out = self.bundle.held_out()
        if self._held_out is None and self._render is not None:
            self._held_out = self._render(self.bundle)
        return self._held_out


def _named(examiner: _Examiner, request: str, force: bool, tell: Tell) -> Variant:
    name, _, precision = request.partition(":")
    offer = offer_of(runtime_named(name))
    if not offer.variants:
        raise RuntimeRefused(
            f"--runtime {name}: {offer.missing}; or leave --runtime out for {REFERENCE.runtime}"
        )
    variants = [variant for variant in offer.variants if precision in ("", variant.precision)]
    if not variants:
        there = ", ".join(variant.name for variant in offer.variants)
        raise RuntimeRefused(f"--runtime {request}: not on this machine; there is {there}")
    problems = []
    for variant in variants:
        verdict = Verdict(None) if variant == REFERENCE else examiner.examine(variant)
        if not verdict.why_not:
            return variant
        problems.append(f"{variant.name}: {verdict.why_not}")
    if not force:
        raise RuntimeRefused(
            f"not exact enough for bundle {examiner.bundle.name}: {'; '.join(problems)}; "
            "choose another --runtime, or use it all the same with --force-runtime"
        )
    tell(f"runtime {variants[0].name} by force, although {problems[0]}")
    return variants[0]


def _fastest(examiner: _Examiner, tell: Tell) -> Variant:
    here = offers()
    variants = [variant for offer in here for variant in offer.variants]
    path = cache_folder() / "fastest" / f"{examiner.key(variants)}.json"
    known = recall(path) or {}
    chosen = next((variant for variant in variants if variant.name == known.get("chosen")), None)
    if chosen is not None and not _why_not(examiner, chosen)[0]:
        tell(f"runtime {chosen.name}: {known.get('why')} (remembered)")
        return chosen
    if len(variants) > 1:
        tell(f"which of {len(variants)} runtimes is the fastest here that is exact enough? finding out …")
    found = {variant: _why_not(examiner, variant) for variant in variants}
    passing = [variant for variant, (why_not, _) in found.items() if not why_not]
    milliseconds = dict(
        zip(passing, decision_ms([examiner.bundle.on(variant) for variant in passing]), strict=True)
    )
    chosen = min(passing, key=lambda variant: milliseconds[variant])
    gain = milliseconds[REFERENCE] / milliseconds[chosen]
    if gain < LEAST_GAIN:
        chosen = REFERENCE
    why = (
        f"{gain:.1f} times as fast as {REFERENCE.name} here"
        if chosen != REFERENCE
        else "nothing that is exact enough is faster here"
    )
    others = [f"{offer.runtime}: {offer.missing}" for offer in here if offer.missing]
    others += [f"{variant.name}: {why_not}" for variant, (why_not, _) in found.items() if why_not]
    tell(f"runtime {chosen.name}: {why}" + (f" ({'; '.join(others)})" if others else ""))
    # Without frames more may pass as soon as there are some, and what is broken may be mended.
    if examiner.held_out() is not None and not any(for_now for _, for_now in found.values()):
        taken = {variant.name: round(ms, 3) for variant, ms in milliseconds.items()}
        _remember(path, {"chosen": chosen.name, "why": why, "decision_ms": taken, "others": others})
    return chosen


def decision_ms(bundles: Sequence[Bundle]) -> list[float]:
    """For each bundle, the median milliseconds of a picture's latent and the energies of CANDIDATES futures.

    They take turns, so that whatever else the machine does falls on them alike.
    """
    decisions = [_open_decision(bundle) for bundle in bundles]
    taken: list[list[float]] = [[] for _ in bundles]
    for _ in range(ROUNDS):
        for decide, seconds in zip(decisions, taken, strict=True):
            began = time.perf_counter()
            decide()
            seconds.append(time.perf_counter() - began)
    # The first rounds compile, allocate and tune.
    return [float(np.median(seconds[3:])) * 1e3 for seconds in taken]


def _open_decision(bundle: Bundle) -> Callable[[], None]:
    """What is timed: a picture's latent and the energies of CANDIDATES futures."""
    rng, info = np.random.default_rng(0), bundle.info
    image = rng.integers(0, 256, (1, info.image_size, info.image_size, 3), dtype=np.uint8)
    tool = np.array(info.tool.mean, np.float32)
    encoder, model = bundle.encoder(), bundle.world_model()
    energy = TimeToGo(model)
    model.prepare(predict=[CANDIDATES], steps_to_go=[CANDIDATES * HORIZON])
    actions = rng.uniform(-1, 1, (CANDIDATES, HORIZON, model.block_dim)).astype(np.float32)

    def decide() -> None:
        latent = encoder.encode(image)[0]
        path_energy(energy, model.rollout(Observation(latent, latent, tool, 0), actions), latent)

    return decide


def _why_not(examiner: _Examiner, variant: Variant) -> tuple[str, bool]:
    """Why not `variant`, empty where nothing is against it; whether that is so for now only, whatever is
    remembered of it, as where a GPU is gone or its memory full."""
    if variant == REFERENCE:
        return "", False
    try:
        why_not = examiner.examine(variant).why_not
        if not why_not:
            _open_decision(examiner.bundle.on(variant))()
    except FAILURES as error:
        return f"does not run now: {' '.join(str(error).split())}", True
    return why_not, False


def _remember(path: Path, content: dict[str, Any]) -> None:
    try:
        write_whole(path, json.dumps(content, indent=2).encode())
    except OSError:
        return  # found out again next time
