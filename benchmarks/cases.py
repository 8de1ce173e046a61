"""What is measured: each step of the way from picture to motor, then the simulator, then all in one."""

from __future__ import annotations

import importlib.util
from functools import partial

import numpy as np

from benchmarks.plans import plan_cases
from benchmarks.timing import Case
from hardware.arm.contract import JointState
from hardware.kinematics import CartesianServo, Kinematics
from hardware.robot import Robot, load_robot
from hardware.safety.gate import SafetyGate
from perception.preprocessing import prepare as preprocess
from planner.bundle import Bundle

BATCHES = (1, 48, 200)
TICK_S = 1 / 120
TICKS_PER_COMMAND = 8
# So that the simulated cube does not stay where it was pushed off to.
DECISIONS_PER_EPISODE = 60


def all_cases(bundle: Bundle) -> list[Case]:
    """Every step that `bundle` and this machine allow: without PyBullet, those that a robot needs."""
    robot = load_robot(bundle.robot)
    cases = [*perception_cases(bundle), *model_cases(bundle), *plan_cases(bundle)]
    cases += hardware_cases(bundle, robot)
    if importlib.util.find_spec("pybullet") is not None:
        cases += simulator_cases(bundle, robot)
    return cases


def perception_cases(bundle: Bundle) -> list[Case]:
    rng = np.random.default_rng(0)
    width, height, size = bundle.camera.width, bundle.camera.height, bundle.info.image_size
    frame = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    encoder, image = bundle.encoder(), preprocess(frame, size)[None]
    return [
        Case("preprocess", f"{width}x{height} to {size}x{size}", lambda: preprocess(frame, size)),
        Case("encoder", "1 picture", lambda: encoder.encode(image)),
    ]


def model_cases(bundle: Bundle) -> list[Case]:
    rng = np.random.default_rng(0)
    model, dim, tool_dim = bundle.world_model(), bundle.info.latent_dim, bundle.info.tool.dim

    def batch(count: int, size: int) -> np.ndarray:
        return rng.standard_normal((count, size), dtype=np.float32)

    model.prepare(predict=BATCHES, propose=[48], steps_to_go=[48])
    cases = []
    for count in BATCHES:
        inputs = (batch(count, dim), batch(count, dim), batch(count, tool_dim), batch(count, model.block_dim))
        what = f"one step, {count} candidate{'s' if count > 1 else ''}"
        cases.append(Case(f"predictor {count}", what, partial(model.predict, *inputs)))
    latents, tools, goal = batch(48, dim), batch(48, tool_dim), batch(1, dim)[0]
    steps = np.ones(48, np.float32)
    return [
        *cases,
        Case("proposal", "48 latents", lambda: model.propose(latents, tools, goal, steps)),
        Case("energy", "48 latents", lambda: model.steps_to_go(latents, tools, goal)),
    ]


def hardware_cases(bundle: Bundle, robot: Robot) -> list[Case]:
    kinematics = Kinematics(robot)
    servo = CartesianServo(kinematics, bundle.action.axes, bundle.action.fixed)
    home = JointState(robot.joint_names, np.asarray(robot.home), np.zeros(len(robot.joints)), 0)
    step = np.full(bundle.action.dim, bundle.action.limit_m / 2)
    driven = DrivenGate(SafetyGate(robot, kinematics), servo, home, step)
    return [
        Case("servo", "action to joints", lambda: servo.joint_command(home, step, bundle.action.period_s, 0)),
        Case("gate", "one tick, in motion", driven.tick, driven.observe),
    ]


class DrivenGate:
    """A gate whose arm goes exactly where it is told, to and fro around `home`."""

    def __init__(self, gate: SafetyGate, servo: CartesianServo, home: JointState, step: np.ndarray) -> None:
        self.gate, self.servo, self.state, self.step = gate, servo, home, step
        self.ticks = 0

    def observe(self) -> None:
        """Everything around a tick: the measured joints, and at times a new command."""
        now_s = self.ticks * TICK_S
        self.gate.observe(self.state, now_s)
        if self.ticks % TICKS_PER_COMMAND == 0:
            self.step = -self.step
            command = self.servo.joint_command(self.state, self.step, 0.1, 0)
            self.gate.submit(command, now_s, image_age_s=0.0)
        self.ticks += 1

    def tick(self) -> None:
        setpoint = self.gate.tick(self.ticks * TICK_S)
        if setpoint is not None:
            self.state = JointState(setpoint.names, setpoint.positions, setpoint.velocities, 0)


def simulator_cases(bundle: Bundle, robot: Robot) -> list[Case]:
    lockstep = Lockstep(bundle, robot)
    world, camera = lockstep.loop.world, robot.camera
    return [
        Case("render", f"{camera.width}x{camera.height} with noise", world.render),
        Case("physics", "one step of 1/240 s", lambda: world.advance(1)),
        Case("decision", "mode2 in lockstep: all of it, 0.1 s simulated", lockstep.decide, lockstep.restart),
    ]


class Lockstep:
    """Whole decisions, from picture to simulated arm, begun again when an episode's worth of them is done."""

    def __init__(self, bundle: Bundle, robot: Robot) -> None:
        from sim.pilots import make_pilot
        from sim.tasks import make_loop, make_task

        self.task = make_task(bundle.info.task)
        self.loop = make_loop(self.task, robot)
        self.pilot = make_pilot("mode2", bundle, self.task, seed=0)
        self.decisions = 0

    def restart(self) -> None:
        from sim.tasks import new_episode

        if self.decisions % DECISIONS_PER_EPISODE == 0:
            self.pilot.begin(self.loop, new_episode(self.task, self.loop, seed=0))
        self.decisions += 1

    def decide(self) -> None:
        self.loop.execute(self.pilot.act(self.loop).action)
