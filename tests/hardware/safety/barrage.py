"""Throws commands at the safety gate, good and bad, and watches what comes out: `make fuzz`.

    python tests/hardware/safety/barrage.py --commands 1000000 --seed 0

Everything is drawn from the seed. Scenes alternate between robots and start anywhere that their joints allow,
often near a limit, an edge or a body. A setpoint outside any limit ends it with exit code 1.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
from rich.progress import track

sys.path[:0] = [str(Path(__file__).parents[3]), str(Path(__file__).parent)]

from watch import Watch  # noqa: E402

from hardware.arm.contract import JointCommand, JointState  # noqa: E402
from hardware.kinematics import Kinematics  # noqa: E402
from hardware.robot import Workspace, load_robot  # noqa: E402
from hardware.safety.collision import Bodies  # noqa: E402
from hardware.safety.gate import SafetyGate  # noqa: E402
from hardware.safety.status import GateConfig, Reason, SafetyState  # noqa: E402

ROBOTS = ("panda", "xarm6", "iiwa", "panda_hand")
PERIODS_S = (0.004, 0.008, 0.01, 1 / 120)
WEIRD = (np.nan, np.inf, -np.inf, 1e300, -1e12, 0.0, 5.0)
COMMANDS_A_SCENE = 40  # at least
SCENES_A_SHARE = 50


@cache
def parts(name: str, everywhere: bool):
    """The robot with what goes with it; `everywhere`: without its workspace, other limits come first."""
    robot = load_robot(name)
    if everywhere:
        robot = robot.model_copy(update={"workspace": Workspace(min=(-3.0,) * 3, max=(3.0,) * 3)})
    kinematics = Kinematics(robot)
    return robot, kinematics, Bodies(robot), Bodies(robot)


class Barrage:
    """One scene: an arm that follows, with a lag, and somebody who commands it."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.robot, self.kinematics, bodies, watched = parts(
            ROBOTS[rng.integers(len(ROBOTS))], bool(rng.random() < 0.6)
        )
        config = GateConfig() if rng.random() < 0.5 else GateConfig(command_timeout_s=0.5, fault_after_s=1.0)
        self.ranges = self.robot.position_upper - self.robot.position_lower
        self.gate = SafetyGate(self.robot, self.kinematics, config, bodies)
        self.watch = Watch(self.robot, self.kinematics, watched, config.workspace_tolerance_m)
        self.now_s, self.stamp_ns, self.silent = 0.0, 0, False
        self.period_s = float(rng.choice(PERIODS_S))
        self.measured = self.somewhere()
        self.observe()
        self.watch.start(self.measured)
        self.commands = 0

    def somewhere(self) -> np.ndarray:
        rng, robot = self.rng, self.robot
        kind = rng.random()
        if kind < 0.4:
            return robot.home + rng.normal(0.0, 0.02, len(robot.joints)) * self.ranges
        q = rng.uniform(robot.position_lower, robot.position_upper)
        if kind < 0.6:
            q = robot.home + rng.uniform(0.0, 1.0) * (q - robot.home)
        at_limit = rng.random(len(q)) < 0.2
        return np.where(at_limit, robot.position_upper + rng.normal(0.0, 0.002, len(q)) * self.ranges, q)

    def observe(self) -> None:
        self.stamp_ns += 1
        names, rest = self.robot.joint_names, np.zeros_like(self.measured)
        self.observed = self.measured
        self.gate.observe(JointState(names, self.measured, rest, self.stamp_ns), self.now_s)

    def run(self) -> Counter[str]:
        while self.commands < COMMANDS_A_SCENE:
            event = self.rng.random()
            if event < 0.75:
                self.send(self.command())
            elif event < 0.85:
                self.send(self.broken(self.command()))
            else:
                self.happen()
            for _ in range(self.rng.integers(1, 13)):
                self.tick(self.period_s)
            self.recover()
        return Counter({reason.value: count for reason, count in self.gate.status.counts.items()})

    def send(self, command: JointCommand, image_age_s: float = 0.03) -> None:
        self.commands += 1
        self.gate.submit(command, self.now_s, image_age_s)

    def command(self) -> JointCommand:
        rng, robot, q = self.rng, self.robot, self.watch.q
        duration_s = float(rng.choice([0.02, 0.07, 0.1, 0.1, 0.5, 2.0]))
        way = rng.uniform(-1.0, 1.0, len(q)) * robot.velocity_limits * duration_s
        way *= rng.choice([0.05, 0.2, 0.45, 0.999])
        if rng.random() < 0.3:
            way[rng.random(len(q)) < 0.7] = 0.0
        target = np.clip(q + way, robot.position_lower, robot.position_upper)
        final = np.zeros_like(q) if rng.random() < 0.2 else (target - q) / duration_s
        return JointCommand(robot.joint_names, target, final, duration_s, int(rng.integers(2**60)))

    def broken(self, command: JointCommand) -> JointCommand:
        rng, names = self.rng, list(command.names)
        weird = float(rng.choice(WEIRD))
        positions, velocities = command.positions.copy(), command.velocities.copy()
        joint = rng.integers(len(names))
        match rng.integers(8):
            case 0:
                positions[joint] = weird
            case 1:
                velocities[joint] = weird
            case 2:
                return replace(command, duration_s=weird)
            case 3:
                names[joint] = str(rng.choice(["elbow", *names]))
            case 4:
                positions = positions[: rng.integers(len(names))]
            case 5:
                names, velocities = names[:joint], velocities[:joint]
            case 6:
                return replace(command, positions=(None, "far", [[1.0]])[joint % 3])
            case 7:
                positions = positions + rng.normal(0.0, 10.0, len(positions))
        return replace(command, names=tuple(names), positions=positions, velocities=velocities)

    def happen(self) -> None:
        rng, gate = self.rng, self.gate
        match rng.integers(9):
            case 0:
                self.send(self.command(), float(rng.choice([*WEIRD, 0.149, -0.2, 0.16])))
            case 1:
                for _ in range(rng.integers(2, 60)):
                    self.send(self.command())
            case 2:
                self.silent = not self.silent
            case 3:
                self.measured = self.measured + rng.normal(0.0, 0.01, len(self.measured)) * self.ranges
            case 4:
                level = rng.choice([0, 1, 2, 2, 3, np.nan, 7])
                gate.caution(int(level) if np.isfinite(level) else float(level), self.now_s)
            case 5:
                gate.e_stop(bool(rng.random() < 0.5), self.now_s)
            case 6:
                gate.stop(self.now_s)
            case 7:
                self.tick(float(rng.choice([0.0, 1e-9, 0.0137, 0.06, 0.4, -1.0, np.nan, np.inf])))
            case 8:
                gate.submit(self.command(), self.now_s, 0.03, source="another")

    def tick(self, elapsed_s: float) -> None:
        now_s = self.now_s + elapsed_s
        setpoint = self.gate.tick(now_s)
        assert setpoint is not None
        self.watch.check(setpoint, elapsed_s if np.isfinite(elapsed_s) else 0.0)
        if np.isfinite(elapsed_s):
            self.now_s = now_s
        self.measured = self.measured + 0.6 * (setpoint.positions - self.measured)
        if not self.silent:
            self.observe()

    def recover(self) -> None:
        """A reset for most stops, so that there is motion to go wrong."""
        if self.gate.status.state is SafetyState.STOPPED and self.rng.random() < 0.7:
            self.silent = False
            self.gate.e_stop(False, self.now_s)
            self.observe()
            if self.gate.reset(self.now_s).accepted:
                # Here, and only here, the setpoints jump: to where the gate last saw the joints.
                self.watch.start(self.observed)


def barrage(scenes: range, seed: int) -> Counter[str]:
    """How often each reason acted in these scenes. Raises `OutsideLimits`, naming the scene."""
    counts: Counter[str] = Counter()
    for scene in scenes:
        run = Barrage(np.random.default_rng([seed, scene]))
        try:
            counts += run.run()
        except AssertionError as error:
            raise type(error)(f"seed {seed}, scene {scene}: {error}") from None
        counts["accepted"] += run.gate.status.commands_accepted
        counts["thrown"] += run.commands
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commands", type=int, default=1_000_000, help="at least so many")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    last = math.ceil(args.commands / COMMANDS_A_SCENE)
    shares = [range(i, min(i + SCENES_A_SHARE, last)) for i in range(0, last, SCENES_A_SHARE)]
    counts: Counter[str] = Counter()
    try:
        with ProcessPoolExecutor() as pool:
            done = pool.map(partial(barrage, seed=args.seed), shares)
            for share in track(done, "fuzz", len(shares)):
                counts += share
    except AssertionError as error:
        print(f"fuzz: OUTSIDE A LIMIT: {error}")
        return 1
    reasons = ", ".join(f"{reason.value} {counts[reason.value]}" for reason in Reason if counts[reason.value])
    print(f"fuzz: {counts['thrown']} commands, {counts['accepted']} accepted, none outside a limit")
    print(f"      {reasons}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
