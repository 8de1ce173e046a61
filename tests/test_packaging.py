from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text()
CORE = ("cli.py", "doctor.py", "perception", "planner", "sim", "hardware", "benchmarks")
ROS = ("ros_ws/src/jepa_arm_ros/jepa_arm_ros", "ros_ws/src/jepa_arm_bringup")
OURS = {Path(part).stem for part in CORE} | {"jepa_arm_ros", "jepa_arm_bringup", "jepa_arm_interfaces"}
# The package that brings a module of another name.
BROUGHT_BY = {
    "mcap_ros2": "mcap-ros2-support",
    "cuda": "cuda-bindings",
    "cv2": "opencv-python-headless",
    "pinocchio": "pin",
    "pybullet_data": "pybullet",
    "pybullet_utils": "pybullet",
    "typing_extensions": "pydantic",
    "ruamel": "ruamel.yaml",
    "sdl2": "pysdl2",
    "yaml": "pyyaml",
}
FROM_THE_MAKER_OF_THE_DEVICE = {"tensorrt"}
WHERE_ROS_IS_INSTALLED = {"launch", "launch_ros", "ament_index_python", "rclpy", "setuptools"}


def imported_modules(parts: tuple[str, ...]) -> set[str]:
    """The top-level modules that the Python files under `parts` import, ours and Python's own aside."""
    found = set()
    for part in parts:
        path = ROOT / part
        for file in [path] if path.is_file() else path.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                    found.add(node.module.partition(".")[0])
    return found - OURS - set(sys.stdlib_module_names)


def declared_packages() -> set[str]:
    """What pyproject.toml's dependencies and extras name, in lower case."""
    return {name.lower() for name in re.findall(r'"([A-Za-z0-9_.-]+)(?:\[|[<>=;]|")', PYPROJECT)}


def ros_dependencies(package: str) -> set[str]:
    text = (ROOT / "ros_ws" / "src" / package / "package.xml").read_text()
    return set(re.findall(r"depend>([a-z0-9_-]+)<", text))


def test_every_module_the_code_imports_comes_with_a_declared_package():
    names = {BROUGHT_BY.get(module, module) for module in imported_modules(CORE)}
    ros = WHERE_ROS_IS_INSTALLED | {name for name in names if name.endswith(("_msgs", "_srvs"))}
    assert names - declared_packages() - FROM_THE_MAKER_OF_THE_DEVICE - ros == set()


@pytest.mark.parametrize("package", ["jepa_arm_ros", "jepa_arm_bringup"])
def test_every_ros_package_a_node_imports_is_in_its_package_xml(package):
    sources = tuple(part for part in ROS if package in part.split("/"))
    used = {name for name in imported_modules(sources) if name.endswith(("_msgs", "_srvs", "_interfaces"))}
    assert used - ros_dependencies(package) == set()


def test_all_packages_have_one_version():
    versions = {re.search(r'^version = "(.+)"$', PYPROJECT, re.MULTILINE)[1]}
    for file in [ROOT / "package.xml", *sorted((ROOT / "ros_ws" / "src").glob("*/package.xml"))]:
        versions.add(re.search(r"<version>(.+)</version>", file.read_text())[1])
    for file in (ROOT / "ros_ws" / "src").glob("*/setup.py"):
        versions.add(re.search(r'version="(.+)"', file.read_text())[1])
    assert len(versions) == 1, versions
