"""The graph with a real camera and arm: `ros2 launch jepa_arm_bringup robot.launch.py bundle:=… arm:=… camera_source:=…`."""

from launch import LaunchDescription

from jepa_arm_bringup.launching import launch_description


def generate_launch_description() -> LaunchDescription:
    return launch_description("real")
