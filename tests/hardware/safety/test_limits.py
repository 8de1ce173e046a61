"""Whatever is sent to the safety gate, and whenever: setpoints keep every limit, and silence ends in rest."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hardware.arm.contract import JointCommand, JointState
from hardware.kinematics import CartesianServo, Kinematics
from hardware.robot import Collision, Robot, Workspace, load_robot
from hardware.safety.collision import Bodies
from hardware.safety.gate import SafetyGate
from hardware.safety.motion import Reference
from hardware.safety.status import GateConfig, SafetyState
from hardware.safety.stop import Stop

from .barrage import Barrage, barrage
from .watch import Watch

ROBOT = load_robot("panda")
KINEMATICS = Kinematics(ROBOT)
BODIES = Bodies(ROBOT)
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


def everywhere(robot: Robot) -> Robot:
    """The robot without its workspace, so that other limits come first."""
    return robot.model_copy(update={"workspace": Workspace(min=(-3.0,) * 3, max=(3.0,) * 3)})


def unhindered(name: str) -> tuple[Robot, Reference]:
    """A robot that neither its workspace nor any body stops, and a reference that moves it."""
    robot = everywhere(load_robot(name))
    collision = Collision(never_touch=Bodies(robot.model_copy(update={"collision": Collision()})).pairs)
    robot = robot.model_copy(update={"collision": collision})
    return robot, Reference(Kinematics(robot), Bodies(robot), workspace_tolerance_m=0.002)


class Scene:
    """A gate, an arm that follows it a little late, and a check of every setpoint between them."""

    def __init__(self, start: np.ndarray, config: GateConfig | None = None) -> None:
        self.gate = SafetyGate(ROBOT, KINEMATICS, config, BODIES)
        self.now_s = 0.0
        self.silent = False
        self.measured = start
        self.observe()
        self.watch = Watch(ROBOT, KINEMATICS, Bodies(ROBOT), self.gate.config.workspace_tolerance_m)
        self.watch.start(start)

    @property
    def state(self) -> JointState:
        return JointState(NAMES, self.measured, np.zeros(JOINTS), 0)

    @property
    def q(self) -> np.ndarray:
        return self.watch.q

    @property
    def v(self) -> np.ndarray:
        return self.watch.v

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
            self.watch.start(self.observed)

    def tick(self, elapsed_s: float) -> None:
        self.now_s += elapsed_s if np.isfinite(elapsed_s) else 0.0
        setpoint = self.gate.tick(self.now_s if np.isfinite(elapsed_s) else elapsed_s)
        self.watch.check(setpoint, elapsed_s)
        self.measured = self.measured + 0.6 * (self.q - self.measured)
        if not self.silent:
            self.observe()

    def observe(self) -> None:
        self.observed = self.measured
        self.gate.observe(self.state, self.now_s)


@settings(max_examples=100)
@given(starts, scenes)
@example(ROBOT.home, [(1e-6, 4, None), (0.0078125, 1, None)])
def test_no_setpoint_breaks_a_joint_limit_whatever_is_sent(start, scene_events):
    scene = Scene(start)
    for elapsed_s, ticks, event in scene_events:
        if event is not None:
            scene.play(*event)
        for _ in range(ticks):
            scene.tick(elapsed_s)


def test_a_barrage_of_commands_to_all_robots_leaves_no_setpoint_outside_a_limit():
    """`make fuzz` throws a million."""
    counts = barrage(range(75), seed=0)
    assert counts["accepted"] > 500
    assert len(counts) > 18, counts


@pytest.mark.parametrize(
    ("seed", "scene"),
    [
        pytest.param(0, 14125, id="an arm far outside that went further out on curved ways, bit by bit"),
        pytest.param(1, 2215, id="after a tick of 50 ms three times the acceleration limit"),
    ],
)
def test_a_scene_in_which_a_limit_was_once_broken(seed, scene):
    """`make fuzz` found it."""
    Barrage(np.random.default_rng([seed, scene])).run()


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
    for _ in range(30):
        scene.tick(0.01)
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
    for _ in range(int((config.command_timeout_s + ROBOT.max_braking_s) / tick_s) + 3):
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


@pytest.mark.parametrize("name", ["panda", "xarm6", "iiwa", "panda_hand"])
@pytest.mark.parametrize("side", ["lower", "upper"])
def test_a_joint_driven_at_its_limit_stops_just_before_it(name, side):
    """Every joint against both of its ends, as fast as it may go; the workspace would stop most before."""
    robot, reference = unhindered(name)
    away = -1.0 if side == "lower" else 1.0
    for joint in range(len(robot.joints)):
        limit = (robot.position_lower if side == "lower" else robot.position_upper)[joint]
        far = robot.home.copy()
        far[joint] = limit + 10.0 * away
        start = robot.home.copy()
        start[joint] = limit - away * min(0.2, 0.5 * (robot.position_upper - robot.position_lower)[joint])
        reference.place(start)
        for _ in range(200):
            reference.follow(far, 0.01, 0.01)
            assert (limit - reference.positions[joint]) * away >= -ROUNDING
        assert abs(limit - reference.positions[joint]) < 2e-3, robot.joint_names[joint]


@pytest.mark.parametrize("name", ["panda", "xarm6", "iiwa"])
def test_a_motion_takes_the_velocity_that_brings_it_to_its_goal_in_time_and_no_longer(name):
    robot, reference = unhindered(name)
    goal = robot.home + 0.02 * np.array([1.0, -0.5, 0.2] + [0.0] * (len(robot.joints) - 3))
    for tick in range(10):
        reference.follow(goal, 0.1 - 0.01 * tick, 0.01)
    np.testing.assert_allclose(reference.positions, goal, atol=2e-3)
    assert np.abs(reference.velocities).max() < 0.5


@pytest.mark.parametrize("dt", [0.004, 0.01])
@pytest.mark.parametrize("name", ["panda", "iiwa"])
def test_a_motion_that_is_turned_round_keeps_the_jerk_limits(name, dt):
    robot, reference = unhindered(name)
    way = 0.05 * robot.velocity_limits
    velocities = [np.zeros(len(way))] * 2
    for tick in range(60):
        goal = robot.home + (way if tick % 20 < 10 else -way)
        reference.follow(goal, 0.1, dt)
        velocities.append(reference.velocities)
    jerks = np.diff(velocities, n=2, axis=0) / dt**2
    assert np.all(np.abs(jerks) <= robot.jerk_limits * (1 + 1e-6))
    assert np.abs(np.diff(velocities, axis=0)).max(0).min() > 0.5 * dt * robot.acceleration_limits.min()


@pytest.mark.parametrize("dt", [0.002, 0.004, 0.01, 0.03])
@pytest.mark.parametrize("joint", [0, 6])
def test_a_velocity_is_reached_without_delay_and_not_overshot(joint, dt):
    """With the slope that jerk allows, and the arm is not at rest as long as one joint moves."""
    robot, reference = unhindered("panda")
    pace = 0.3 * reference.max_velocity[joint]
    acceleration, jerk = robot.acceleration_limits[joint], robot.jerk_limits[joint]
    ideal_s = (
        pace / acceleration + acceleration / jerk
        if pace > acceleration**2 / jerk
        else 2 * (pace / jerk) ** 0.5
    )
    goal, seconds, reached_s = robot.home.copy(), 0.0, None
    while seconds < 3 * ideal_s + 6 * dt:
        goal = goal.copy()
        goal[joint] = reference.positions[joint] + pace * 0.5
        reference.follow(goal, 0.5, dt)
        seconds += dt
        assert not reference.at_rest
        assert reference.velocities[joint] <= pace * (1 + 1e-9)
        if reached_s is None and reference.velocities[joint] > 0.999 * pace:
            reached_s = seconds
    assert reached_s is not None and reached_s <= 1.6 * ideal_s + 3 * dt


@pytest.mark.parametrize(("name", "together"), [("panda", True), ("panda_hand", False)])
@pytest.mark.parametrize("fast", [0, -1])
def test_what_is_too_fast_for_one_joint_slows_all_of_the_arm_but_no_gripper(name, together, fast):
    robot, reference = unhindered(name)
    slow = -1 - fast
    way = np.zeros(len(robot.joints))
    way[fast] = -0.5 * robot.velocity_limits[fast]  # in a tenth of a second
    way[slow] = -0.1 * 0.1 * robot.velocity_limits[slow]
    way[3] = 0.1 * 0.1 * robot.velocity_limits[3]
    if len(way) > 7:
        way[6] = way[3]
    for tick in range(10):
        reference.follow(robot.home + way, 0.1 - 0.01 * tick, 0.01)
    done = (reference.positions - robot.home)[[fast, slow]] / way[[fast, slow]]
    assert done[0] < 0.3
    assert done[1] == pytest.approx(done[0], abs=0.02) if together else done[1] > 0.9
    for another in (3, 6):  # of the arm
        if another not in (fast, slow % len(way)):
            share = (reference.positions - robot.home)[another] / way[another]
            assert share == pytest.approx(done[0], abs=0.02) if together or fast == 0 else share > 0.9


def test_a_late_tick_leaves_no_slope_behind_that_a_joint_cannot_have():
    """The mean velocity of a long tick is no velocity from which the next, short one slows down."""
    robot, reference = unhindered("panda")
    goal = robot.home + 0.1
    for dt in (*[0.004] * 12, 0.05, 0.004):
        (reference.follow if dt < 0.05 else lambda *_: reference.brake(0.05))(goal, 0.5, dt)
    before = reference.velocities
    reference.brake(0.004)
    reference.follow(goal, 0.5, 0.004)
    assert np.all(np.abs(reference.velocities - before) <= 2 * 0.004 * robot.acceleration_limits)


def test_joints_of_unlike_jerk_are_slow_enough_to_stop_together():
    soft = load_robot("panda").model_dump()
    soft["joints"][6]["jerk"] = 600.0
    robot = Robot.model_validate(soft)
    reference = Reference(Kinematics(robot), BODIES, workspace_tolerance_m=0.002)
    stop = Stop(robot.home, reference.max_velocity, np.zeros(7), robot.acceleration_limits, robot.jerk_limits)
    assert 0.8 * 0.8 * robot.max_braking_s < stop.duration_s < robot.max_braking_s
    alone = Reference(KINEMATICS, BODIES, workspace_tolerance_m=0.002).max_velocity
    assert (reference.max_velocity < alone).all()
    np.testing.assert_allclose(alone, np.minimum(ROBOT.velocity_limits, 0.06 * ROBOT.acceleration_limits))
