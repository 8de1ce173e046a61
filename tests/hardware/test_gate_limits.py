"""Whatever is sent to the safety gate, and whenever: setpoints keep every limit, and silence ends in rest."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware.arm.contract import JointCommand, JointState
from hardware.kinematics import CartesianServo, Kinematics
from hardware.robot import load_robot
from hardware.safety.gate import SafetyGate
from hardware.safety.motion import Motion
from hardware.safety.status import GateConfig, SafetyState

ROBOT = load_robot("panda")
KINEMATICS = Kinematics(ROBOT)
SERVO = CartesianServo(KINEMATICS, ("x", "y", "z"))
NAMES = ROBOT.joint_names
JOINTS = len(NAMES)
ROUNDING = 1e-7

anything = st.floats(allow_nan=True, allow_infinity=True)
seconds = st.one_of(
    st.floats(0.0, 0.03),
    st.floats(0.0, 0.3),
    st.sampled_from([-1000.0, -0.1, 1e-9, 10.0, float("nan"), float("inf")]),
)
names = st.one_of(
    st.just(NAMES),
    st.permutations(NAMES).map(tuple),
    st.lists(st.sampled_from((*NAMES, "elbow")), max_size=9).map(tuple),
)


def near(centre: np.ndarray, spread: float) -> st.SearchStrategy[np.ndarray]:
    offsets = st.lists(st.floats(-1.0, 1.0), min_size=JOINTS, max_size=JOINTS)
    return offsets.map(lambda values: centre + spread * np.array(values))


def vectors(values: st.SearchStrategy) -> st.SearchStrategy[np.ndarray]:
    return st.lists(values, min_size=JOINTS - 1, max_size=JOINTS + 1).map(np.array)


def corners(inset: float) -> list[np.ndarray]:
    """Joints that put the tool `inset` metres inside each corner of the workspace."""
    rotation, start = KINEMATICS.tool_pose(ROBOT.home)[1], KINEMATICS.tool_position(ROBOT.home)
    found = []
    for corner in itertools.product(*zip(ROBOT.workspace_min + inset, ROBOT.workspace_max - inset)):
        q = ROBOT.home
        for share in np.linspace(0.05, 1.0, 20):
            q = KINEMATICS.inverse(start + share * (np.array(corner) - start), rotation, q).positions
        found.append(q)
    return found


CORNERS = corners(inset=0.03)

# Commands of a planner, of a planner that has gone wild, and of a sender that knows nothing.
tool_steps = st.tuples(*[st.floats(-0.03, 0.03)] * 3)
joint_steps = st.builds(
    lambda step, final, duration: (step, final, duration),
    near(np.zeros(JOINTS), 0.3),
    st.one_of(st.just(np.zeros(JOINTS)), near(np.zeros(JOINTS), 2.0)),
    st.floats(0.02, 1.0),
)
nonsense = st.builds(
    lambda names, positions, velocities, duration: JointCommand(names, positions, velocities, duration, 0),
    names,
    st.one_of(vectors(anything), near(ROBOT.home, 0.1)),
    st.one_of(vectors(anything), st.just(np.zeros(JOINTS))),
    st.one_of(anything, st.just(0.1)),
)
moves = st.one_of(
    st.tuples(st.just("tool step"), tool_steps),
    st.tuples(st.just("joint step"), joint_steps),
)
events = st.one_of(
    moves,
    moves,
    st.tuples(st.just("nonsense"), nonsense),
    st.tuples(st.just("image age"), anything),
    st.tuples(st.just("silent arm"), st.booleans()),
    st.tuples(st.just("bumped arm"), near(np.zeros(JOINTS), 0.3)),
    st.tuples(st.just("caution"), st.integers(0, 2) | anything),
    st.tuples(st.just("stop"), st.none()),
    st.tuples(st.just("reset"), st.none()),
)
scenes = st.lists(st.tuples(seconds, st.integers(1, 12), st.none() | events), min_size=1, max_size=25)
starts = st.one_of(near(ROBOT.home, 0.3), st.just(ROBOT.home), near(ROBOT.position_upper, 0.1))


class Scene:
    """A gate, an arm that follows it a little late, and a check of every setpoint between them."""

    def __init__(self, start: np.ndarray, config: GateConfig | None = None) -> None:
        self.gate = SafetyGate(ROBOT, KINEMATICS, config)
        self.now_s = 0.0
        self.silent = False
        self.measured = start
        self.observe()
        self.q, self.v = start, np.zeros(JOINTS)
        self.beyond = self.beyond_limits(start)
        self.outside = self.outside_workspace(start)

    @property
    def state(self) -> JointState:
        return JointState(NAMES, self.measured, np.zeros(JOINTS), 0)

    @staticmethod
    def beyond_limits(q: np.ndarray) -> np.ndarray:
        return np.maximum(np.maximum(ROBOT.position_lower - q, q - ROBOT.position_upper), 0.0)

    @staticmethod
    def outside_workspace(q: np.ndarray) -> float:
        tool = KINEMATICS.tool_position(q)
        return max(0.0, float(np.maximum(ROBOT.workspace_min - tool, tool - ROBOT.workspace_max).max()))

    def play(self, kind: str, value) -> None:
        gate, now_s = self.gate, self.now_s
        if kind == "tool step":
            gate.submit(SERVO.joint_command(self.state, value, 0.1, 0), now_s, 0.03)
        elif kind == "joint step":
            step, final, duration = value
            gate.submit(JointCommand(NAMES, self.q + step, final, duration, 0), now_s, 0.0)
        elif kind == "nonsense":
            gate.submit(value, now_s, 0.0)
        elif kind == "image age":
            gate.submit(SERVO.joint_command(self.state, (0.01, 0.0, 0.0), 0.1, 0), now_s, value)
        elif kind == "silent arm":
            self.silent = value
        elif kind == "bumped arm":
            self.measured = self.measured + value
        elif kind == "caution":
            gate.caution(value, now_s)
        elif kind == "stop":
            gate.stop(now_s)
        elif gate.status.state is SafetyState.STOPPED and gate.reset(now_s).accepted:
            # Here, and only here, the setpoints jump: to where the gate last saw the joints.
            self.q, self.v = self.observed, np.zeros(JOINTS)
            self.beyond, self.outside = self.beyond_limits(self.q), self.outside_workspace(self.q)

    def tick(self, elapsed_s: float) -> None:
        self.now_s += elapsed_s if np.isfinite(elapsed_s) else 0.0
        setpoint = self.gate.tick(self.now_s if np.isfinite(elapsed_s) else elapsed_s)
        self.check(setpoint, max(elapsed_s, 0.0))
        self.q, self.v = setpoint.positions, setpoint.velocities
        self.measured = self.measured + 0.6 * (self.q - self.measured)
        if not self.silent:
            self.observe()

    def observe(self) -> None:
        self.observed = self.measured
        self.gate.observe(self.state, self.now_s)

    def check(self, setpoint: JointCommand, elapsed_s: float) -> None:
        q, v, dt = setpoint.positions, setpoint.velocities, setpoint.duration_s
        assert np.isfinite(q).all() and np.isfinite(v).all()
        assert 0.0 <= dt <= 0.05 and not dt > elapsed_s + ROUNDING
        assert np.all(np.abs(v) <= ROBOT.velocity_limits + ROUNDING)
        np.testing.assert_allclose(q - self.q, v * dt, atol=ROUNDING)
        assert np.all(np.abs(v - self.v) <= ROBOT.acceleration_limits * dt + ROUNDING)
        # Joints and tools that start outside may come back; none goes further out.
        beyond = self.beyond_limits(q)
        assert np.all(beyond <= self.beyond + ROUNDING)
        self.beyond = beyond


@settings(max_examples=100)
@given(starts, scenes)
def test_no_setpoint_breaks_a_joint_limit_whatever_is_sent(start, scene_events):
    scene = Scene(start)
    for elapsed_s, ticks, event in scene_events:
        if event is not None:
            scene.play(*event)
        for _ in range(ticks):
            scene.tick(elapsed_s)


@settings(max_examples=60)
@given(
    st.sampled_from(CORNERS),
    st.lists(st.tuples(moves, st.integers(1, 15), st.floats(0.005, 0.03)), max_size=25),
)
def test_the_tool_never_leaves_the_workspace_whatever_is_commanded(start, commands):
    scene = Scene(start, GateConfig(command_timeout_s=1.0, fault_after_s=5.0))
    for move, ticks, tick_s in commands:
        scene.play(*move)
        for _ in range(ticks):
            scene.tick(tick_s)
            assert scene.outside_workspace(scene.q) <= 0.002 + 1e-4
        if scene.gate.status.state is SafetyState.STOPPED:
            scene.play("reset", None)


@pytest.mark.parametrize("corner", range(8))
@pytest.mark.parametrize("axis", range(3))
def test_a_tool_thrown_at_a_wall_of_the_workspace_brakes_before_it(corner, axis):
    """The target is on the wall, but is reached so fast that the tool would come to rest 9 mm behind it."""
    scene = Scene(CORNERS[corner], GateConfig(command_timeout_s=1.0))
    middle = 0.5 * (ROBOT.workspace_min + ROBOT.workspace_max)
    outwards = np.sign(KINEMATICS.tool_position(CORNERS[corner]) - middle)
    scene.play("tool step", tuple(0.03 * outwards * np.eye(3)[axis]))
    assert scene.gate.status.commands_accepted == 1
    distances = []
    for _ in range(30):
        scene.tick(0.01)
        distances.append(scene.outside_workspace(scene.q))
    assert max(distances) <= 0.002 + 1e-4
    assert not scene.v.any()


@settings(max_examples=60)
@given(starts, scenes, st.floats(0.005, 0.02))
def test_silence_ends_in_rest_within_time_out_and_braking_time(start, scene_events, tick_s):
    scene = Scene(start)
    for elapsed_s, ticks, event in scene_events:
        if event is not None:
            scene.play(*event)
        for _ in range(ticks):
            scene.tick(elapsed_s)
    config = scene.gate.config
    for _ in range(int((config.command_timeout_s + config.max_braking_s) / tick_s) + 2):
        scene.tick(tick_s)
    # A stopped arm may glide on to the position at which its joints are measured.
    assert not scene.v.any() or scene.gate.status.state is SafetyState.STOPPED
    for _ in range(int(1.0 / tick_s)):
        scene.tick(tick_s)
    assert not scene.v.any()
    assert scene.gate.status.state in (SafetyState.IDLE, SafetyState.STOPPED)


@settings(max_examples=60)
@given(scenes)
def test_nothing_but_a_reset_leads_out_of_a_stop(scene_events):
    scene = Scene(ROBOT.home)
    scene.gate.stop(0.0)
    reason = scene.gate.status.reason
    for elapsed_s, ticks, event in scene_events:
        if event is not None and event[0] != "reset":
            scene.play(*event)
        for _ in range(ticks):
            scene.tick(elapsed_s)
        assert scene.gate.status.state in (SafetyState.STOPPING, SafetyState.STOPPED)
        assert scene.gate.status.reason is reason
    assert scene.gate.status.commands_accepted == 0


@given(nonsense)
def test_a_command_is_either_accepted_or_refused_with_a_sentence(command):
    scene = Scene(ROBOT.home)
    verdict = scene.gate.submit(command, 0.0, 0.0)
    assert verdict.accepted != bool(verdict.text)
    status = scene.gate.status
    assert (status.commands_accepted, status.commands_refused) == ((1, 0) if verdict.accepted else (0, 1))


@pytest.mark.parametrize("room", [1e-5, 1e-3, 0.005])
def test_a_joint_goes_to_a_rest_as_fast_as_it_can_still_stop(room):
    motion = Motion(KINEMATICS, max_braking_s=1.0, workspace_tolerance_m=0.002)
    goal = ROBOT.home + room * np.eye(JOINTS)[1]
    velocity = motion.towards(goal, ROBOT.home, time_left=0.0, dt=1e-6, rest_there=True)
    assert velocity[1] == pytest.approx(np.sqrt(2.0 * ROBOT.acceleration_limits[1] * room), rel=1e-2)


@pytest.mark.parametrize("joint", range(JOINTS))
@pytest.mark.parametrize("side", ["lower", "upper"])
def test_a_joint_driven_at_its_limit_stops_before_it(joint, side):
    """Every joint against both of its ends, as fast as it may; the workspace would stop most before."""
    motion = Motion(KINEMATICS, max_braking_s=0.06, workspace_tolerance_m=0.002)
    limit = (ROBOT.position_lower if side == "lower" else ROBOT.position_upper)[joint]
    away = -1.0 if side == "lower" else 1.0
    q, v = ROBOT.home.copy(), np.zeros(JOINTS)
    q[joint] = limit - 0.2 * away
    wanted = np.zeros(JOINTS)
    wanted[joint] = away * ROBOT.velocity_limits[joint]
    for _ in range(80):
        slower = motion.step(wanted, q, v, 0.01)
        assert np.all(np.abs(slower - v) <= ROBOT.acceleration_limits * 0.01 + ROUNDING)
        q, v = q + slower * 0.01, slower
        assert (limit - q[joint]) * away >= -ROUNDING
    assert abs(limit - q[joint]) < 1e-3
