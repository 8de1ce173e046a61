"""Few sizes of batch, where each size costs a graph that is captured: powers of two, up to a largest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 512

Run = Callable[[Mapping[str, NDArray[Any]]], Sequence[NDArray[np.float32]]]


def padded_size(rows: int) -> int:
    """The smallest power of two that holds `rows`."""
    return 1 << (rows - 1).bit_length()


def in_batches(run: Run, inputs: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[np.float32]]:
    """What `run` gives for `inputs` when called with batches of a power of two of rows, at most LARGEST.

    The rows that fill a batch up are zero; what comes of them is dropped.
    """
    rows = len(next(iter(inputs.values())))
    parts = []
    for first in range(0, rows, LARGEST):
        part = {name: array[first : first + LARGEST] for name, array in inputs.items()}
        count = min(LARGEST, rows - first)
        missing = padded_size(count) - count
        filled = {
            name: np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
            if missing
            else array
            for name, array in part.items()
        }
        parts.append([output[:count] for output in run(filled)])
    return parts[0] if len(parts) == 1 else [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]
