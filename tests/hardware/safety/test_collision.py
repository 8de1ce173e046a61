"""The arm keeps clear of itself and of its boxes: how near it is, and what the gate does about it."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware.collision_pairs import needless_pairs
from hardware.errors import RobotError
from hardware.kinematics import Kinematics
from hardware.robot import Collision, KeepOut, Robot, load_robot, robot_names
from hardware.safety.collision import Bodies
from hardware.safety.gate import SafetyGate
from hardware.safety.status import GateConfig, Reason, SafetyState

from .conftest import GatedArm

PANDA = load_robot("panda")
PANDA_BODIES = Bodies(PANDA)
joints = st.tuples(*[st.floats(0.0, 1.0)] * 7).map(
    lambda share: PANDA.position_lower + np.array(share) * (PANDA.position_upper - PANDA.position_lower)
)


def with_box(robot: Robot, low, high, **collision) -> Robot:
    box = KeepOut(name="post", min=tuple(low), max=tuple(high))
    return robot.model_copy(
        update={"collision": robot.collision.model_copy(update={"keep_out": (box,), **collision})}
    )


def armed(robot: Robot, **settings: float) -> GatedArm:
    kinematics = Kinematics(robot)
    arm = GatedArm(SafetyGate(robot, kinematics, GateConfig(**settings)), kinematics)
    arm.gate.observe(arm.state, 0.0)
    arm.run(0.01)
    return arm


@pytest.mark.parametrize("name", robot_names())
def test_at_home_every_robot_is_clear_of_itself_and_of_the_table(name):
    robot = load_robot(name)
    bodies = Bodies(robot)
    assert bodies.nearest(robot.home).distance > robot.collision.slow_from
    assert any("table" in pair for pair in bodies.pairs)
    assert len(bodies.pairs) < 35


def test_an_arm_folded_onto_its_base_overlaps_it():
    q = PANDA.home.copy()
    q[1], q[3], q[5] = 1.26, -2.97, 2.74
    nearest = PANDA_BODIES.nearest(q)
    assert nearest.distance < 0.0
    assert {nearest.first, nearest.second} <= {name for pair in PANDA_BODIES.pairs for name in pair}


def test_an_arm_that_leans_into_the_table_overlaps_it():
    q = PANDA.home.copy()
    q[1], q[3] = 1.7, -0.6
    assert "table" in PANDA_BODIES.nearest(q)


@settings(max_examples=40)
@given(joints, st.tuples(*[st.floats(-0.05, 0.05)] * 7).map(np.array))
def test_clearance_is_never_more_than_the_distance_and_exact_where_it_matters(q, step):
    bodies = PANDA_BODIES
    bodies.nearest(q)
    cheap = bodies.clearance(q + step)
    exact = float(Bodies.distances(bodies, q + step).min())
    assert cheap <= exact + 1e-5
    if cheap < PANDA.collision.slow_from:
        assert cheap == pytest.approx(exact, abs=1e-5)


def test_levers_are_no_shorter_than_what_a_joint_swings(kinematics):
    stretched = np.array([0.0, 0.0, 0.0, -0.07, 0.0, 1.9, 0.0])
    tool = kinematics.tool_position(stretched)
    reach = np.linalg.norm(tool - kinematics.joint_origins(stretched)[1])
    assert PANDA_BODIES.levers[1] > reach
    assert PANDA_BODIES.levers[1] < 2.0 * reach
    assert PANDA_BODIES.levers[6] < 0.3


CRANE = """
<robot name="crane">
  <link name="base"/>
  <link name="jib">
    <collision><origin xyz="0.3 0 0"/><geometry><sphere radius="0.05"/></geometry></collision>
  </link>
  <link name="trolley">
    <collision><origin xyz="0.5 0 0"/><geometry><sphere radius="0.02"/></geometry></collision>
  </link>
  <joint name="turn" type="revolute">
    <parent link="base"/><child link="jib"/><origin xyz="0 0 1"/><axis xyz="0 0 1"/>
    <limit lower="-1" upper="1" velocity="1" effort="1"/>
  </joint>
  <joint name="slide" type="prismatic">
    <parent link="jib"/><child link="trolley"/><origin xyz="0.1 0 0"/><axis xyz="1 0 0"/>
    <limit lower="-0.2" upper="0.4" velocity="1" effort="1"/>
  </joint>
</robot>
"""


def test_a_lever_reaches_to_the_far_side_of_what_slides_out(tmp_path):
    urdf = tmp_path / "crane.urdf"
    urdf.write_text(CRANE)
    joints = tuple(PANDA.joints[0].model_copy(update={"name": name}) for name in ("turn", "slide"))
    crane = Robot.model_construct(urdf=urdf, joints=joints, collision=Collision())
    turn, slide = Bodies(crane).levers
    assert 0.1 + 0.4 + 0.5 + 0.02 <= turn < 1.1
    assert slide == 1.0
    stiff = CRANE.replace('upper="0.4"', 'upper="0.0"').replace("0.5 0 0", "0 0 0")
    urdf.write_text(stiff.replace('lower="-0.2"', 'lower="0.0"'))
    assert 0.3 + 0.05 <= Bodies(crane).levers[0] < 0.45


def test_far_from_everything_nothing_is_computed():
    bodies = Bodies(PANDA)
    exact = bodies.nearest(PANDA.home).distance
    bodies.distances = None  # whoever asks for distances now fails
    step = 1e-3 * np.eye(7)[0]
    assert bodies.clearance(PANDA.home + step) == pytest.approx(exact - 1e-3 * bodies.levers[0])


def test_a_checked_pair_less_is_a_pair_less_and_mimicking_fingers_move():
    hand = load_robot("panda_hand")
    bodies = Bodies(hand)
    assert ("panda_leftfinger", "panda_rightfinger") not in bodies.pairs
    index = bodies.pairs.index(("panda_link5", "panda_rightfinger"))
    q = hand.home.copy()
    q[5], q[-1] = 0.3, 0.0
    closed = bodies.distances(q)[index]
    q[-1] = 0.04
    assert abs(bodies.distances(q)[index] - closed) > 1e-3, "the right finger mirrors the left one"
    assert bodies.levers[-1] == 2.0


def test_a_robot_of_which_nothing_can_touch_is_clear():
    links = ["panda_link" + str(i) for i in range(8)] + ["peg"]
    pairs = tuple((a, b) for i, a in enumerate(links) for b in links[i + 1 :])
    robot = PANDA.model_copy(update={"collision": Collision(never_touch=pairs)})
    assert Bodies(robot).clearance(robot.home) == np.inf


def test_joints_that_are_not_driven_stay_where_the_urdf_has_them():
    hand = load_robot("panda_hand")
    fields = hand.model_dump() | {"gripper": None, "joints": hand.joints[:-1]}
    bodies = Bodies(Robot.model_validate(fields | {"collision": Collision()}))
    fingers = bodies.pairs.index(("panda_leftfinger", "panda_rightfinger"))
    assert bodies.distances(hand.home[:-1])[fingers] == pytest.approx(0.0, abs=1e-3), "closed"
    assert bodies.levers.shape == (7,)


def test_a_missing_collision_mesh_is_named(tmp_path):
    urdf = tmp_path / "panda_peg.urdf"
    urdf.write_text(PANDA.urdf.read_text())
    with pytest.raises(RobotError, match="collision mesh panda_meshes/link0.obj is not in .*put it there"):
        Bodies(PANDA.model_copy(update={"urdf": urdf}))


def test_needless_pairs_are_those_that_never_overlap():
    pairs = needless_pairs(PANDA, samples=300)
    assert ("panda_link0", "panda_link2") in pairs
    assert set(pairs) >= set(PANDA.collision.never_touch) - {("panda_link5", "panda_link7")}


def test_the_pruned_check_is_within_a_millisecond_or_a_third_of_the_full_one():
    """Hulls of the pairs that can touch; DESIGN measured 6 ms for all meshes of the Panda."""
    everything = PANDA.model_copy(update={"collision": Collision(keep_out=PANDA.collision.keep_out)})
    pruned, full = PANDA_BODIES, Bodies(everything)
    assert len(pruned.pairs) < len(full.pairs)
    rng = np.random.default_rng(0)
    postures = rng.uniform(PANDA.position_lower, PANDA.position_upper, (200, 7))

    def ms(bodies: Bodies) -> float:
        return min(_ms_for(bodies, postures) for _ in range(5))

    assert ms(pruned) < max(1.0, 0.33 * ms(full))


def _ms_for(bodies: Bodies, postures: np.ndarray) -> float:
    start = time.perf_counter()
    for q in postures:
        bodies.distances(q)
    return 1e3 * (time.perf_counter() - start) / len(postures)


# The gate


def test_a_command_onto_a_collision_course_is_refused_naming_both_and_stops_the_arm():
    tool = Kinematics(PANDA).tool_position(PANDA.home)
    low = tool + [0.05, -0.1, -0.2]
    arm = armed(with_box(PANDA, low, low + [0.1, 0.2, 0.25]))
    arm.drive((0.005, 0.0, 0.0), 0.2)
    target = arm.command((0.02, 0.0, 0.0))
    further = replace(target, positions=arm.q + 3.0 * (target.positions - arm.q), duration_s=0.5)
    verdict = arm.send(further)
    assert (verdict.accepted, verdict.reason) == (False, Reason.COLLISION)
    gap_mm = round(1e3 * Bodies(arm.robot).nearest(further.positions).distance)
    assert verdict.text == f"the target brings peg within {gap_mm} mm of post"
    assert arm.seconds_until_rest() <= 0.08 + 1e-9
    assert arm.gate.status.state is SafetyState.STOPPED
    assert arm.gate.status.counts == {Reason.COLLISION: 1}


def test_towards_a_box_the_arm_slows_from_2_cm_on_and_rests_before_the_margin():
    tool = Kinematics(PANDA).tool_position(PANDA.home)
    low = tool + [0.05, -0.1, -0.2]
    robot = with_box(PANDA, low, low + [0.1, 0.2, 0.25])
    arm, bodies = armed(robot), Bodies(robot)
    speeds, gaps, shares = [], [], []
    for _ in range(60):
        command = arm.command((0.02, 0.0, 0.0))
        ahead = bodies.nearest(command.positions).distance
        if ahead < robot.collision.margin:  # a commander that knows where to stop
            way = 0.9 * (bodies.nearest(arm.q).distance - robot.collision.margin) / 0.02
            command = replace(command, positions=arm.q + min(way, 1.0) * (command.positions - arm.q))
        arm.send(command)
        arm.run(0.07)
        speeds.append(float(np.abs(arm.setpoints[-1].velocities).max()))
        gaps.append(bodies.nearest(arm.q).distance)
        shares.append(arm.gate.status.speed_share)
    assert min(gaps) >= robot.collision.margin - 3e-4
    assert min(gaps) < 0.012
    assert speeds[-1] < 0.2 * max(speeds)
    assert min(shares) < 0.3 and max(shares) == 1.0
    assert arm.gate.status.stops == 0
    arm.send(arm.command((-0.02, 0.0, 0.0)))
    before = arm.tool[0]
    arm.run(0.08)
    assert before - arm.tool[0] > 0.008, "away from it, the arm is not slowed"
    assert arm.gate.status.speed_share == 1.0


def within_the_margin() -> tuple[GatedArm, Bodies, float]:
    """An arm that starts nearer to a box than it may come, the bodies, and how near in metres."""
    low = Kinematics(PANDA).tool_position(PANDA.home) + [0.014, -0.1, -0.2]
    robot = with_box(PANDA, low, low + [0.1, 0.2, 0.25])
    arm, bodies = armed(robot), Bodies(robot)
    gap = bodies.nearest(arm.q).distance
    assert gap < robot.collision.margin
    return arm, bodies, gap


def test_an_arm_that_starts_within_the_margin_may_leave_but_come_no_nearer():
    arm, bodies, gap = within_the_margin()
    nearer = arm.command((0.01, 0.0, 0.0))
    assert arm.send(arm.command((-0.02, 0.0, 0.0))).accepted
    arm.run(0.1)
    assert bodies.nearest(arm.q).distance > gap + 0.005
    assert arm.send(nearer).reason is Reason.COLLISION


def test_an_arm_that_has_left_a_body_a_little_may_not_come_back_to_where_it_was():
    arm, bodies, gap = within_the_margin()
    away = arm.command((-0.001, 0.0, 0.0))
    assert arm.send(replace(away, velocities=np.zeros(7))).accepted
    arm.run(0.2)
    left = bodies.nearest(arm.q).distance
    assert gap + 0.0005 < left < arm.robot.collision.margin
    assert arm.send(arm.command((0.0003, 0.0, 0.0))).reason is Reason.COLLISION


def test_a_slow_down_beside_a_box_is_counted_once_until_the_arm_moves_freely_again():
    tool = Kinematics(PANDA).tool_position(PANDA.home)
    low = tool + [0.03, -0.1, -0.2]
    robot = with_box(PANDA, low, low + [0.1, 0.2, 0.25])
    kinematics = Kinematics(robot)
    arm = GatedArm(SafetyGate(robot, kinematics), kinematics)
    arm.gate.observe(arm.state, 0.0)
    for way, times in (((0.005, 0.0, 0.0), 1), ((-0.005, 0.0, 0.0), 1), ((0.005, 0.0, 0.0), 2)):
        assert arm.send(arm.command(way)).accepted
        arm.run(0.05)
        assert arm.gate.status.counts == {Reason.NEAR_COLLISION: times}


def test_what_is_inside_a_link_overlaps_it():
    """A shell of triangles would be clear of what it encloses."""
    inside = Kinematics(PANDA).joint_origins(PANDA.home)[6]
    robot = with_box(PANDA, inside - 0.005, inside + 0.005)
    bodies = Bodies(robot)
    link = bodies.pairs.index(("panda_link6", "post"))
    assert bodies.distances(robot.home)[link] < -0.01


def test_a_box_is_kept_clear_of_by_all_that_moves():
    low = np.array([0.5, 0.4, 0.0])
    pairs = Bodies(with_box(PANDA, low, low + 0.1)).pairs
    links = {*(f"panda_link{i}" for i in range(1, 8)), "peg"}
    assert {first for first, second in pairs if second == "post"} == links
