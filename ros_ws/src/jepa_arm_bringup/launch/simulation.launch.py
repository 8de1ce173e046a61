"""The graph with the simulated world: `ros2 launch jepa_arm_bringup simulation.launch.py bundle:=models/panda-push`."""

from launch import LaunchDescription

from jepa_arm_bringup.launching import launch_description


def generate_launch_description() -> LaunchDescription:
    return launch_description("simulated")
