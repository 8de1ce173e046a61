"""The command that the arm follows, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

from hardware.safety.command import Target

# A command of 0.1 s is followed for twelve ticks at 120 Hz, whatever the sum of their lengths rounds to.
CLOCK_ROUNDING_S = 1e-6


@dataclass
class Followed:
    """An accepted command. Times are the gate's own, in seconds.

    It came at `since_s`, with an image that was `image_age_s` old then, and counts for `lifetime_s`. `paused`
    says that it has run out and no other has come, `image_refused` that one came whose image was too old.
    """

    target: Target
    since_s: float
    image_age_s: float
    lifetime_s: float
    paused: bool = False
    image_refused: bool = False

    def silent_s(self, clock_s: float) -> float:
        """How long ago it came."""
        return clock_s - self.since_s

    def is_live(self, clock_s: float) -> bool:
        return self.silent_s(clock_s) <= self.lifetime_s + CLOCK_ROUNDING_S

    def left_s(self, clock_s: float) -> float:
        """How much of its time is left to get there."""
        return self.target.duration_s - self.silent_s(clock_s)

    def image_is_old_s(self, clock_s: float) -> float:
        """How old its image is by now."""
        return self.image_age_s + self.silent_s(clock_s)
