"""The action pursue_goal, and the way of a frame through the graph."""

from __future__ import annotations

import array

import numpy as np
import pytest
from jepa_arm_bringup.graph import Graph
from jepa_arm_interfaces.action import PursueGoal
from jepa_arm_interfaces.msg import Latent
from jepa_arm_ros import qos
from jepa_arm_ros.messages import header, image_message
from sensor_msgs.msg import Image

from hardware.camera.contract import Frame

from .conftest import ABORTED, ANSWERS_WITHIN_S, CANCELED, REST_RAD_S, Operator, now_ns

pytestmark = pytest.mark.ros


def picture(width: int, height: int) -> Image:
    return image_message(Frame(np.zeros((height, width, 3), np.uint8), now_ns(), "camera"))


def mono(width: int, height: int) -> Image:
    image = picture(width, height)
    image.encoding, image.step, image.data = "mono8", width, image.data[: width * height]
    return image


def truncated(width: int, height: int) -> Image:
    image = picture(width, height)
    image.data = image.data[:-1]
    return image


@pytest.mark.parametrize(
    "goal, reason",
    [
        (PursueGoal.Goal(goal_image=picture(64, 48)), "goal image is 64x48, the camera's are 128x128"),
        (PursueGoal.Goal(goal_image=mono(128, 128)), "encoding is mono8, expected rgb8"),
        (PursueGoal.Goal(goal_image=truncated(128, 128)), "but holds 49151 bytes"),
        (PursueGoal.Goal(), "goal has no image, and its latent has 0 values"),
        (PursueGoal.Goal(goal_latent=[1.0, 2.0]), "its latent has 2 values"),
        (PursueGoal.Goal(goal_latent=[float("nan")] * 64), "goal latent is not finite"),
    ],
)
def test_a_goal_that_cannot_be_pursued_is_refused_with_the_reason(
    operator: Operator, goal: PursueGoal.Goal, reason: str
) -> None:
    status, result = operator.result_of(operator.pursue(goal))
    assert status == ABORTED and not result.reached and result.decisions == 0
    assert result.outcome.startswith("goal refused: ") and reason in result.outcome


def test_a_goal_latent_is_pursued_as_a_goal_image_is(operator: Operator) -> None:
    latent = np.random.default_rng(0).standard_normal(64).astype(np.float32)
    goal = PursueGoal.Goal(goal_latent=array.array("f", latent.tobytes()), timeout_s=0.5)
    _, result = operator.result_of(operator.pursue(goal))
    assert result.decisions > 0


def test_a_cancelled_pursuit_ends_at_rest_without_a_fault(operator: Operator) -> None:
    handle = operator.pursue_until_moving()
    operator.wait_for(handle.cancel_goal_async(), "cancelling")
    status, result = operator.result_of(handle)
    assert status == CANCELED and result.outcome == "canceled" and result.decisions > 0
    assert operator.spin_until(lambda: operator.speed < REST_RAD_S, ANSWERS_WITHIN_S)
    assert not operator.spin_until(lambda: operator.safety.reason != "", 0.5), operator.safety.text


def test_a_newer_goal_takes_over(operator: Operator) -> None:
    first = operator.pursue_until_moving()
    second = operator.pursue()
    status, result = operator.result_of(first)
    assert status == ABORTED and result.outcome == "a newer goal took over"
    operator.wait_for(second.cancel_goal_async(), "cancelling")
    assert operator.result_of(second)[0] == CANCELED


def test_a_pursuit_ends_when_its_time_is_up_even_without_frames(operator: Operator) -> None:
    handle = operator.pursue(PursueGoal.Goal(goal_image=operator.goal_image, timeout_s=0.5))
    operator.pause_camera(True)
    status, result = operator.result_of(handle)
    assert status == ABORTED and result.outcome == "not reached within 0.5 s"
    assert 0.5 <= result.elapsed_s


def test_latents_of_another_encoder_end_the_pursuit(operator: Operator) -> None:
    handle = operator.pursue_until_moving()
    publisher = operator.node.create_publisher(Latent, "latent", qos.LATENT)
    # The planner and the operator listen.
    assert operator.spin_until(lambda: publisher.get_subscription_count() >= 2, ANSWERS_WITHIN_S)
    publisher.publish(Latent(header=header(now_ns()), encoder="f" * 64, data=[0.0] * 64))
    status, result = operator.result_of(handle)
    operator.node.destroy_publisher(publisher)
    assert status == ABORTED
    assert "latents come from encoder ffffffffffff" in result.outcome and "same bundle" in result.outcome


def test_an_episode_tells_all_that_happened(running_graph: Graph, operator: Operator) -> None:
    updates: list[float] = []
    episode = operator.run_episode(seed=2, on_update=lambda episode: updates.append(episode.elapsed_s))
    assert episode.goal_image.shape == episode.start_image.shape == (128, 128, 3)
    assert not np.array_equal(episode.goal_image, episode.start_image)
    assert episode.held or episode.elapsed_s == pytest.approx(episode.budget_s, abs=0.5)
    assert len(updates) == len(episode.distances) > 0
    assert episode.distances[0][1] == pytest.approx(episode.start_distance_m, abs=0.005)
    assert len(episode.energies) == len(episode.plan_ms) == len(episode.surprises) > 0
    assert episode.commands > 0 and min(episode.frame_to_command_ms) > 0
    assert episode.video[0][1].shape == (128, 128, 3)
    assert len(episode.video) <= 10 * episode.elapsed_s + 2


def test_no_frame_is_lost_between_camera_and_encoder(operator: Operator) -> None:
    """128×128 pictures at 30 Hz, best effort, while the planner plans."""
    episode = operator.run_episode(seed=3)
    assert episode.frames_sent > 50
    assert episode.frames_dropped == 0


def test_the_same_seed_sets_the_same_scene(operator: Operator) -> None:
    first, second, other = (operator.reset_scene(seed) for seed in (5, 5, 6))
    assert first.goal_image.data == second.goal_image.data != other.goal_image.data
    assert first.start_image.data == second.start_image.data
    assert (first.start_distance_m, first.budget_steps) == (second.start_distance_m, second.budget_steps)
