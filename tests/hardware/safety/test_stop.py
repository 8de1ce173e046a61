"""A stop ends in rest, on time, within acceleration and jerk on the whole way, whatever was before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.safety.stop import Stop, braking_times

A, J = np.array([10.0, 20.0, 5.0]), np.array([500.0, 3000.0, 400.0])
speeds = st.one_of(st.floats(-1.0, 1.0), st.just(0.0), st.floats(-0.01, 0.01))
shares = st.one_of(st.floats(-1.0, 1.0), st.sampled_from([0.0, 1.0, -1.0]))
three = lambda values: st.tuples(values, values, values).map(np.array)  # noqa: E731


def stop(v, a) -> Stop:
    return Stop(np.array([0.1, -0.2, 0.3]), np.asarray(v, float), np.asarray(a, float), A, J)


@given(three(speeds), three(shares))
def test_a_stop_keeps_acceleration_jerk_speed_and_reach_and_ends_at_rest(v, share):
    way = stop(v, share * A)
    times = np.linspace(0.0, way.duration_s * 1.02 + 1e-6, 300)
    q, h = np.array([way.position_at(time) for time in times]), times[1]
    velocity = np.diff(q, axis=0) / h
    acceleration = np.diff(velocity, axis=0) / h
    noise = 1e-15 / h**2
    assert (np.abs(acceleration) <= A * (1 + 1e-6) + noise).all()
    assert (np.abs(np.diff(acceleration, axis=0)) / h <= J * (1 + 1e-6) + 4 * noise / h).all()
    np.testing.assert_allclose(velocity[0], v + 0.5 * h * share * A, atol=J.max() * h * h + 1e-15 / h)
    assert (np.abs(velocity) <= way.fastest + 1e-12 + 1e-15 / h).all()
    low, high = way.reach()
    assert (q >= low - 1e-12).all() and (q <= high + 1e-12).all()
    np.testing.assert_array_equal(q[0], [0.1, -0.2, 0.3])
    np.testing.assert_array_equal(q[-1], way.rest)
    np.testing.assert_array_equal(way.position_at(way.duration_s), way.rest)


@given(three(speeds))
def test_without_acceleration_a_stop_is_straight_and_the_quickest_that_is(v):
    way = stop(v, np.zeros(3))
    # A full length f less a ramp r: at least one of v/f = A, v/(f r) = J and r = f holds, on the worst joint.
    full_s, ramp_s = braking_times(v, A, J)
    assert way.duration_s == full_s + ramp_s
    if np.abs(v).max() > 1e-100:  # squares of less are rounded to nothing
        assert max((np.abs(v) / A).max() / full_s, ramp_s / full_s) == pytest.approx(1.0)
        assert (np.abs(v) / J).max() / (full_s * ramp_s) == pytest.approx(1.0)
        for share in (0.2, 0.5, 0.9):
            gone = way.position_at(share * way.duration_s) - way.position_at(0.0)
            np.testing.assert_allclose(np.cross(gone, v), 0.0, atol=1e-15)


def test_the_lengths_of_stops_are_those_of_their_formulas():
    assert braking_times(np.zeros(3), A, J) == (0.0, 0.0)
    assert braking_times(np.array([1.0, 0.0, 0.0]), A, J) == pytest.approx((0.1, 0.02))  # v/A, then A/J
    assert braking_times(np.array([0.05, 0.0, 0.0]), A, J) == pytest.approx((0.01, 0.01))  # twice √(v/J)
    one = stop([1.0, 0.0, 0.0], [10.0, 0.0, 0.0])  # 20 ms to none, at 1.1 rad/s; then 110 + 20 ms
    assert one.duration_s == pytest.approx(0.15)
    np.testing.assert_allclose(one.rest[0], 0.1 + (0.02 + 10 * 0.02**2 / 3) + 0.5 * 0.13 * 1.1)
    np.testing.assert_allclose(one.fastest, [1.1, 0.0, 0.0])
    np.testing.assert_allclose(one.reach()[1], one.rest)
    slow = stop([0.1, 0.0, 0.0], [1.0, 0.0, 0.0])
    np.testing.assert_array_equal(slow.reach()[1], slow.rest)


def test_a_joint_that_brakes_too_hard_turns_and_its_reach_says_so():
    low, high = stop([0.01, 0.0, 0.0], [-10.0, 0.0, 0.0]).reach()
    assert high[0] == pytest.approx(0.1 + 0.01 * 0.02)
    assert low[0] < 0.1 - 1e-4
    np.testing.assert_array_equal(high[1:], [-0.2, 0.3])
    low, high = stop([-0.01, 0.0, 0.0], [10.0, 0.0, 0.0]).reach()
    assert low[0] == pytest.approx(0.1 - 0.01 * 0.02)


def test_a_stop_at_rest_takes_no_time():
    way = stop(np.zeros(3), np.zeros(3))
    assert way.duration_s == 0.0
    np.testing.assert_array_equal(way.position_at(0.0), way.rest)
