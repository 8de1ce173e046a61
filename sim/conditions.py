"""What differs from one session to the next besides the task: camera, light, colours, physics, delay.

    world.restart(seed, randomised(rng))                  # play: most things differ a little
    world.restart(seed, perturbed("camera", rng))         # evaluation: one thing differs, over all its range

Everything is drawn uniformly from the ranges below; play's are a quarter wider than evaluation's, but for the
latency's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

CAMERA_SHIFT_M = 0.02
CAMERA_TURN_RAD = float(np.radians(3.0))
LIGHT_SWING = 0.8
BRIGHTNESS = 0.25
TINT = 0.06
COLOUR = 0.15
FRICTION, MASS, SIZE = 0.3, 0.3, 0.15
LATENCY_S = 0.05

PLAY_FACTOR = 1.25
PLAY_SHARE = 0.6
NOMINAL_SHARE = 0.2
TEXTURE_SHARE = 0.5

Vector3 = tuple[float, float, float]


@dataclass(frozen=True)
class Conditions:
    """Of one session. Factors multiply what the task and the robot file say; offsets add to it.

    `camera_turn` is a rotation vector in rad, `camera_shift` in metres, both in the camera's own frame.
    Colours are offsets of RGB in 0…1, `texture` the seed of a pattern on the table, `latency_s` how much
    later than decided an action begins.
    """

    camera_shift: Vector3 = (0.0, 0.0, 0.0)
    camera_turn: Vector3 = (0.0, 0.0, 0.0)
    light_direction: Vector3 = (0.6, 0.4, 1.5)
    brightness: float = 1.0
    tint: Vector3 = (1.0, 1.0, 1.0)
    block_colour: Vector3 = (0.0, 0.0, 0.0)
    table_colour: Vector3 = (0.0, 0.0, 0.0)
    texture: int | None = None
    friction: float = 1.0
    mass: float = 1.0
    size: float = 1.0
    latency_s: float = 0.0


NOMINAL = Conditions()
Draw = Callable[[Conditions, np.random.Generator, float], Conditions]


def _camera(conditions: Conditions, rng: np.random.Generator, factor: float) -> Conditions:
    return replace(
        conditions,
        camera_shift=_vector(rng, factor * CAMERA_SHIFT_M),
        camera_turn=_vector(rng, factor * CAMERA_TURN_RAD),
    )


def _light(conditions: Conditions, rng: np.random.Generator, factor: float) -> Conditions:
    x, y, z = NOMINAL.light_direction
    dx, dy, _ = _vector(rng, factor * LIGHT_SWING)
    red, green, blue = _vector(rng, factor * TINT)
    return replace(
        conditions,
        light_direction=(x + dx, y + dy, z),
        brightness=1.0 + _offset(rng, factor * BRIGHTNESS),
        tint=(1.0 + red, 1.0 + green, 1.0 + blue),
    )


def _colours(conditions: Conditions, rng: np.random.Generator, factor: float) -> Conditions:
    return replace(
        conditions,
        block_colour=_vector(rng, factor * COLOUR),
        table_colour=_vector(rng, factor * COLOUR),
        texture=int(rng.integers(2**31)) if rng.random() < TEXTURE_SHARE else None,
    )


def _friction_mass(conditions: Conditions, rng: np.random.Generator, factor: float) -> Conditions:
    return replace(
        conditions,
        friction=1.0 + _offset(rng, factor * FRICTION),
        mass=1.0 + _offset(rng, factor * MASS),
    )


def _size(conditions: Conditions, rng: np.random.Generator, factor: float) -> Conditions:
    return replace(conditions, size=1.0 + _offset(rng, factor * SIZE))


def _latency(conditions: Conditions, rng: np.random.Generator, factor: float) -> Conditions:
    return replace(conditions, latency_s=rng.uniform(0.0, LATENCY_S))


GROUPS: dict[str, Draw] = {
    "camera": _camera,
    "light": _light,
    "colours": _colours,
    "friction-mass": _friction_mass,
    "size": _size,
    "latency": _latency,
}


def drawn(names: tuple[str, ...], rng: np.random.Generator, factor: float = 1.0) -> Conditions:
    """Nominal conditions but for the groups in `names`, drawn over `factor` times their ranges."""
    conditions = NOMINAL
    for name in names:
        conditions = GROUPS[name](conditions, rng, factor)
    return conditions


def randomised(rng: np.random.Generator, same: tuple[str, ...] = ()) -> Conditions:
    """For play: the nominal cell in some sessions, else each group differs in `PLAY_SHARE` of them.

    The groups in `same` never differ.
    """
    if rng.random() < NOMINAL_SHARE:
        return NOMINAL
    names = [name for name in GROUPS if rng.random() < PLAY_SHARE]
    return drawn(tuple(name for name in names if name not in same), rng, PLAY_FACTOR)


def perturbed(name: str, rng: np.random.Generator) -> Conditions:
    """For evaluation: `none`, the name of one group, or `all` of them at once."""
    if name == "none":
        return NOMINAL
    return drawn(tuple(GROUPS) if name == "all" else (name,), rng)


PERTURBATIONS = ("none", *GROUPS, "all")


def _offset(rng: np.random.Generator, largest: float) -> float:
    return float(rng.uniform(-largest, largest))


def _vector(rng: np.random.Generator, largest: float) -> Vector3:
    x, y, z = rng.uniform(-largest, largest, 3)
    return float(x), float(y), float(z)
