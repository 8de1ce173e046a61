"""Floods of commands, and what a gate says about everything that happened to it."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from dataclasses import replace as changed

import numpy as np
import pytest

from hardware.safety.command import RateLimit, read_command
from hardware.safety.status import GateConfig, Reason, SafetyState, Verdict

AHEAD = (0.02, 0.0, 0.0)


def test_a_flood_of_commands_stops_the_arm(arm):
    arm.drive(AHEAD, 0.3)
    verdicts = [arm.send(arm.command(AHEAD)) for _ in range(40)]
    assert [verdict.accepted for verdict in verdicts] == [True] * 19 + [False] * 21
    assert verdicts[19].reason is Reason.COMMAND_RATE
    assert verdicts[19].text == "more than 200 commands a second"
    assert arm.seconds_until_rest() <= 0.08 + 1e-9
    status = arm.gate.status
    assert (status.state, status.reason) == (SafetyState.STOPPED, Reason.COMMAND_RATE)
    assert (status.commands_refused, status.stops) == (21, 1)


def test_commands_at_any_planners_rate_are_no_flood(arm):
    for _ in range(150):
        arm.run(0.01)
        assert arm.send(
            arm.command((0.0, 0.01, 0.0) if arm.now_s % 0.4 < 0.2 else (0.0, -0.01, 0.0))
        ).accepted


def test_the_rate_counts_from_a_full_tenth_of_a_second():
    rate = RateLimit(100.0)
    assert [rate.allows(5.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert [rate.allows(5.025), rate.allows(5.025), rate.allows(5.025)] == [True, True, False]
    assert sum(rate.allows(9.0) for _ in range(30)) == 10
    slow = RateLimit(2.0)
    assert [slow.allows(0.0), slow.allows(0.4), slow.allows(0.9)] == [True, False, True]


def test_every_reason_is_counted_for_what_it_refused_and_stopped(arm):
    assert arm.gate.status.counts == {}
    arm.send(arm.command(AHEAD), image_age_s=9.0)
    arm.send(arm.command(AHEAD), image_age_s=9.0)
    arm.send(changed(arm.command(AHEAD), positions=np.full(7, np.nan)))
    arm.send(arm.command(AHEAD))
    arm.run(0.1)
    arm.gate.reset(arm.now_s)
    arm.gate.stop(arm.now_s)
    arm.gate.stop(arm.now_s)
    counts = arm.gate.status.counts
    assert counts == {Reason.IMAGE_STALE: 2, Reason.NOT_FINITE: 2, Reason.OPERATOR_STOP: 1}
    assert sum(counts.values()) == 5
    counts[Reason.NONE] = 7
    assert Reason.NONE not in arm.gate.status.counts, "a status is a snapshot"


def test_every_reason_has_its_own_code_and_a_text():
    assert len({reason.value for reason in Reason}) == len(Reason)
    assert all(reason.text for reason in Reason if reason is not Reason.NONE)
    assert Reason("command_stale") is Reason.COMMAND_STALE


FAULTS = {
    "no commands": (lambda arm: None, Reason.COMMAND_STALE, True),
    "stale image stamps": (lambda arm: arm.send(arm.command(AHEAD), 9.0), Reason.IMAGE_STALE, True),
    "NaN": (
        lambda arm: arm.send(changed(arm.command(AHEAD), positions=np.full(7, np.nan))),
        Reason.NOT_FINITE,
        False,
    ),
    "limit": (
        lambda arm: arm.send(changed(arm.command(AHEAD), positions=np.full(7, 9.0))),
        Reason.POSITION_LIMIT,
        False,
    ),
    "jump": (
        lambda arm: arm.send(changed(arm.command(AHEAD), positions=arm.q + 0.3)),
        Reason.DISCONTINUITY,
        False,
    ),
    "collision course": (
        lambda arm: arm.send(changed(arm.command(AHEAD), positions=folded(arm), duration_s=9.0)),
        Reason.COLLISION,
        False,
    ),
    "second commander": (
        lambda arm: arm.send(arm.command(AHEAD), source="another"),
        Reason.SECOND_SOURCE,
        False,
    ),
    "servo lost": (lambda arm: setattr(arm, "reports", False), Reason.STATE_STALE, True),
    "flood": (lambda arm: [arm.send(arm.command(AHEAD)) for _ in range(50)], Reason.COMMAND_RATE, False),
}


def folded(arm) -> np.ndarray:
    """The tool where it is, the arm behind it folded through its own base."""
    q = arm.q.copy()
    q[1], q[3], q[5] = 1.26, -2.97, 2.74
    return q


@pytest.mark.parametrize("fault", FAULTS)
def test_from_every_fault_to_rest_it_takes_no_more_than_200_ms(make_arm, fault):
    happens, reason, silently = FAULTS[fault]
    arm = make_arm(workspace_tolerance_m=9.0)
    arm.drive((0.0, 0.02, 0.0), 0.5)
    happens(arm)
    assert arm.seconds_until_rest() <= (0.2 if silently else 0.08) + 1e-9
    arm.run(0.3)
    assert (arm.gate.status.state, arm.gate.status.reason) == (SafetyState.STOPPED, reason)


def test_states_have_the_numbers_that_they_have_in_messages():
    assert {state.name: int(state) for state in SafetyState} == {
        "IDLE": 0,
        "ACTIVE": 1,
        "STOPPING": 2,
        "STOPPED": 3,
    }


def test_what_a_gate_says_and_what_it_was_told_cannot_be_changed_afterwards(arm):
    target = read_command(arm.command(AHEAD), arm.robot)
    for said in (arm.gate.status, Verdict(True), GateConfig(), target):
        with pytest.raises(FrozenInstanceError):
            setattr(said, next(iter(vars(said))), None)
