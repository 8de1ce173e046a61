"""The process table as a ROS 2 launch description, for a ROS installation that has `launch`.

The same rows, parameters, remaps and restart policy as `jepa-arm up`; the nodes are brought to active as
soon as they run, also after a restart.
"""

from __future__ import annotations

import launch
import launch_ros.actions
import launch_ros.event_handlers
import launch_ros.events.lifecycle
import lifecycle_msgs.msg
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    RegisterEventHandler,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.event_handlers import OnProcessStart
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

from jepa_arm_bringup.environment import fast_dds_profile
from jepa_arm_bringup.processes import SETTINGS, Process, World, processes_of, settings_of

RESTART_DELAY_S = 0.2


def launch_description(world: World) -> launch.LaunchDescription:
    processes = processes_of(world)
    actions: list[launch.Action] = [
        SetEnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", str(fast_dds_profile())),
        SetEnvironmentVariable("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp"),
    ]
    for name, setting in settings_of(processes).items():
        actions.append(
            DeclareLaunchArgument(name, default_value=str(setting.default), description=setting.description)
        )
    for process in processes:
        node = lifecycle_node(process)
        actions += [*activation(node), node]
    return launch.LaunchDescription(actions)


def lifecycle_node(process: Process) -> LifecycleNode:
    again = process.restart == "always"
    return LifecycleNode(
        name=process.name,
        namespace="",
        package=process.package,
        executable=process.executable,
        parameters=[
            {
                parameter: ParameterValue(LaunchConfiguration(name), value_type=type(SETTINGS[name].default))
                for parameter, name in process.parameters.items()
            }
        ],
        remappings=list(process.remaps.items()),
        respawn=again,
        respawn_delay=RESTART_DELAY_S,
        on_exit=None if again else Shutdown(reason=f"{process.name} ended"),
        output="screen",
    )


def activation(node: LifecycleNode) -> list[launch.Action]:
    """Configure whenever the process starts, activate whenever it has been configured."""
    return [
        RegisterEventHandler(
            OnProcessStart(
                target_action=node,
                on_start=[transition(node, lifecycle_msgs.msg.Transition.TRANSITION_CONFIGURE)],
            )
        ),
        RegisterEventHandler(
            launch_ros.event_handlers.OnStateTransition(
                target_lifecycle_node=node,
                start_state="configuring",
                goal_state="inactive",
                entities=[transition(node, lifecycle_msgs.msg.Transition.TRANSITION_ACTIVATE)],
            )
        ),
    ]


def transition(node: LifecycleNode, transition_id: int) -> EmitEvent:
    return EmitEvent(
        event=launch_ros.events.lifecycle.ChangeState(
            lifecycle_node_matcher=launch.events.matches_action(node), transition_id=transition_id
        )
    )
