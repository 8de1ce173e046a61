"""The architecture as one table: which processes make up jepa-arm, and what each is told.

`jepa-arm up` and the launch files are made from this table, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from planner.runtime_options import MOVING

# Where the graph runs: with the simulator, with a camera and an arm of ours, or with a camera and an arm that
# ros2_control drives.
World = Literal["simulated", "real", "ros2_control"]


@dataclass(frozen=True)
class Setting:
    """Something the user chooses once and several processes are told."""

    default: str | int | float | bool
    description: str


SETTINGS: dict[str, Setting] = {
    "task": Setting("push", "what the simulated scene is for: a task of sim/tasks.py"),
    "bundle": Setting("", "folder of the world-model bundle"),
    "robot": Setting("panda", "robot file: a name in hardware/robots or a path"),
    "planner": Setting("mode2", "hold, random, mode1, cem, mode2, icem, mppi or gradient"),
    "runtime": Setting(MOVING, "auto, onnxruntime, openvino, torch or tensorrt[:precision]"),
    "force_runtime": Setting(False, "use the runtime even if it is not exact enough or cannot be checked"),
    "budget_ms": Setting(0.0, "time for a plan in ms, 0: as long as it takes"),
    "seed": Setting(0, "seed of the first scene and of the planner"),
    "camera": Setting(
        "", "the real camera, as `jepa-arm cameras` names it: realsense, uvc:DEVICE, file:PATH"
    ),
    "arm": Setting("", "the real arm: feetech, dynamixel, an arm file, or module:callable"),
    "core": Setting(-1, "processor core for the control loops of gate and arm; -1: any"),
    "port": Setting("", "serial port of the real arm's servos; empty: the arm file's"),
}


@dataclass(frozen=True)
class Process:
    """One process: an executable of a ROS package, run as the lifecycle node `name`.

    `parameters` maps a ROS parameter of the node to the name of a setting. A process that ends by itself is
    started again if `restart` is "always". `world` says where it belongs: with the simulated world, with a
    real one, only with one that ros2_control drives, or with all.
    """

    name: str
    package: str
    executable: str
    restart: Literal["always", "never"]
    parameters: Mapping[str, str] = field(default_factory=dict)
    remaps: Mapping[str, str] = field(default_factory=dict)
    world: Literal["both"] | World = "both"


PROCESSES = (
    # A world that went away does not come back as it was.
    Process(
        "sim",
        package="jepa_arm_ros",
        executable="sim_node",
        restart="never",
        parameters={"task": "task", "robot": "robot", "seed": "seed"},
        world="simulated",
    ),
    Process(
        "camera",
        package="jepa_arm_ros",
        executable="camera_node",
        restart="always",
        parameters={"camera": "camera", "robot": "robot"},
        world="real",
    ),
    Process(
        "arm",
        package="jepa_arm_ros",
        executable="arm_node",
        restart="never",
        parameters={"arm": "arm", "robot": "robot", "port": "port", "core": "core"},
        world="real",
    ),
    # It has nothing to remember: it looks anew at who commands.
    Process(
        "controller",
        package="jepa_arm_ros",
        executable="controller_node",
        restart="always",
        world="ros2_control",
    ),
    Process(
        "encoder",
        package="jepa_arm_ros",
        executable="encoder_node",
        restart="always",
        parameters={"bundle": "bundle", "runtime": "runtime", "force_runtime": "force_runtime"},
    ),
    Process(
        "planner",
        package="jepa_arm_ros",
        executable="planner_node",
        restart="always",
        parameters={
            "bundle": "bundle",
            "robot": "robot",
            "planner": "planner",
            "runtime": "runtime",
            "force_runtime": "force_runtime",
            "budget_ms": "budget_ms",
            "seed": "seed",
        },
    ),
    # A guard that died has to be looked into before it guards again.
    Process(
        "gate",
        package="jepa_arm_ros",
        executable="gate_node",
        restart="never",
        parameters={"robot": "robot", "core": "core"},
    ),
)


def processes_of(world: World) -> tuple[Process, ...]:
    """The rows of that world. ros2_control's is a real one whose arm has its driver elsewhere."""
    if world != "ros2_control":
        return tuple(process for process in PROCESSES if process.world in ("both", world))
    worlds = ("both", "real", "ros2_control")
    return tuple(process for process in PROCESSES if process.world in worlds and process.name != "arm")


def settings_of(processes: tuple[Process, ...]) -> dict[str, Setting]:
    """The settings that these processes are told, in the table's order."""
    used = {name for process in processes for name in process.parameters.values()}
    return {name: setting for name, setting in SETTINGS.items() if name in used}


def parameters_of(process: Process, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The node's ROS parameters under `settings`; a setting that is not given has its default."""
    return {
        parameter: settings.get(name, SETTINGS[name].default)
        for parameter, name in process.parameters.items()
    }
