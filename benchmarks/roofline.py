"""What a device can do at most, measured: how fast it copies memory and multiplies matrices.

A step with F floating-point operations and B bytes to move takes at least max(F / rate, B / bandwidth): the
roofline of Williams, Waterman and Patterson 2009. Both are measured in turns with the steps, so that whatever
else the machine does falls on all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from benchmarks.timing import Case

# Far above the caches; a multiple of what fills every core of a GPU.
COPIED_BYTES = {"cpu": 1 << 27, "cuda": 1 << 30}
SIDE = {"cpu": 1024, "cuda": 8192}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16")}
COPY = "copy"


@dataclass(frozen=True)
class Roofline:
    """Bytes a second, read and written together, and operations a second by precision."""

    bandwidth: float
    rates: Mapping[str, float]

    def least_s(self, flops: int, moved: int, precision: str) -> float | None:
        """Seconds that the work takes at least; None for a precision whose rate was not measured."""
        if precision not in self.rates:
            return None
        return max(flops / self.rates[precision], moved / self.bandwidth)

    def bound_by(self, flops: int, moved: int, precision: str) -> str:
        rate = self.rates.get(precision)
        if rate is None:
            return ""
        return "memory" if moved / self.bandwidth > flops / rate else "compute"


def matmul_name(precision: str) -> str:
    return f"matmul {precision}"


def roofline_cases(device: str) -> list[Case]:
    """A copy and a matrix product in each precision, on one thread of the CPU or all of the GPU."""
    source = torch.ones(COPIED_BYTES[device] // 4, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        wait_for(device)

    cases = [Case(COPY, f"{source.nbytes >> 20} MiB", copy)]
    for precision in PRECISIONS[device]:
        factor = torch.randn(SIDE[device], SIDE[device], device=device).to(DTYPES[precision])
        product = torch.empty_like(factor)

        def multiply(factor: torch.Tensor = factor, product: torch.Tensor = product) -> None:
            torch.mm(factor, factor, out=product)
            wait_for(device)

        cases.append(Case(matmul_name(precision), f"{SIDE[device]} x {SIDE[device]}", multiply))
    return cases


def roofline_of(device: str, median_ms: Mapping[str, float]) -> Roofline:
    """From the medians of `roofline_cases`, by their names."""
    moved, flops = 2 * COPIED_BYTES[device], 2 * SIDE[device] ** 3
    rates = {
        precision: flops / (median_ms[matmul_name(precision)] * 1e-3) for precision in PRECISIONS[device]
    }
    return Roofline(moved / (median_ms[COPY] * 1e-3), rates)


def wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
