from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from hardware.robot import load_robot
from sim.control import ControlLoop
from sim.tasks import make_loop, make_task


@pytest.fixture(scope="session")
def loop_for() -> Iterator[Callable[..., ControlLoop]]:
    """Gives the world of a task; one for each task and noise, for whoever restarts it first."""
    loops: dict[tuple[str, float], ControlLoop] = {}

    def get(task: str, pixel_noise: float = 2.0) -> ControlLoop:
        key = (task, pixel_noise)
        if key not in loops:
            loops[key] = make_loop(make_task(task), load_robot(make_task(task).robot), pixel_noise)
        return loops[key]

    yield get
    for loop in loops.values():
        loop.world.close()
