"""Dynamixel X servos over Protocol 2.0: packets, control table and behaviour of XL430-W250 and XL330-M288.

From ROBOTIS' public e-Manual, https://emanual.robotis.com/docs/en/dxl/: "protocol2" (packets, byte stuffing,
CRC-16 with polynomial 0x8005, status errors), "x/xl430-w250" and "x/xl330-m288" (control tables, units,
shutdown, Bus Watchdog). Torque that is switched on takes the present position as goal, as there.
"""

from __future__ import annotations

from dataclasses import dataclass

from hardware.arm.emulator.bus import (
    IDLE_CURRENT_MA,
    ROOM_TEMPERATURE_C,
    TICKS_PER_TURN,
    Conditions,
    EmulatedBus,
    EmulatedServo,
)

HEADER = b"\xff\xff\xfd"
BROADCAST = 0xFE
PING, READ, WRITE, REG_WRITE, ACTION, REBOOT, STATUS, SYNC_READ, SYNC_WRITE = (
    1,
    2,
    3,
    4,
    5,
    8,
    0x55,
    0x82,
    0x83,
)
ERROR_RESULT, ERROR_INSTRUCTION, ERROR_CRC, ERROR_RANGE, ERROR_LENGTH, ERROR_LIMIT, ERROR_ACCESS = range(1, 8)
ALERT = 0x80

# The control table: address and size.
MODEL, ID, BAUD, RETURN_DELAY, OPERATING_MODE, HOMING_OFFSET = (
    (0, 2),
    (7, 1),
    (8, 1),
    (9, 1),
    (11, 1),
    (20, 4),
)
TEMPERATURE_LIMIT, MAX_VOLTAGE, MIN_VOLTAGE = (31, 1), (32, 2), (34, 2)
CURRENT_LIMIT, VELOCITY_LIMIT, MAX_POSITION, MIN_POSITION, SHUTDOWN = (
    (38, 2),
    (44, 4),
    (48, 4),
    (52, 4),
    (63, 1),
)
TORQUE_ENABLE, RETURN_LEVEL, HARDWARE_ERROR, BUS_WATCHDOG = (64, 1), (68, 1), (70, 1), (98, 1)
PROFILE_ACCELERATION, PROFILE_VELOCITY, GOAL_POSITION, MOVING = (108, 4), (112, 4), (116, 4), (122, 1)
PRESENT_CURRENT, PRESENT_VELOCITY, PRESENT_POSITION = (126, 2), (128, 4), (132, 4)
PRESENT_VOLTAGE, PRESENT_TEMPERATURE = (144, 2), (146, 1)
EEPROM_END, GOALS, READ_ONLY_FROM, TABLE_SIZE = 64, range(100, 120), 120, 147
READ_ONLY = {*range(0, 7), *range(69, 71), *range(READ_ONLY_FROM, TABLE_SIZE)}

POSITION_MODE, EXTENDED_POSITION_MODE = 3, 4
VOLTAGE_BIT, TEMPERATURE_BIT, OVERLOAD_BIT = 1, 4, 32
WATCHDOG_ERROR = 0xFF
WATCHDOG_UNIT_S = 0.020
VELOCITY_UNIT = 0.229 * TICKS_PER_TURN / 60.0  # ticks/s
ACCELERATION_UNIT = 214.577 * TICKS_PER_TURN / 3600.0  # ticks/s²
MAX_ACCELERATION_TICKS_S2 = 40_000.0  # a guess
STUFFED, UNSTUFFED = b"\xff\xff\xfd\xfd", b"\xff\xff\xfd"


@dataclass(frozen=True)
class Model:
    """What differs between models. `load_unit_ma` is None where PRESENT_CURRENT is a load in 0.1 %."""

    number: int
    velocity_limit: int
    min_voltage: int
    max_voltage: int
    supply_v: float
    temperature_limit: int
    current_limit: int
    measures_current: bool


MODELS = {
    "xl430-w250": Model(1060, 265, 60, 140, 12.0, 72, 0, False),
    "xl330-m288": Model(1200, 445, 35, 70, 5.0, 70, 1750, True),
    "xm430-w350": Model(1020, 200, 95, 160, 12.0, 80, 1193, True),
    "xm540-w270": Model(1120, 128, 95, 160, 12.0, 80, 2047, True),
}


class DynamixelServo(EmulatedServo):
    """A servo of the X series. `position` is where the shaft stands, in ticks of its encoder."""

    position_register = PRESENT_POSITION

    def __init__(self, servo_id: int, position: int = 2048, model: str = "xl330-m288") -> None:
        self.model = MODELS[model]
        self.pending: tuple[int, bytes] | None = None  # what REG WRITE left for ACTION
        super().__init__(servo_id, position)

    def factory_settings(self, servo_id: int) -> bytearray:
        registers = bytearray(TABLE_SIZE)
        model = self.model
        for (address, size), value in {
            MODEL: model.number, (6, 1): 50, ID: servo_id, BAUD: 3, RETURN_DELAY: 250,
            OPERATING_MODE: POSITION_MODE, (13, 1): 2, (24, 4): 10,
            TEMPERATURE_LIMIT: model.temperature_limit, MAX_VOLTAGE: model.max_voltage,
            MIN_VOLTAGE: model.min_voltage, (36, 2): 885,
            CURRENT_LIMIT: model.current_limit, VELOCITY_LIMIT: model.velocity_limit, MAX_POSITION: 4095,
            MIN_POSITION: 0, SHUTDOWN: 0x34, RETURN_LEVEL: 2,
        }.items():  # fmt: skip
            registers[address : address + size] = value.to_bytes(size, "little")
        return registers

    def power_up(self) -> None:
        self.registers[:] = self.saved
        self.pending = None
        self._measure(Conditions())
        self.set(GOAL_POSITION, self.at(PRESENT_POSITION))

    def at(self, item: tuple[int, int]) -> int:
        """An unsigned item of the control table."""
        return self.get(*item)

    def signed(self, item: tuple[int, int]) -> int:
        return int.from_bytes(self.registers[item[0] : item[0] + item[1]], "little", signed=True)

    def set(self, item: tuple[int, int], value: int) -> None:
        self.put(*item, value)

    @property
    def servo_id(self) -> int:
        return self.at(ID)

    @property
    def torque(self) -> bool:
        return self.at(TORQUE_ENABLE) == 1

    @property
    def reply_delay_s(self) -> float:
        return self.at(RETURN_DELAY) * 2e-6

    def write(self, address: int, data: bytes) -> int:
        """Write if that is allowed; the status error, 0 if all is well."""
        touched = range(address, address + len(data))
        if touched.stop > TABLE_SIZE or READ_ONLY.intersection(touched):
            return ERROR_ACCESS
        if touched.start < EEPROM_END and self.torque:
            return ERROR_ACCESS
        if self.at(BUS_WATCHDOG) == WATCHDOG_ERROR and set(touched) & set(GOALS):
            return ERROR_RANGE
        if touched == range(GOAL_POSITION[0], GOAL_POSITION[0] + 4) and not self._allows(data):
            return ERROR_LIMIT
        had_torque = self.torque
        if address == TORQUE_ENABLE[0] and data[0] and self._has_shut_down():
            return ERROR_RESULT
        self.registers[touched.start : touched.stop] = data
        if touched.start < EEPROM_END:
            saved = range(touched.start, min(touched.stop, EEPROM_END))
            self.saved[saved.start : saved.stop] = self.registers[saved.start : saved.stop]
        if self.torque and not had_torque:
            self.set(GOAL_POSITION, self.at(PRESENT_POSITION))
        return 0

    def _allows(self, data: bytes) -> bool:
        goal = int.from_bytes(data, "little", signed=True)
        if self.at(OPERATING_MODE) != POSITION_MODE:
            return True
        return self.signed(MIN_POSITION) <= goal <= self.signed(MAX_POSITION)

    def advance(self, elapsed_s: float, conditions: Conditions) -> None:
        self._watch(elapsed_s)
        velocity = min(self.at(PROFILE_VELOCITY) or self.model.velocity_limit, self.at(VELOCITY_LIMIT))
        acceleration = self.at(PROFILE_ACCELERATION) * ACCELERATION_UNIT or MAX_ACCELERATION_TICKS_S2
        goal = self.signed(GOAL_POSITION) - self.signed(HOMING_OFFSET)
        self.shaft.advance(
            elapsed_s,
            float(goal) if self.torque else None,
            velocity * VELOCITY_UNIT,
            min(acceleration, MAX_ACCELERATION_TICKS_S2),
            conditions.stuck,
        )
        self._measure(conditions)
        self._protect(conditions)

    def _watch(self, elapsed_s: float) -> None:
        """The Bus Watchdog: without instruction packets for so long, stop where the shaft is."""
        limit = self.at(BUS_WATCHDOG)
        self.watchdog_s += elapsed_s
        if 0 < limit < 0x80 and self.watchdog_s > limit * WATCHDOG_UNIT_S:
            self.set(BUS_WATCHDOG, WATCHDOG_ERROR)
            self.set(GOAL_POSITION, round(self.shaft.position) + self.signed(HOMING_OFFSET))
            self.shaft.velocity = 0.0

    def _measure(self, conditions: Conditions) -> None:
        self.set(PRESENT_POSITION, round(self.shaft.position) + self.signed(HOMING_OFFSET))
        self.set(PRESENT_VELOCITY, round(self.shaft.velocity / VELOCITY_UNIT))
        goal = self.signed(GOAL_POSITION) - self.signed(HOMING_OFFSET)
        blocked = conditions.stuck and self.torque and abs(goal - self.shaft.position) > 2
        current = conditions.current_ma or (900.0 if blocked else IDLE_CURRENT_MA if self.torque else 0.0)
        if not self.model.measures_current:
            current = min(current, 1000.0) if blocked or conditions.current_ma else 0.0
        self.set(PRESENT_CURRENT, round(current))
        voltage = self.model.supply_v if conditions.voltage_v is None else conditions.voltage_v
        self.set(PRESENT_VOLTAGE, round(voltage * 10))
        heat = ROOM_TEMPERATURE_C if conditions.temperature_c is None else conditions.temperature_c
        self.set(PRESENT_TEMPERATURE, round(heat))
        self.set(MOVING, int(abs(self.shaft.velocity) > 10 * VELOCITY_UNIT))

    def _protect(self, conditions: Conditions) -> None:
        """Set the error bits, which only a reboot clears; those chosen by SHUTDOWN take the torque off."""
        volts = self.at(PRESENT_VOLTAGE)
        error = self.at(HARDWARE_ERROR)
        error |= VOLTAGE_BIT * (not self.at(MIN_VOLTAGE) <= volts <= self.at(MAX_VOLTAGE))
        error |= TEMPERATURE_BIT * (self.at(PRESENT_TEMPERATURE) > self.at(TEMPERATURE_LIMIT))
        error |= OVERLOAD_BIT * conditions.overload
        self.set(HARDWARE_ERROR, error)
        if self._has_shut_down():
            self.set(TORQUE_ENABLE, 0)

    def _has_shut_down(self) -> bool:
        return bool(self.at(HARDWARE_ERROR) & self.at(SHUTDOWN))


class DynamixelBus(EmulatedBus[DynamixelServo]):
    """Servos of the X series on one wire."""

    def _next_packet(self) -> bytes | None:
        start = self._received.find(HEADER + b"\x00")
        self._received = self._received[start:] if start >= 0 else self._received[-3:]
        if start < 0 or len(self._received) < 7:
            return None
        size = int.from_bytes(self._received[5:7], "little") + 7
        if len(self._received) < size:
            return None
        packet, self._received = self._received[:size], self._received[size:]
        return packet

    def _execute(self, packet: bytes) -> list[tuple[DynamixelServo, bytes]]:
        servo_id, instruction = packet[4], packet[7]
        if instruction == STATUS:
            return []
        if int.from_bytes(packet[-2:], "little") != crc16(packet[:-2]):
            servo = self._answering(servo_id)
            return [(servo, self._status(servo, ERROR_CRC, b""))] if servo else []
        parameters = packet[8:-2].replace(STUFFED, UNSTUFFED)
        if instruction == SYNC_READ:
            address, size = _word(parameters, 0), _word(parameters, 2)
            asked = (self._answering(one) for one in parameters[4:])
            return [
                (servo, self._status(servo, 0, self._read(servo, address, size))) for servo in asked if servo
            ]
        if instruction == SYNC_WRITE:
            address, size = _word(parameters, 0), _word(parameters, 2)
            for at in range(4, len(parameters) - size, size + 1):
                if servo := self._answering(parameters[at]):
                    servo.write(address, parameters[at + 1 : at + 1 + size])
            return []
        everyone = servo_id == BROADCAST
        addressed = [self._answering(one) for one in (sorted(self.servos) if everyone else [servo_id])]
        replies = [(servo, self._instruct(servo, instruction, parameters)) for servo in addressed if servo]
        return [] if everyone and instruction != PING else [(one, reply) for one, reply in replies if reply]

    def _instruct(self, servo: DynamixelServo, instruction: int, parameters: bytes) -> bytes:
        """Do it; what the servo answers."""
        error, data = 0, b""
        if instruction == PING:
            data = bytes(servo.registers[0:2] + servo.registers[6:7])
        elif instruction == READ and len(parameters) == 4:
            data = self._read(servo, _word(parameters, 0), _word(parameters, 2))
        elif instruction == WRITE and len(parameters) >= 3:
            error = servo.write(_word(parameters, 0), parameters[2:])
        elif instruction == REG_WRITE and len(parameters) >= 3:
            servo.pending = (_word(parameters, 0), parameters[2:])
        elif instruction == ACTION and servo.pending:
            error = servo.write(*servo.pending)
            servo.pending = None
        elif instruction == REBOOT:
            servo.power_up()
        else:
            error = ERROR_INSTRUCTION
        level = servo.at(RETURN_LEVEL)
        quiet = level == 0 and instruction != PING or level == 1 and instruction not in (PING, READ)
        return b"" if quiet else self._status(servo, error, data)

    def _status(self, servo: DynamixelServo, error: int, data: bytes) -> bytes:
        alert = ALERT if servo.at(HARDWARE_ERROR) else 0
        return packed(servo.servo_id, STATUS, bytes([error | alert]) + data)

    def _with_id(self, reply: bytes, servo_id: int) -> bytes:
        return packed(servo_id, STATUS, reply[8:-2].replace(STUFFED, UNSTUFFED))


def packed(servo_id: int, instruction: int, parameters: bytes) -> bytes:
    stuffed = parameters.replace(UNSTUFFED, STUFFED)
    body = HEADER + b"\x00" + bytes([servo_id]) + (len(stuffed) + 3).to_bytes(2, "little")
    body += bytes([instruction]) + stuffed
    return body + crc16(body).to_bytes(2, "little")


def crc16(data: bytes) -> int:
    """CRC-16 with polynomial 0x8005, most significant bit first, from 0."""
    crc = 0
    for byte in data:
        crc = (crc << 8 ^ CRC_TABLE[crc >> 8 ^ byte]) & 0xFFFF
    return crc


def _crc_of_byte(byte: int) -> int:
    crc = byte << 8
    for _ in range(8):
        crc = (crc << 1 ^ 0x8005) & 0xFFFF if crc & 0x8000 else crc << 1
    return crc


CRC_TABLE = tuple(_crc_of_byte(byte) for byte in range(256))


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")
