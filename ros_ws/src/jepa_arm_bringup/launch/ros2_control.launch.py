"""The graph with a real camera, beside an arm that ros2_control drives; start its controllers elsewhere.

ros2 launch jepa_arm_bringup ros2_control.launch.py bundle:=FOLDER camera:=file:PATH
"""

from jepa_arm_bringup.launching import launch_description
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    return launch_description("ros2_control")
