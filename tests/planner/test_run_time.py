"""Running a bundle needs neither torch nor ROS: a robot has no room for the one, a notebook not the other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_NEEDED = (
    "torch",
    "onnx",
    "onnxscript",
    "safetensors",
    "tensorboard",
    "rclpy",
    "gymnasium",
    "matplotlib",
    "av",
)


def modules_after(program: str, *arguments: str) -> set[str]:
    """The top-level modules that a fresh Python holds after `program`."""
    report = "\nimport json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    ran = subprocess.run(
        [sys.executable, "-c", program + report, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stdout.splitlines()[-1]))


@pytest.mark.parametrize("imports", ["import planner.mpc, sim.protocol", "import perception.runtimes.onnx"])
def test_importing_what_a_robot_needs_imports_neither_torch_nor_ros(imports: str) -> None:
    assert modules_after(imports).isdisjoint(NOT_NEEDED)


PLAN_ONCE = """
import sys
from pathlib import Path
import numpy as np
from perception.preprocessing import prepare
from planner.bundle import load_bundle
from planner.mpc import RecedingHorizon, make_planner

bundle = load_bundle(Path(sys.argv[1]))
bundle.check_fits("panda", (128, 128))
encoder = bundle.encoder()
pictures = np.random.default_rng(0).integers(0, 256, (4, 128, 128, 3), dtype=np.uint8)
latents = encoder.encode(np.stack([prepare(picture, encoder.spec.image_size) for picture in pictures]))
loop = RecedingHorizon(bundle, make_planner("mode2", bundle))
loop.begin(latents[3])
for step in range(3):
    loop.observe(latents[step], (0.5, 0.0, 0.025), step * 100_000_000)
decision = loop.decide()
assert decision is not None and np.isfinite(decision.action).all()
"""


def test_planning_with_a_bundle_needs_neither_torch_nor_ros(tiny_bundle: Path) -> None:
    assert modules_after(PLAN_ONCE, str(tiny_bundle)).isdisjoint(NOT_NEEDED)
