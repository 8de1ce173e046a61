"""Runs a plan on its device: eagerly on a CPU; on CUDA as one captured graph, launched in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch

from planner.contract import Array
from planner.device.plan import Mode2Plan

Work = Callable[[], None]
Capture = Callable[[Work, torch.Generator], Work]
"""Turns work on tensors that stay where they are into something quicker that does the same."""

WARM_UP_CALLS = 3


class PlanRun:
    """A plan on its device, with the memory of its last one there.

    One graph is captured for each number of iterations in `efforts`. `seed` starts the noise anew.
    """

    def __init__(
        self, plan: Mode2Plan, device: str, efforts: Iterable[int], capture: Capture | None = None
    ) -> None:
        # Where another process wants the core, torch's threads wait for one another.
        torch.set_num_threads(1)
        on_cuda = torch.device(device).type == "cuda"
        self._plan = plan.to(device)
        self._generator = torch.Generator(device)
        self._last = torch.zeros(plan.length, plan.dim, device=device)
        self._inputs = torch.zeros(plan.inputs, device=device)
        self._outputs = torch.zeros(plan.outputs, device=device)
        # Page-locked, so that copies need no detour and do not wait.
        self._given = torch.zeros(plan.inputs, pin_memory=on_cuda)
        self._taken = torch.zeros(plan.outputs, pin_memory=on_cuda)
        self._wait = _wait_for_cuda if on_cuda else _nothing
        capture = capture or (cuda_graph if on_cuda else eagerly)
        with torch.inference_mode():
            self._launch = {
                iterations: capture(partial(self._work, iterations), self._generator)
                for iterations in efforts
            }

    def seed(self, seed: int) -> None:
        self._generator.manual_seed(seed)

    @torch.inference_mode()
    def __call__(self, inputs: Array, iterations: int) -> Array:
        """The plan's outputs for `inputs`, refined by `iterations`, one of the efforts."""
        self._given.numpy()[:] = inputs
        self._inputs.copy_(self._given, non_blocking=True)
        self._launch[iterations]()
        self._taken.copy_(self._outputs, non_blocking=True)
        self._wait()
        return self._taken.numpy().copy()

    def _work(self, iterations: int) -> None:
        if iterations:
            self._plan.refinement.draw(self._generator)
        outputs = self._plan(self._inputs, self._last, iterations)
        self._outputs.copy_(outputs)
        self._last.copy_(outputs[: self._last.numel()].view_as(self._last))


def eagerly(work: Work, generator: torch.Generator) -> Work:
    return work


def cuda_graph(work: Work, generator: torch.Generator) -> Work:
    """`work`, captured. Its random numbers go on from launch to launch, as `generator` does."""
    here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
    aside.wait_stream(here)
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP_CALLS):  # kernels are compiled, loaded and chosen
            work()
    here.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    # Other threads may go on allocating while this one captures.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return graph.replay


def _wait_for_cuda() -> None:
    torch.cuda.current_stream().synchronize()


def _nothing() -> None:
    """A CPU is done when the call is."""
