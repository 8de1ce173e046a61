"""The graph with the simulated world.

ros2 launch jepa_arm_bringup simulation.launch.py task:=push bundle:=FOLDER
"""

from jepa_arm_bringup.launching import launch_description
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    return launch_description("simulated")
