from __future__ import annotations

import hypothesis
import pytest

from hardware.kinematics import Kinematics
from hardware.robot import Robot, load_robot

# A busy machine is no reason to fail.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session")
def robot() -> Robot:
    return load_robot("panda")


@pytest.fixture(scope="session")
def kinematics(robot: Robot) -> Kinematics:
    return Kinematics(robot)
