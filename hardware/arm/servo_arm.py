"""An arm of bus servos behind the `Arm` contract.

    arm = ServoArm(load_arm_config("so101-feetech"), port="/dev/ttyACM0")

A control loop reads every servo at `rate_hz` and judges what it reads; `command` sends goals at once. The
servos are stopped when commands cease, when a servo or the port is lost, and for every fault of
`monitor.FAULTS`. A fault is kept: `state` and `command` raise it until the arm is connected again.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hardware.arm.config import ArmConfig
from hardware.arm.contract import JointCommand, JointState
from hardware.arm.goals import goal_at, resting_goal
from hardware.arm.monitor import Fault, Monitor
from hardware.arm.servo_bus import BusError, Goal, PortGone, Reading, ServoBus, make_bus
from hardware.arm.taking_hold import agreed_readings, check_servos, take_hold
from hardware.control_loop import ANY_CORE, ControlLoop, LoopTiming
from hardware.errors import ArmError

# A servo's own watchdog waits longer than ours, so that ours, which brakes gently, comes first.
SERVO_WATCHDOG_SHARE = 1.5
# A stop is written again with every reading for so long: nothing acknowledges a sync write.
REPEAT_STOP_S = 0.3
# The arm has been stopped before it is asked who is missing: there is time for answers as late as this.
LATEST_ANSWER_S = 0.1
# Servos that are not to be written to after their fault: one is gone, the other has forgotten its limits.
LEFT_ALONE = ("servo_lost", "servo_reset")
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """One trusted reading of every servo, and when it began: on the steady clock, and time.time_ns()."""

    readings: Mapping[int, Reading]
    read_at_s: float
    stamp_ns: int


class ServoArm:
    def __init__(self, config: ArmConfig, port: str = "", core: int = ANY_CORE) -> None:
        self.config = config
        self.port = port or config.port
        self._servos = {servo.id: servo for servo in config.servos}
        self._by_joint = {servo.joint: servo for servo in config.servos}
        self._bus: ServoBus = make_bus(config.bus, {servo.id: servo.model for servo in config.servos})
        self._bus_lock = threading.RLock()
        self._servo_watchdog_s = SERVO_WATCHDOG_SHARE * config.command_timeout_s
        self._loop = ControlLoop("arm", config.rate_hz, self._step, core)
        self._reset()

    def _reset(self) -> None:
        self._monitor = Monitor(self.config)
        self._snapshot: Snapshot | None = None
        self._fault: Fault | None = None
        self._goals: dict[int, Goal] = {}
        self._driving = False
        self._commanded_at_s = self._stopped_at_s = 0.0
        self._counts: Counter[str] = Counter()
        self._mistrust = False
        self._cycled_at_s = self._bad_since_s = 0.0  # the last cycle; since when no reading was trusted

    # The contract

    @property
    def joint_names(self) -> tuple[str, ...]:
        return self.config.joint_names

    @property
    def fault(self) -> Fault | None:
        """Why the arm has been stopped, if it has."""
        return self._fault

    def connect(self) -> None:
        """Open the port, check every servo, and hold the joints where they are. Raises `ArmError`.

        Nothing moves. On an arm that is connected this starts anew, and so recovers from a fault.
        """
        self._loop.stop()
        self._bus.close()
        self._reset()
        self._bus.open(self.port, self.config.baud)
        try:
            check_servos(self._bus, self.config, self.port)
            self._goals = take_hold(self._bus, self.config, self._servo_watchdog_s)
            began_s = time.monotonic()
            self._accept(agreed_readings(self._bus, self.config.ids), began_s)
        except ArmError:
            self._bus.close()
            raise
        self._loop.start()

    def state(self) -> JointState:
        """The newest reading, never one older than `max_silence_s`. Raises `ArmError`."""
        snapshot = self._fresh()
        positions = [servo.position(snapshot.readings[servo.id].ticks) for servo in self.config.servos]
        velocities = [snapshot.readings[s.id].ticks_s / s.ticks_per_rad for s in self.config.servos]
        return JointState(self.joint_names, np.array(positions), np.array(velocities), snapshot.stamp_ns)

    def command(self, command: JointCommand) -> JointCommand:
        """Send the servos there, as fast as to arrive in `duration_s` at the joints' velocity at most.

        Returns what was sent: kept within the joint limits and within `max_lead` of the measured joints, in
        the servos' resolution, at rest at the end. Raises `ArmError`, and sends nothing, for a command that
        is not finite or not of these joints, and on an arm that is stopped by a fault or silent.
        """
        targets = self._targets(command)
        with self._bus_lock:
            snapshot = self._fresh()
            goals = {}
            for servo in self.config.servos:
                measured = servo.position(snapshot.readings[servo.id].ticks)
                lead = self.config.max_lead
                target = min(max(targets[servo.joint], measured - lead), measured + lead)
                speed = abs(target - measured) / command.duration_s
                goals[servo.id] = goal_at(servo, servo.ticks(target), speed)
            self._write(goals)
            self._commanded_at_s, self._driving = time.monotonic(), True
        sent = np.array(
            [self._by_joint[name].position(goals[self._by_joint[name].id].ticks) for name in command.names]
        )
        return JointCommand(command.names, sent, np.zeros_like(sent), command.duration_s, command.stamp_ns)

    def stop(self) -> None:
        """Brake within the acceleration limits and hold. An arm that is not connected stays as it is."""
        with self._bus_lock:
            if self._loop.running and self._fault is None:
                self._brake()

    def disconnect(self) -> None:
        self._disconnect(self.config.on_disconnect == "torque_off")

    def let_go(self) -> None:
        """Disconnect with the torque off, whatever the arm file says: for an arm that someone holds."""
        self._disconnect(torque_off=True)

    def _disconnect(self, torque_off: bool) -> None:
        if not self._loop.running:
            return
        self.stop()
        self._loop.stop()
        try:
            if self._fault is None and torque_off:
                self._bus.torque_off(self.config.ids)
            if self._fault is None:
                self._bus.set_watchdog(self.config.ids, 0.0)
        except ArmError as error:
            LOG.warning("while disconnecting: %s", error)
        self._bus.close()

    def diagnostics(self) -> dict[str, str]:
        """What a technician wants to see: faults, counts of bad transactions, and every servo's health."""
        values = {"fault": "" if self._fault is None else str(self._fault)}
        values.update(
            {key: str(self._counts[key]) for key in ("reads", "bad_reads", "untrusted_reads", "stops")}
        )
        if self._snapshot is not None:
            for servo in self.config.servos:
                reading = self._snapshot.readings[servo.id]
                values[f"{servo.joint} (servo {servo.id})"] = (
                    f"{reading.temperature_c:.0f} °C, {reading.voltage_v:.1f} V, {reading.current_ma:.0f} mA"
                )
        return values

    def timing(self) -> LoopTiming | None:
        """How well the thread keeps its time; None before it has run."""
        return self._loop.timing()

    # The thread

    def _step(self, late_s: float) -> None:
        """However late it is, `_cycle` looks at what that means for the arm."""
        with self._bus_lock:
            try:
                self._cycle()
            except Exception as error:  # whatever it is, the arm must not go on without its watchdog
                LOG.exception("in the arm's thread")
                self._fail(Fault("driver", 0, "", repr(error)))

    def _cycle(self) -> None:
        if self._fault is not None:
            return self._keep_stopped(self._fault)
        now_s = time.monotonic()
        if now_s - self._cycled_at_s > self._servo_watchdog_s:
            # This machine paused, and the servos' watchdogs have stopped them: the next commands go on.
            self._bus.set_watchdog(self.config.ids, self._servo_watchdog_s)
        self._cycled_at_s = now_s
        if self._driving and now_s - self._commanded_at_s > self.config.command_timeout_s:
            LOG.warning("commands ceased: the arm is stopped where it is")
            self._brake()
        try:
            readings = self._bus.read(self.config.ids)
        except PortGone as error:
            return self._fail(Fault("port_gone", 0, "", str(error)))
        except BusError as error:
            return self._missed(error, now_s)
        self._counts["reads"] += 1
        if self._mistrust:
            # After a failed transaction the first answer may be the late one of the request before.
            self._mistrust = False
            self._counts["untrusted_reads"] += 1
            return
        self._accept(readings, now_s)

    def _accept(self, readings: Mapping[int, Reading], began_s: float) -> None:
        now_s = time.monotonic()
        goals = self._goals if self._driving else {}
        verdict = self._monitor.judge(readings, goals, began_s, now_s)
        if verdict.fault is not None:
            self._fail(verdict.fault)
        elif verdict.trusted:
            self._bad_since_s = 0.0
            self._snapshot = Snapshot(readings, began_s, time.time_ns() - round((now_s - began_s) * 1e9))
        else:
            self._counts["untrusted_reads"] += 1
            if self._bad_for_too_long(began_s):
                self._fail(Fault("position_noise", *self._monitor.suspect()))

    def _bad_for_too_long(self, began_s: float) -> bool:
        """Since the first bad reading in a row: a pause of this machine is no silence of theirs."""
        self._bad_since_s = self._bad_since_s or began_s
        return time.monotonic() - self._bad_since_s > self.config.max_silence_s

    def _missed(self, error: BusError, began_s: float) -> None:
        """A reading that failed is tried again in the next cycle, for as long as readings may be missing."""
        self._counts["bad_reads"] += 1
        self._mistrust = True
        if not self._bad_for_too_long(began_s):
            return
        self._brake(without=error.servo_id, read=False)  # at once; who is missing can wait
        lost = self._culprit(error.servo_id)
        joint = self._servos[lost].joint if lost in self._servos else ""
        self._fail(Fault("servo_lost", lost, joint, str(error)), braked=True)

    def _culprit(self, suspect: int) -> int:
        """The servo that does not answer when it is asked alone, the suspect first."""
        ids = [suspect, *(i for i in self.config.ids if i != suspect)]
        stop = {i: goal for i, goal in self._goals.items() if i != suspect}
        return next((i for i in ids if i in self._servos and not self._answers(i, stop)), suspect)

    def _answers(self, servo_id: int, stop: Mapping[int, Goal]) -> bool:
        """Asked twice, each time on a quiet line: a late answer would pass for this one, or drown it.

        Meanwhile `stop` is written again: nothing has acknowledged it.
        """
        for _ in range(2):
            try:
                self._bus.write_goals(stop)
                time.sleep(LATEST_ANSWER_S)
                if self._bus.ping(servo_id):
                    return True
            except ArmError:
                continue
        return False

    # Stopping

    def _fail(self, fault: Fault, braked: bool = False) -> None:
        self._fault, self._stopped_at_s = fault, time.monotonic()
        self._counts["stops"] += 1
        LOG.error("the arm is stopped: %s", fault)
        self._let_go_or_brake(fault, braked)

    def _keep_stopped(self, fault: Fault) -> None:
        if fault.kind != "port_gone" and time.monotonic() - self._stopped_at_s < REPEAT_STOP_S:
            self._let_go_or_brake(fault, braked=True)

    def _let_go_or_brake(self, fault: Fault, braked: bool) -> None:
        """As the arm file says, every servo that listens; the one at fault too: it must not push on."""
        without = fault.servo_id if fault.kind in LEFT_ALONE else 0
        try:
            if self.config.on_fault == "torque_off":
                self._bus.torque_off([i for i in self.config.ids if i != without])
            elif braked:
                self._bus.write_goals({i: goal for i, goal in self._goals.items() if i != without})
            else:
                self._brake(without, believe=fault.kind == "position_jump")
        except ArmError as error:
            LOG.error("while stopping: %s", error)

    def _brake(self, without: int = 0, believe: bool = False, read: bool = True) -> None:
        """Send each servo to where it comes to rest when it brakes now, and forget what it was sent to.

        By a fresh reading, or the last trusted one where that fails or is not to be waited for. A fresh one
        that cannot be is left too, unless it is known to be true by now (`believe`): a goal made of it would
        be a motion.
        """
        self._driving = False
        now_s, snapshot = time.monotonic(), self._snapshot
        fresh = self._read_for_brake(without, believe) if read else {}
        goals = {i: resting_goal(self._servos[i], reading, 0.0) for i, reading in fresh.items()}
        if snapshot is not None:
            age_s = now_s - snapshot.read_at_s
            for servo_id, reading in snapshot.readings.items():
                if servo_id != without and servo_id not in goals:
                    goals[servo_id] = resting_goal(self._servos[servo_id], reading, age_s)
        try:
            self._write(goals)
        except PortGone as error:
            if self._fault is None:
                self._fail(Fault("port_gone", 0, "", str(error)))

    def _read_for_brake(self, without: int, believe: bool) -> dict[int, Reading]:
        now_s = time.monotonic()
        try:
            fresh = self._bus.read([i for i in self.config.ids if i != without])
        except ArmError:
            return {}
        return {i: r for i, r in fresh.items() if believe or self._monitor.can_be(i, r, now_s)}

    # How

    def _fresh(self) -> Snapshot:
        if not self._loop.running:
            raise ArmError("the arm is not connected")
        if self._fault is not None:
            raise ArmError(f"the arm is stopped: {self._fault}")
        snapshot = self._snapshot
        age_s = math.inf if snapshot is None else time.monotonic() - snapshot.read_at_s
        if snapshot is None or age_s > self.config.max_silence_s:
            raise ArmError(f"no reading of the servos for {age_s:.3f} s")
        return snapshot

    def _targets(self, command: JointCommand) -> dict[str, float]:
        """Joint → where to, within its limits."""
        if sorted(command.names) != sorted(self.joint_names):
            raise ArmError(
                f"command for {', '.join(command.names)}; this arm has {', '.join(self.joint_names)}"
            )
        positions: NDArray[np.float64] = np.asarray(command.positions, dtype=np.float64)
        if positions.shape != (len(command.names),) or not np.isfinite(positions).all():
            raise ArmError(f"command positions {positions}: one finite position for each joint is needed")
        if not math.isfinite(command.duration_s) or command.duration_s <= 0.0:
            raise ArmError(f"command duration {command.duration_s} s: it must be finite and positive")
        limits = {name: self._by_joint[name] for name in command.names}
        return {
            n: min(max(float(q), limits[n].lower), limits[n].upper) for n, q in zip(command.names, positions)
        }

    def _write(self, goals: dict[int, Goal]) -> None:
        self._bus.write_goals(goals)
        self._goals.update(goals)
