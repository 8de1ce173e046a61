"""The arm file: what is refused, and that it fits its robot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from hardware.arm.config import (
    ARMS_DIR,
    arm_config_for,
    arm_names,
    load_arm_config,
    write_arm_config,
)
from hardware.errors import ArmError
from hardware.kinematics import Kinematics
from hardware.robot import load_robot, robot_names


@pytest.mark.parametrize("name", arm_names())
def test_every_arm_file_that_is_shipped_fits_its_robot(name: str) -> None:
    config = load_arm_config(name)
    assert name == f"{config.robot}-{config.bus}" and config.robot in robot_names()
    assert arm_config_for(config.bus, load_robot(config.robot)) == config


def test_the_arm_file_refuses_what_cannot_work(tmp_path: Path) -> None:
    content = yaml.safe_load((ARMS_DIR / "so101-feetech.yaml").read_text())

    def refusal(**changes: object) -> str:
        servos = [dict(servo) for servo in content["servos"]]
        servos[0] |= {key[6:]: value for key, value in changes.items() if key.startswith("servo_")}
        rest = {key: value for key, value in changes.items() if not key.startswith("servo_")}
        path = tmp_path / "arm.yaml"
        path.write_text(yaml.safe_dump(content | rest | {"servos": servos}))
        with pytest.raises(ArmError) as refused:
            load_arm_config(path)
        assert str(path) in str(refused.value)
        return str(refused.value)

    assert "bauds: unknown key" in refusal(bauds=1)
    assert "on_fault: input should be 'hold' or 'torque_off'" in refusal(on_fault="panic")
    assert "two servos have the id 2" in refusal(servo_id=2)
    assert "two servos have the joint elbow_flex" in refusal(servo_joint="elbow_flex")
    assert "lower limit 2 is not below upper limit 1.9" in refusal(servo_lower=2.0)
    assert "but servo 1 counts 0 to 4095" in refusal(servo_zero_ticks=100)
    assert "no feetech servo 'xl330-m288'; known: sts3215" in refusal(servo_model="xl330-m288")
    assert "servos.0.velocity: input should be greater than 0" in refusal(servo_velocity=0.0)
    assert "command_timeout_s" in refusal(command_timeout_s=60.0)


def test_an_arm_file_that_does_not_fit_the_robot_is_refused(tmp_path: Path) -> None:
    config = load_arm_config("so101-feetech")
    with pytest.raises(ArmError, match="drives joints shoulder_pan, .* robot panda has panda_joint1"):
        config.check_fits(load_robot("panda"))
    wide = config.servos[0].model_copy(update={"upper": 2.5})
    with pytest.raises(ArmError, match=r"shoulder_pan\): limits -1.9 to 2.5 are wider than -1.9 to 1.9"):
        config.model_copy(update={"servos": (wide, *config.servos[1:])}).check_fits(load_robot("so101"))
    with pytest.raises(ArmError, match="no arm file for robot 'panda' on bus dynamixel; there are .*so101"):
        arm_config_for("dynamixel", load_robot("panda"))
    with pytest.raises(ArmError, match="no such arm file"):
        arm_config_for(str(tmp_path / "nothing.yaml"), load_robot("so101"))


def test_an_arm_file_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    config = load_arm_config("so101-feetech")
    write_arm_config(config, tmp_path / "mine.yaml", "mine")
    assert load_arm_config(tmp_path / "mine.yaml") == config
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_the_so101_at_home_points_its_gripper_down_inside_its_workspace() -> None:
    robot = load_robot("so101")
    position, rotation = Kinematics(robot).tool_pose(robot.home)
    np.testing.assert_allclose(rotation[:, 2], [0.0, 0.0, -1.0], atol=1e-4)
    assert np.all(position > robot.workspace_min) and np.all(position < robot.workspace_max)
    # At zero, as published: 0.391 m in front of the base frame, 0.2265 m above the table.
    np.testing.assert_allclose(Kinematics(robot).tool_position(np.zeros(6)), [0.3913, 0, 0.2265], atol=1e-3)
