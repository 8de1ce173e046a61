"""The environment that a ROS process of jepa-arm needs. This is the only place that knows it.

    subprocess.Popen(command, env=ros_environment())   # a node in a process of its own
    enter_ros_environment()                            # this process, before its first `import rclpy`

Nobody has to export anything. Where ROS comes from PyPI wheels it lives in the virtual environment itself,
and the wheels' own start-up hook sets LD_LIBRARY_PATH for every Python of that environment. Where a ROS is
sourced, our packages are in `ros_ws/install` on top of it, and their libraries are loaded from there.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from pathlib import Path

INTERFACES = "jepa_arm_interfaces"


def ros_environment() -> dict[str, str]:
    """The environment of this process plus what ROS needs; what the user has set already stays."""
    environment = dict(os.environ)
    for prefix in ros_prefixes():
        _prepend(environment, "AMENT_PREFIX_PATH", prefix)
        _prepend(environment, "LD_LIBRARY_PATH", prefix / "lib")
    environment.setdefault("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp")
    environment.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    if "FASTDDS_DEFAULT_PROFILES_FILE" not in environment:  # the newer name of the same setting
        environment.setdefault("FASTRTPS_DEFAULT_PROFILES_FILE", str(fast_dds_profile()))
    return environment


def enter_ros_environment() -> None:
    """Give this process the environment of `ros_environment`; call it before the first `import rclpy`.

    The dynamic linker reads LD_LIBRARY_PATH only when a process starts, so libraries of ours that it could
    not find are loaded here, by path: whoever asks for them by name later gets these.
    """
    reachable = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    os.environ.update(ros_environment())
    for prefix in ros_prefixes():
        if str(prefix / "lib") not in reachable:
            _preload(sorted((prefix / "lib").glob(f"lib{INTERFACES}__*.so")))


def ros_prefixes() -> list[Path]:
    """Install prefixes that hold ROS packages and are not on AMENT_PREFIX_PATH by themselves."""
    wheels = wheels_prefix()
    if wheels:
        return [wheels]
    found = importlib.util.find_spec(INTERFACES)
    if found is None or found.origin is None:
        return []
    # <prefix>/lib/python3.X/site-packages/jepa_arm_interfaces/__init__.py
    return [Path(found.origin).parents[4]]


def wheels_prefix() -> Path | None:
    """Where the ROS wheels are installed: the virtual environment; nowhere if ROS comes from elsewhere."""
    prefix = Path(sys.prefix)
    return prefix if (prefix / "share/ament_index/resource_index/packages/rclpy").is_file() else None


def fast_dds_profile() -> Path:
    """The Fast DDS profile shipped with this package: in the source tree, or where colcon installed it."""
    source = Path(__file__).resolve().parents[1] / "config" / "fastdds.xml"
    if source.is_file():
        return source
    # <prefix>/lib/python3.X/site-packages/jepa_arm_bringup/environment.py
    return Path(__file__).resolve().parents[4] / "share" / "jepa_arm_bringup" / "config" / "fastdds.xml"


def _prepend(environment: dict[str, str], name: str, path: Path) -> None:
    present = [part for part in environment.get(name, "").split(os.pathsep) if part]
    if str(path) not in present:
        environment[name] = os.pathsep.join([str(path), *present])


def _preload(libraries: list[Path]) -> None:
    """Load `libraries`, which depend on each other in no known order: until a round loads none."""
    left = libraries
    while left:
        failed = [library for library in left if not _loads(library)]
        if len(failed) == len(left):
            return  # rclpy's own message about the missing library is the clearest one
        left = failed


def _loads(library: Path) -> bool:
    try:
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True
