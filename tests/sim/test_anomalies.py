from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sim.anomalies import ANOMALIES, KNOCK_M, TELEPORT_M, anomalies_of, new_episode_with
from sim.control import ControlLoop
from sim.errors import SimulationError
from sim.evaluate import ANOMALY_NAMES
from sim.tasks import make_task, new_episode

LoopFor = Callable[..., ControlLoop]
SEED = 300


def begin(loop_for: LoopFor, name: str, seed: int = SEED) -> tuple[ControlLoop, np.ndarray, np.ndarray]:
    """The loop just after the anomaly began, and pictures, without noise, of just before and after."""
    loop = loop_for("push", 0.0)
    _, injection = new_episode_with(name, make_task("push"), loop, seed)
    for step in range(injection.at_step):
        injection.before(step)
    before = loop.look()
    injection.before(injection.at_step)
    return loop, before, loop.look()


def test_the_command_offers_every_anomaly() -> None:
    assert set(ANOMALY_NAMES) == set(ANOMALIES) == set(anomalies_of(make_task("push")))


def test_reach_has_no_object_for_anomalies_of_objects(loop_for: LoopFor) -> None:
    assert set(ANOMALIES) - set(anomalies_of(make_task("reach"))) == {"object-teleports", "object-glued"}
    with pytest.raises(SimulationError, match="object-glued needs an object, task reach has none"):
        new_episode_with("object-glued", make_task("reach"), loop_for("reach"), SEED)


def test_an_unknown_anomaly_is_refused_with_what_there_is(loop_for: LoopFor) -> None:
    with pytest.raises(SimulationError, match="no anomaly 'earthquake'; there are object-teleports, "):
        new_episode_with("earthquake", make_task("push"), loop_for("push"), SEED)


@pytest.mark.parametrize("name", sorted(ANOMALIES))
def test_an_anomaly_leaves_no_trace_in_the_next_episode(loop_for: LoopFor, name: str) -> None:
    task, loop = make_task("push"), loop_for("push")
    untouched = new_episode(task, loop, SEED)
    first = loop.look()
    episode, injection = new_episode_with(name, task, loop, SEED)
    np.testing.assert_array_equal(episode.goal_image, untouched.goal_image)
    earliest, latest = (0, 0) if name == "object-glued" else (3, max(3, len(episode.demonstration) // 2))
    assert earliest <= injection.at_step <= latest
    for step in range(injection.at_step + 5):
        injection.before(step)
        loop.execute(np.zeros(2))
    new_episode(task, loop, SEED)
    np.testing.assert_array_equal(loop.look(), first)


def test_a_teleported_object_is_elsewhere_at_once(loop_for: LoopFor) -> None:
    for seed in range(SEED, SEED + 5):
        loop = loop_for("push", 0.0)
        _, injection = new_episode_with("object-teleports", make_task("push"), loop, seed)
        before = loop.world.object_position()
        injection.before(injection.at_step)
        after = loop.world.object_position()
        assert before is not None and after is not None
        assert TELEPORT_M[0] - 1e-6 <= np.linalg.norm(after - before) <= TELEPORT_M[1] + 1e-6


def test_a_glued_object_stays_however_it_is_pushed(loop_for: LoopFor) -> None:
    def push(name: str | None) -> float:
        loop, task = loop_for("push", 0.0), make_task("push")
        if name is None:
            new_episode(task, loop, SEED)
        else:
            _, injection = new_episode_with(name, task, loop, SEED)
            injection.before(injection.at_step)
        place = loop.world.object_position()
        assert place is not None
        for _ in range(40):
            loop.execute(np.clip(place[:2] - loop.tool_position()[:2], -0.02, 0.02))
        return float(np.linalg.norm(loop.world.object_position() - place))

    assert push(None) > 0.01
    assert push("object-glued") < 0.002


def test_a_knocked_camera_sees_the_same_scene_from_elsewhere(loop_for: LoopFor) -> None:
    _, before, after = begin(loop_for, "camera-knocked")
    assert np.abs(before.astype(int) - after).mean() > 5
    assert abs(before.mean() - after.mean()) < 25


def test_a_camera_knocked_sideways_shifts_the_picture(loop_for: LoopFor) -> None:
    """At its target's distance of 0.83 m, 4 cm are 8 of 128 pixels."""
    loop = loop_for("push", 0.0)
    new_episode(make_task("push"), loop, SEED)
    mount = loop.world.robot.camera
    before = loop.look().astype(int)
    loop.world.knock_camera(np.array([KNOCK_M, 0.0, 0.0]), np.zeros(3))
    after = loop.look().astype(int)
    distance = np.linalg.norm(np.subtract(mount.position, mount.target))
    shift = round(KNOCK_M / distance * mount.height / 2 / np.tan(mount.vertical_fov / 2))
    errors = {s: np.abs(np.roll(after, s, axis=1) - before)[40:100, 30:98].mean() for s in range(-20, 21)}
    assert abs(min(errors, key=errors.__getitem__) - shift) <= 2


def test_without_light_the_picture_is_dark(loop_for: LoopFor) -> None:
    _, before, after = begin(loop_for, "lights-off")
    assert after.mean() < 0.1 * before.mean()


def test_a_frozen_stream_repeats_its_picture_while_the_world_goes_on(loop_for: LoopFor) -> None:
    loop, _, frozen = begin(loop_for, "frames-frozen")
    loop.execute(np.array([0.02, 0.02]))
    np.testing.assert_array_equal(loop.look(), frozen)
    assert not np.array_equal(loop.world.render(), frozen)


def test_swapped_pictures_are_of_another_scene_and_move(loop_for: LoopFor) -> None:
    loop = loop_for("push", 0.0)
    _, injection = new_episode_with("frames-swapped", make_task("push"), loop, SEED)
    pictures = []
    for step in range(injection.at_step, injection.at_step + 10):
        injection.before(step)
        pictures.append(loop.look())
    assert not np.array_equal(pictures[0], loop.world.render())
    assert any(not np.array_equal(a, b) for a, b in zip(pictures, pictures[1:]))


def test_a_hand_comes_in_and_touches_nothing(loop_for: LoopFor) -> None:
    loop = loop_for("push", 0.0)
    _, injection = new_episode_with("hand-enters", make_task("push"), loop, SEED)
    empty, place = loop.look(), loop.world.object_position()
    covered = []
    for step in range(injection.at_step, injection.at_step + 15):
        injection.before(step)
        loop.execute(np.zeros(2))
        covered.append(float((np.abs(loop.look().astype(int) - empty).max(2) > 30).mean()))
    assert covered[-1] > 0.01, "a hand of 18 by 9 cm covers some of the picture"
    np.testing.assert_allclose(loop.world.object_position(), place, atol=1e-4)
