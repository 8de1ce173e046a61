"""How long a word of caution stays in force: raised at once, lowered only by calm that lasts."""

from __future__ import annotations

from hardware.safety.status import Caution, GateConfig


class CautionInForce:
    """The highest level of `Caution` of late. Times are the gate's own, in seconds."""

    def __init__(self, config: GateConfig) -> None:
        self._config = config
        self._said = 0.0  # when the last word came
        self.slows = self.holds = 0
        self.clear()

    def clear(self) -> None:
        self.level = Caution.CALM
        self._lower_since: float
        self._lower: Caution | None = None  # the highest of the lower levels that came since `_lower_since`

    def say(self, level: Caution, clock_s: float) -> None:
        """Take the newest level. One that nobody renews stays: silence is no calm."""
        silent_s, self._said = clock_s - self._said, clock_s
        if level >= self.level:
            self.slows += self.level < level is Caution.SLOW
            self.holds += self.level < level is Caution.HOLD
            self.level, self._lower = level, None
        elif self._lower is None or silent_s > self._config.caution_timeout_s:
            self._lower, self._lower_since = level, clock_s
        else:
            self._lower = max(self._lower, level)
            if clock_s - self._lower_since >= self._config.calm_after_s:
                self.level, self._lower = self._lower, None

    @property
    def speed_share(self) -> float:
        """What is left of the commanded speed."""
        shares = {Caution.CALM: 1.0, Caution.SLOW: self._config.slow_share}
        return shares.get(self.level, 0.0)
