"""jepa_arm_bringup: the process table, launch files and configuration, where ROS looks for them."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "jepa_arm_bringup"
HERE = Path(__file__).parent


def shared(folder: str) -> list[tuple[str, list[str]]]:
    """The files of `folder`, subfolders included, for share/jepa_arm_bringup."""
    files = [path.relative_to(HERE) for path in sorted((HERE / folder).rglob("*")) if path.is_file()]
    parents = sorted({path.parent for path in files})
    return [(f"share/{NAME}/{parent}", [str(f) for f in files if f.parent == parent]) for parent in parents]


setup(
    name=NAME,
    version="0.1.0",
    description="Starts the graph of jepa-arm: process table, launch files, configuration.",
    license="Apache-2.0",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["**/*.yaml", "**/*.html"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        *shared("config"),
        *shared("launch"),
        *shared("urdf"),
    ],
)
