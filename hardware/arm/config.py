"""The arm file: which servos move which joints, loaded from `arms/NAME.yaml`.

    config = load_arm_config("so101-feetech")

It belongs to one arm on one desk: `jepa-arm calibrate arm` writes it. Whatever cannot work is refused here,
with the file and the key in the message, before anything moves.
"""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hardware.errors import ArmError
from hardware.robot import Robot
from hardware.yaml_file import first_problem, read_yaml

ARMS_DIR = Path(__file__).parent / "arms"
# A file with every key.
SHOWS_ALL = "arms/so101-feetech.yaml"
TICKS_PER_TURN = 4096  # STS3215 and every Dynamixel X

Number = Annotated[float, Field(strict=True)]
Positive = Annotated[float, Field(strict=True, gt=0.0)]
Seconds = Annotated[float, Field(strict=True, ge=0.02, le=1.0)]
Name = Annotated[str, Field(min_length=1)]
BusName = Literal["feetech", "dynamixel"]

MODELS: dict[str, tuple[str, ...]] = {
    "feetech": ("sts3215",),
    "dynamixel": ("xl430-w250", "xl330-m077", "xl330-m288", "xm430-w350", "xm540-w270"),
}


class _Section(BaseModel):
    """A part of the arm file: unknown keys, NaN and infinity are errors; nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ServoConfig(_Section):
    """One servo and its joint. Limits are the joint's, in rad, rad/s and rad/s².

    `zero_ticks` is what the servo reads where the joint is at 0; `direction` is -1 where its ticks grow as
    the joint turns back; `gear_ratio` is how many turns of the servo make one of the joint.
    """

    id: Annotated[int, Field(strict=True, ge=0, le=252)]
    joint: Name
    model: Name
    zero_ticks: Annotated[int, Field(strict=True)]
    direction: Literal[1, -1] = 1
    gear_ratio: Positive = 1.0
    lower: Number
    upper: Number
    velocity: Positive
    acceleration: Positive
    max_current_ma: Positive
    max_temperature_c: Annotated[float, Field(strict=True, gt=0.0, le=80.0)] = 60.0

    @model_validator(mode="after")
    def _limits_in_order(self) -> ServoConfig:
        if self.lower >= self.upper:
            raise ValueError(
                f"{self.joint}: lower limit {self.lower:g} is not below upper limit {self.upper:g}; swap them"
            )
        reached = sorted(self.ticks(limit) for limit in (self.lower, self.upper))
        if reached[0] < 0 or reached[1] >= TICKS_PER_TURN:
            raise ValueError(
                f"{self.joint}: its limits are ticks {reached[0]} to {reached[1]}, but servo {self.id} "
                f"counts 0 to {TICKS_PER_TURN - 1} in a turn; turn its horn, or run `jepa-arm calibrate arm`"
            )
        return self

    @property
    def ticks_per_rad(self) -> float:
        """Signed."""
        return self.direction * self.gear_ratio * TICKS_PER_TURN / (2 * math.pi)

    def ticks(self, position: float) -> int:
        """What the servo reads where the joint is at `position` rad."""
        return self.zero_ticks + round(position * self.ticks_per_rad)

    def position(self, ticks: float) -> float:
        """Where the joint is, in rad, when the servo reads `ticks`."""
        return (ticks - self.zero_ticks) / self.ticks_per_rad

    @property
    def label(self) -> str:
        return f"servo {self.id} ({self.joint})"


class ArmConfig(_Section):
    """An arm on a servo bus.

    `on_fault` says what the servos that still listen do after a fault: `hold` brakes and holds the measured
    position, `torque_off` lets go (for an arm that is safe when limp, and hurts when it pushes).
    `on_disconnect` says the same of a normal end. `max_silence_s` is how long readings may be missing, and
    `max_lead` how far (rad) a goal may be ahead of the measured joint: as far as it goes if everything dies.
    """

    robot: Name
    bus: BusName
    port: Name
    baud: Annotated[int, Field(strict=True, gt=0)] = 1_000_000
    rate_hz: Annotated[float, Field(strict=True, ge=20.0, le=500.0)] = 100.0
    on_fault: Literal["hold", "torque_off"] = "hold"
    on_disconnect: Literal["hold", "torque_off"] = "hold"
    command_timeout_s: Seconds = 0.1
    max_silence_s: Seconds = 0.05
    max_lead: Annotated[float, Field(strict=True, gt=0.0, le=1.0)] = 0.2
    servos: Annotated[tuple[ServoConfig, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _servos_differ(self) -> ArmConfig:
        for field in ("id", "joint"):
            values = [getattr(servo, field) for servo in self.servos]
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise ValueError(f"two servos have the {field} {twice}; each needs its own")
        for servo in self.servos:
            if servo.model not in MODELS[self.bus]:
                known = ", ".join(MODELS[self.bus])
                raise ValueError(f"{servo.joint}: no {self.bus} servo {servo.model!r}; known: {known}")
        return self

    @cached_property
    def joint_names(self) -> tuple[str, ...]:
        return tuple(servo.joint for servo in self.servos)

    @cached_property
    def ids(self) -> tuple[int, ...]:
        return tuple(servo.id for servo in self.servos)

    def check_fits(self, robot: Robot) -> None:
        """Raise `ArmError` unless the arm drives exactly the robot's joints, within the robot's limits."""
        if sorted(self.joint_names) != sorted(robot.joint_names):
            raise ArmError(
                f"the arm file drives joints {', '.join(self.joint_names)}; robot {robot.name} has "
                f"{', '.join(robot.joint_names)}: take the arm file of that robot"
            )
        limits = {joint.name: joint for joint in robot.joints}
        for servo in self.servos:
            joint = limits[servo.joint]
            if servo.lower < joint.lower - 1e-9 or servo.upper > joint.upper + 1e-9:
                raise ArmError(
                    f"{servo.label}: limits {servo.lower:g} to {servo.upper:g} are wider than "
                    f"{joint.lower:g} to {joint.upper:g} in robot {robot.name}; narrow them in the arm file"
                )


def load_arm_config(name_or_path: str | Path) -> ArmConfig:
    """The arm of `arms/NAME.yaml`, or of the given .yaml file. Raises `ArmError` if it does not fit."""
    path = _arm_path(name_or_path)
    content = read_yaml(path, ArmError)
    return checked_arm_config(content, str(path))


def checked_arm_config(content: Any, where: str) -> ArmConfig:
    """The arm that `content` describes. Raises `ArmError`, beginning with `where`, if it does not fit."""
    if not isinstance(content, dict):
        raise ArmError(f"{where}: holds no arm; expected keys robot, bus, port, servos, ...")
    try:
        return ArmConfig.model_validate(content)
    except ValidationError as error:
        raise ArmError(f"{where}: {first_problem(error, 'arms/so101-feetech.yaml')}") from error


def write_arm_config(config: ArmConfig, path: Path, header: str) -> None:
    """Write `config` to `path`, whole or not at all; `header` becomes its first line, a comment."""
    content = config.model_dump()
    servos = content.pop("servos")
    lines = [f"# {header}", yaml.safe_dump(content, sort_keys=False).rstrip(), "servos:"]
    lines += [
        "  - " + yaml.safe_dump(servo, sort_keys=False, default_flow_style=True, width=10_000).strip()
        for servo in servos
    ]
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")
    unfinished.replace(path)


def arm_names() -> tuple[str, ...]:
    """The arm files that come with jepa-arm."""
    return tuple(sorted(path.stem for path in ARMS_DIR.glob("*.yaml")))


def arm_config_for(arm: str, robot: Robot) -> ArmConfig:
    """The arm file of `robot` on the bus `arm`, or the file that `arm` names. Raises `ArmError`."""
    config = load_arm_config(arm_file(robot.name, arm) if arm in MODELS else arm)
    config.check_fits(robot)
    return config


def arm_file(robot: str, bus: str) -> Path:
    """The arm file of `robot` on `bus`; of the bus's only arm where no robot is named. Raises `ArmError`."""
    names = [
        name for name in arm_names() if name.endswith(f"-{bus}") and robot in ("", name[: -len(bus) - 1])
    ]
    if len(names) != 1:
        known = ", ".join(arm_names())
        raise ArmError(
            f"no arm file for robot {robot!r} on bus {bus}; there are {known}; "
            f"write one beside them in {ARMS_DIR}"
        )
    return ARMS_DIR / f"{names[0]}.yaml"


def _arm_path(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml") and len(path.parts) == 1:
        path = ARMS_DIR / f"{name_or_path}.yaml"
    if not path.is_file():
        known = ", ".join(arm_names())
        raise ArmError(f"{name_or_path}: no such arm file; give its path, or one of {known}")
    return path.resolve()
