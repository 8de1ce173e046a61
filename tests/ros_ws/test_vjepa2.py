"""A V-JEPA 2-AC bundle, tiny and random, in the graph that runs any other bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from jepa_arm_bringup.graph import Graph
from jepa_arm_interfaces.msg import PlanStatus
from jepa_arm_ros import qos

from .conftest import ANSWERS_WITHIN_S, CANCELED, REST_RAD_S, Operator

pytestmark = pytest.mark.ros


def test_the_planner_node_pursues_a_goal_picture_with_v_jepa_2_and_comes_to_rest_when_cancelled(
    start_graph: Callable[..., Graph], vjepa2_bundle: Path
) -> None:
    decided: list[PlanStatus] = []
    graph = start_graph(
        task="pick-place", robot="panda_hand", planner="cem", bundle=str(vjepa2_bundle), budget_ms=30.0
    )
    try:
        with Operator(graph.domain_id) as operator:
            operator.node.create_subscription(PlanStatus, "planner/status", decided.append, qos.RECORD)
            operator.set_scene(seed=1)
            handle = operator.pursue()
            operator.wait_until_moving()
            assert operator.spin_until(lambda: len(decided) >= 5, ANSWERS_WITHIN_S)
            operator.wait_for(handle.cancel_goal_async(), "cancelling")
            status, result = operator.result_of(handle)
            assert status == CANCELED and not result.reached
            assert operator.spin_until(lambda: operator.speed < REST_RAD_S, ANSWERS_WITHIN_S)
    finally:
        graph.stop()
    for decision in decided:
        assert np.isfinite(decision.action).all() and np.isfinite(decision.energy)
        assert np.abs(decision.action[:3]).sum() <= 0.075 + 1e-6
