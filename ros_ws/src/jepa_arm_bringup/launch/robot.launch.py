"""The graph with a real camera and arm.

ros2 launch jepa_arm_bringup robot.launch.py bundle:=FOLDER arm:=module:callable camera:=realsense
"""

from jepa_arm_bringup.launching import launch_description
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    return launch_description("real")
