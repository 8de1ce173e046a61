"""The tool moved by keys of the terminal: as long as a key repeats, it goes on."""

from __future__ import annotations

from hardware.arm.contract import JointCommand, JointState
from hardware.robot import Robot
from hardware.teleop.contract import ToolMotion, direction

# x is away from the arm's base, y to its left, z up.
MOTIONS = {
    "up": (0, 1),
    "down": (0, -1),
    "left": (1, 1),
    "right": (1, -1),
    "w": (2, 1),
    "s": (2, -1),
}
GRIPS = {"o": 1, "c": -1}
# A terminal tells no release. A key counts for this long; held, it repeats sooner, after a first pause.
HELD_S = 0.15
# The gripper opens or closes in about this time.
GRIP_S = 1.5


class Keyboard:
    help = "arrows: away, back, left, right; w, s: up, down; o, c: open, close"

    def __init__(self, robot: Robot, motion: ToolMotion, speed_m_s: float) -> None:
        self._motion, self._speed_m_s = motion, speed_m_s
        gripper = robot.gripper
        self._grip_speed = 0.0 if gripper is None else (gripper.open - gripper.closed) / GRIP_S
        self._pressed_s: dict[str, float] = {}

    def press(self, key: str, now_s: float) -> None:
        if key in MOTIONS or key in GRIPS:
            self._pressed_s[key] = now_s

    def command(self, state: JointState, now_s: float) -> JointCommand | None:
        held = [key for key, at_s in self._pressed_s.items() if now_s - at_s < HELD_S]
        velocity = self._speed_m_s * direction((key for key in held if key in MOTIONS), MOTIONS)
        grip = self._grip_speed * sum(GRIPS[key] for key in held if key in GRIPS)
        return self._motion.command(state, now_s, velocity, grip)

    def close(self) -> None:
        pass
