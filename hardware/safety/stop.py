"""A stop: the way from any motion to rest, within acceleration and jerk limits, all joints alike.

First every acceleration is brought to none in one common time; then all velocities go to zero along one
common curve (jerk, constant deceleration, jerk), so that the tool keeps its direction. For an arm that does
not accelerate this is the quickest such stop; one that does loses at most the time that its jerk limit needs.

A library that plans any jerk-limited motion, ruckig 0.19, was tried first. It has no wheels for aarch64, its
`position_extrema` were wrong for stops that turn back, and it had no answer for some states that occur; the
formulas below need none of that.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Stop:
    """From positions `q` (J,) rad, velocities `v` and accelerations `a` to rest, beginning at time zero."""

    def __init__(self, q: Array, v: Array, a: Array, acceleration_limits: Array, jerk_limits: Array) -> None:
        self._q, self._v, self._a = q, v, a
        self._easing_s = float((np.abs(a) / jerk_limits).max())
        self._eased = v + 0.5 * self._easing_s * a
        self._eased_q = q + self._easing_s * (v + self._easing_s * a / 3.0)
        self._full_s, self._ramp_s = braking_times(self._eased, acceleration_limits, jerk_limits)
        self.duration_s = self._easing_s + self._full_s + self._ramp_s
        self.rest = self._eased_q + 0.5 * (self._full_s + self._ramp_s) * self._eased

    def position_at(self, time_s: float) -> Array:
        """Positions (J,) at `time_s`; from `duration_s` on, exactly those of rest."""
        if time_s >= self.duration_s:
            return self.rest
        if time_s < self._easing_s:
            gained = time_s * self._a * (0.5 - time_s / (6.0 * self._easing_s))
            return self._q + time_s * (self._v + gained)
        return self._eased_q + self._braking_way(time_s - self._easing_s) * self._eased

    def reach(self) -> tuple[Array, Array]:
        """The lowest and highest positions (J,) on the way: its ends, or a little beyond where joints turn.

        A joint turns if its acceleration would carry it through a standstill before it is brought to none. By
        then it has gone no further than at its first velocity.
        """
        turns = np.signbit(self._v) != np.signbit(self._eased)
        beyond = np.where(turns, np.abs(self._v) * self._easing_s, 0.0)
        return np.minimum(self._q, self.rest) - beyond, np.maximum(self._q, self.rest) + beyond

    @property
    def fastest(self) -> Array:
        """(J,): the highest speeds on the way."""
        return np.maximum(np.abs(self._v), np.abs(self._eased))

    def _braking_way(self, time_s: float) -> float:
        """The integral, at `time_s`, of the braking curve: from one to zero in full + ramp seconds."""
        full_s, ramp_s = self._full_s, self._ramp_s
        if time_s < ramp_s:
            return time_s - time_s**3 / (6.0 * ramp_s * full_s)
        if time_s < full_s:
            return time_s - ((time_s - 0.5 * ramp_s) ** 2 + ramp_s**2 / 12.0) / (2.0 * full_s)
        left_s = full_s + ramp_s - time_s
        return 0.5 * (full_s + ramp_s) - left_s**3 / (6.0 * ramp_s * full_s)


def braking_times(velocities: Array, acceleration_limits: Array, jerk_limits: Array) -> tuple[float, float]:
    """How long all `velocities` (J,) take to zero along one curve: its full length less its ramp, and a ramp.

    With f the first and r the second, accelerations rise to v/f in r: v/f ≤ A, v/(f r) ≤ J and r ≤ f.
    """
    full_s = float((np.abs(velocities) / acceleration_limits).max())
    jerked = float((np.abs(velocities) / jerk_limits).max())
    full_s = max(full_s, math.sqrt(jerked))
    return full_s, jerked / full_s if full_s > 0.0 else 0.0
