"""jepa_arm_ros: every `*_node.py` is an executable of the same name, its `main()` the entry point."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "jepa_arm_ros"
HERE = Path(__file__).parent
NODES = sorted(path.stem for path in (HERE / NAME).glob("*_node.py"))

setup(
    name=NAME,
    version="0.1.0",
    description="The ROS 2 nodes of jepa-arm.",
    license="Apache-2.0",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["**/*.yaml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
    ],
    entry_points={"console_scripts": [f"{node} = {NAME}.{node}:main" for node in NODES]},
)
