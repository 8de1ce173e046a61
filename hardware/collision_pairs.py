"""The pairs of links whose distance the safety gate need not check, for the robot file:

    python -m hardware.collision_pairs panda

In random positions of all joints, a pair that never overlaps cannot touch, and one that always does is no
collision (hulls of neighbours). What remains is checked. A pair that touches by its nature, like two fingers,
has to be added by hand. Look at the pairs that it says are rare, and at those it says are near at home.
"""

from __future__ import annotations

import argparse

import numpy as np

from hardware.robot import Robot, load_robot
from hardware.safety.collision import Bodies

SAMPLES = 30_000
ALWAYS = 0.99


def needless_pairs(robot: Robot, samples: int = SAMPLES, seed: int = 0) -> list[tuple[str, str]]:
    """The pairs of links of which none, or all, of `samples` random joint positions have an overlap."""
    bare = robot.model_copy(
        update={"collision": robot.collision.model_copy(update={"never_touch": (), "keep_out": ()})}
    )
    bodies = Bodies(bare)
    rng = np.random.default_rng(seed)
    overlaps = np.zeros(len(bodies.pairs))
    for q in rng.uniform(robot.position_lower, robot.position_upper, (samples, len(robot.joints))):
        overlaps += bodies.distances(q) < 0.0
    # A link of several shapes is left out only if all of them may be.
    shares: dict[tuple[str, str], list[float]] = {}
    for pair, often in zip(bodies.pairs, overlaps / samples):
        shares.setdefault(pair, []).append(float(often))
    return [pair for pair, often in shares.items() if max(often) == 0.0 or min(often) > ALWAYS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("robot", help="robot file: a name in hardware/robots or a path")
    robot = load_robot(parser.parse_args().robot)
    print("  never_touch:")
    for first, second in needless_pairs(robot):
        print(f"    - [{first}, {second}]")


if __name__ == "__main__":
    main()
