"""Statistics of the features, as LeRobot's policies normalise by them: of one episode, and of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}

# Of one feature: min, max, mean, std and the quantiles, each in the feature's shape, and count (1,).
Statistics = dict[str, NDArray[np.float64]]


def of_numbers(values: NDArray) -> Statistics:
    """Of a feature's values (N, D), or (N,): over the N rows."""
    rows = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    quantiles = np.quantile(rows, list(QUANTILES.values()), axis=0)
    return {
        "min": rows.min(0),
        "max": rows.max(0),
        "mean": rows.mean(0),
        "std": rows.std(0),
        "count": np.array([len(rows)], dtype=np.int64),
        **dict(zip(QUANTILES, quantiles)),
    }


def of_pictures(pictures: NDArray[np.uint8]) -> Statistics:
    """Of pictures (N, H, W, 3): for each channel, (3, 1, 1), in 0…1; `count` is how many were looked at."""
    found = of_numbers(pictures.reshape(-1, 3) / 255.0)
    return {
        name: np.array([len(pictures)]) if name == "count" else value.reshape(3, 1, 1)
        for name, value in found.items()
    }


def together(parts: Sequence[Mapping[str, NDArray]]) -> Statistics:
    """Of all rows of `parts`; quantiles, which parts do not tell, as the parts' mean, as LeRobot does."""
    counts = np.array([float(np.asarray(part["count"])[0]) for part in parts])

    def mean(values: Sequence[NDArray]) -> NDArray[np.float64]:
        return np.average(np.array(values, dtype=np.float64), axis=0, weights=counts)

    average = mean([part["mean"] for part in parts])
    variance = mean(
        [np.square(part["std"]) + np.square(np.asarray(part["mean"]) - average) for part in parts]
    )
    return {
        "min": np.min([part["min"] for part in parts], axis=0),
        "max": np.max([part["max"] for part in parts], axis=0),
        "mean": average,
        "std": np.sqrt(variance),
        "count": np.array([counts.sum()], dtype=np.int64),
        **{name: mean([part[name] for part in parts]) for name in QUANTILES},
    }
