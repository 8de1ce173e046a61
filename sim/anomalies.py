"""What should surprise a world model: each anomaly begins at a step of an episode and lasts to its end.

    episode, injection = new_episode_with("camera-knocked", task, loop, seed)
    run_episode(task, loop, episode, pilot, injection)

An anomaly tampers with the world (`sim.world`) or with the stream of pictures (`ControlLoop.look`), never
with what the planner is told about them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from sim.conditions import NOMINAL, Conditions
from sim.control import DECISION_S, ControlLoop
from sim.errors import SimulationError
from sim.tasks import PEG_RADIUS_M, Episode, Task, demonstration_policy, new_episode

Picture = NDArray[np.uint8]

TELEPORT_M = (0.08, 0.16)
KNOCK_M = 0.04
KNOCK_RAD = np.radians(6.0)
DARKNESS = 0.08
HAND_HALF_M = (0.09, 0.045, 0.02)
HAND_COLOUR = (0.87, 0.67, 0.55, 1.0)
HAND_SPEED_M_S = 0.4
EARLIEST_STEP = 3
# Episodes whose pictures are shown instead of the present ones; no seed of an evaluation comes near.
DONOR_SEEDS = 2**40


class Injection:
    """One anomaly of one episode, from `at_step` on. `before` is to be called before each look."""

    def __init__(self, course: Iterator[None], at_step: int) -> None:
        self.at_step = at_step
        self._course = course

    def before(self, step: int) -> None:
        if step >= self.at_step:
            next(self._course, None)


def new_episode_with(
    name: str, task: Task, loop: ControlLoop, seed: int, conditions: Conditions = NOMINAL
) -> tuple[Episode, Injection]:
    """The episode that `seed` makes, and the anomaly called `name` to begin in its first half; glue at once.

    Raises SimulationError for an unknown anomaly, or one that the task has no object for.
    """
    if name not in ANOMALIES:
        raise SimulationError(f"no anomaly {name!r}; there are {', '.join(ANOMALIES)}")
    if name not in anomalies_of(task):
        raise SimulationError(f"anomaly {name} needs an object, task {task.name} has none")
    rng = np.random.default_rng([seed, 0xA0])
    donor = _record_stream(task, loop, DONOR_SEEDS + seed) if name == "frames-swapped" else []
    episode = new_episode(task, loop, seed, conditions)
    latest = max(EARLIEST_STEP, len(episode.demonstration) // 2)
    # Glue under an object that is where it belongs already would change nothing: it is there from the start.
    at_step = 0 if name == "object-glued" else int(rng.integers(EARLIEST_STEP, latest + 1))
    return episode, Injection(ANOMALIES[name](task, loop, rng, donor), at_step)


def anomalies_of(task: Task) -> tuple[str, ...]:
    """The names of the anomalies that can happen to `task`."""
    about_objects = ("object-teleports", "object-glued")
    return tuple(name for name in ANOMALIES if task.block is not None or name not in about_objects)


def _object_teleports(
    task: Task, loop: ControlLoop, rng: np.random.Generator, donor: list[Picture]
) -> Iterator[None]:
    """The object is suddenly 8 to 16 cm away, turned, not under the tool."""
    assert task.block is not None
    clear = task.block.radius * loop.world.conditions.size + PEG_RADIUS_M + 0.01
    here, tool = task.achieved(loop)[:2], loop.tool_position()[:2]
    while True:
        angle = rng.uniform(-np.pi, np.pi)
        there = here + rng.uniform(*TELEPORT_M) * np.array([np.cos(angle), np.sin(angle)])
        inside = np.all(there >= task.object_low) and np.all(there <= task.object_high)
        if inside and np.linalg.norm(there - tool) > clear:
            break
    loop.world.place_object(there[0], there[1], rng.uniform(-np.pi, np.pi))
    yield


def _object_glued(
    task: Task, loop: ControlLoop, rng: np.random.Generator, donor: list[Picture]
) -> Iterator[None]:
    """The object does not yield any more, however it is pushed."""
    loop.world.fix_object()
    yield


def _camera_knocked(
    task: Task, loop: ControlLoop, rng: np.random.Generator, donor: list[Picture]
) -> Iterator[None]:
    """The camera jumps by 4 cm and 6°, each in a random direction, and stays there."""
    loop.world.knock_camera(KNOCK_M * _direction(rng), KNOCK_RAD * _direction(rng))
    yield


def _lights_off(
    task: Task, loop: ControlLoop, rng: np.random.Generator, donor: list[Picture]
) -> Iterator[None]:
    """Of the light, 8 % is left."""
    loop.world.set_light(DARKNESS)
    yield


def _frames_frozen(
    task: Task, loop: ControlLoop, rng: np.random.Generator, donor: list[Picture]
) -> Iterator[None]:
    """The camera repeats its last picture, with fresh stamps."""
    last = loop.look()
    loop.look = lambda: last
    yield


def _frames_swapped(
    task: Task, loop: ControlLoop, rng: np.random.Generator, donor: list[Picture]
) -> Iterator[None]:
    """The pictures are those of another episode, which goes on as it did."""
    for picture in donor:
        loop.look = lambda picture=picture: picture  # type: ignore[misc]
        yield


def _hand_enters(
    task: Task, loop: ControlLoop, rng: np.random.Generator, donor: list[Picture]
) -> Iterator[None]:
    """Something of a hand's size and colour comes in from a side, above the table, and stays."""
    side = rng.choice([-1.0, 1.0])
    (x_low, y_low, _), (x_high, y_high, _) = task.tool_low, task.tool_high
    end = np.array([rng.uniform(x_low, x_high), rng.uniform(y_low, y_high), rng.uniform(0.05, 0.12)])
    place = np.array([end[0], side * 0.45, end[2]])
    hand = loop.world.add_apparition(HAND_HALF_M, HAND_COLOUR)
    while True:
        way = end - place
        distance = float(np.linalg.norm(way))
        place = place + way * min(1.0, HAND_SPEED_M_S * DECISION_S / max(distance, 1e-9))
        loop.world.move_apparition(hand, place)
        yield


Course = Callable[[Task, ControlLoop, np.random.Generator, list[Picture]], Iterator[None]]
ANOMALIES: dict[str, Course] = {
    "object-teleports": _object_teleports,
    "object-glued": _object_glued,
    "camera-knocked": _camera_knocked,
    "lights-off": _lights_off,
    "frames-frozen": _frames_frozen,
    "frames-swapped": _frames_swapped,
    "hand-enters": _hand_enters,
}


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    vector = rng.standard_normal(3)
    return vector / np.linalg.norm(vector)


def _record_stream(task: Task, loop: ControlLoop, seed: int) -> list[Picture]:
    """The pictures of another episode: scripted pushes or motions, one after the other."""
    episode = new_episode(task, loop, seed)
    rng = np.random.default_rng([seed, 0xD0])
    policy, pictures = demonstration_policy(task, loop, rng), []
    for _ in range(episode.budget_steps):
        pictures.append(loop.look())
        action = policy(loop)
        if action is None:
            policy, action = demonstration_policy(task, loop, rng), np.zeros(task.action_dim)
        loop.execute(action)
    return pictures
