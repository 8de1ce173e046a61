"""What a planner promises: from where things stand, in latents, to a sequence of actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Observation:
    """What is known now: latents (D,) of now and of one model step ago, the tool state (P,) in metres."""

    latent: Array
    previous: Array
    tool: Array
    stamp_ns: int


@dataclass(frozen=True)
class Plan:
    """`actions` float32 (H·block, A) metres, each over one action period; the first is for now.

    `energy` is the plan's predicted cost, `candidates` how many action sequences were compared,
    `elapsed_s` how long planning took, `dropped` what there was no time for, in words ("" if nothing).
    """

    actions: Array
    energy: float
    candidates: int
    elapsed_s: float
    dropped: str = ""


class Planner(Protocol):
    """Chooses actions. `begin` starts a new goal and forgets all about the last one."""

    name: str

    def begin(self, goal: Array) -> None:
        """Pursue the goal latent (D,) from now on."""
        ...

    def plan(self, observation: Observation) -> Plan: ...
