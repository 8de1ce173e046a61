"""Taking hold of an arm's joints where they are: what an arm of bus servos does before anything can move."""

from __future__ import annotations

from hardware.arm.config import ArmConfig
from hardware.arm.goals import goal_at
from hardware.arm.monitor import Fault
from hardware.arm.servo_bus import BusError, Goal, Reading, ServoBus
from hardware.errors import ArmError

# How far outside its limits a joint may be found: a little past them is an arm that lies on its stops, more
# is a wrong calibration.
CONNECT_TOLERANCE_RAD = 0.2
CONNECT_READS, STILL_TICKS = 10, 10


def check_servos(bus: ServoBus, config: ArmConfig, port: str) -> None:
    """Every servo of the arm file answers on `port`, is the model that it should be, and is prepared.

    Raises `ArmError` naming the servo that is not.
    """
    for servo in config.servos:
        try:
            model = bus.model_of(servo.id)
        except BusError as error:
            raise ArmError(
                f"{servo.label} does not answer on {port} at {config.baud} baud ({error}): "
                "check its cable, the power supply and its id: "
                f"`jepa-arm scan --bus {config.bus} --port {port}`"
            ) from error
        expected = bus.model_numbers()[servo.model]
        if model != expected:
            raise ArmError(
                f"{servo.label} says it is model {model}, not {servo.model} ({expected}): "
                "correct its model in the arm file"
            )
        bus.prepare(servo.id)


def take_hold(bus: ServoBus, config: ArmConfig, watchdog_s: float) -> dict[int, Goal]:
    """Torque on where the joints are measured, and the servos' own watchdog; the goals that they were sent.

    Raises `ArmError` for a joint far outside its limits, a servo with an alarm, or an arm that moves.
    """
    readings = agreed_readings(bus, config.ids)
    for servo in config.servos:
        reading = readings[servo.id]
        position = servo.position(reading.ticks)
        outside = max(servo.lower - position, position - servo.upper)
        if outside > CONNECT_TOLERANCE_RAD:
            raise ArmError(
                f"{servo.label} is measured at {position:.2f} rad, outside {servo.lower:g} to "
                f"{servo.upper:g}: move it inside by hand, or run `jepa-arm calibrate arm`"
            )
        if reading.alarms:
            raise ArmError(str(Fault(reading.alarms[0], servo.id, servo.joint, "found at connect")))
    bus.set_watchdog(config.ids, 0.0)
    here = {servo.id: goal_at(servo, readings[servo.id].ticks, servo.velocity) for servo in config.servos}
    bus.write_goals(here)
    bus.torque_on(config.ids)
    # Where torque takes a goal of its own, and for what the first write may have missed.
    bus.write_goals(here)
    bus.set_watchdog(config.ids, watchdog_s)
    return here


def agreed_readings(bus: ServoBus, ids: tuple[int, ...]) -> dict[int, Reading]:
    """Readings whose positions the ones before agree with: nothing else says that they can be true."""
    before: dict[int, Reading] = {}
    for attempt in range(CONNECT_READS):
        try:
            readings = bus.read(ids)
        except BusError:
            if attempt == CONNECT_READS - 1:
                raise
            continue
        if before and all(abs(readings[i].ticks - before[i].ticks) <= STILL_TICKS for i in readings):
            return readings
        before = readings
    raise ArmError("the servos' positions change from reading to reading: hold the arm still, then connect")
