"""Feetech STS/SMS servos: packets, register map and behaviour of the STS3215.

From Feetech's public documents "SMS/STS protocol" (communication) and "STS series memory table" (registers,
units, protections): https://www.feetechrc.com and its mirror doc.feetech.cn. A packet is FF FF, id, length,
instruction or status, parameters, and the inverted sum of all but the header; words are little-endian,
signed ones sign and magnitude. Where the documents leave a choice the emulator takes the worse for the
driver: a servo whose torque is switched on goes to whatever goal it holds.
"""

from __future__ import annotations

import math

from hardware.arm.emulator.bus import (
    IDLE_CURRENT_MA,
    ROOM_TEMPERATURE_C,
    Conditions,
    EmulatedBus,
    EmulatedServo,
)

HEADER = b"\xff\xff"
BROADCAST = 0xFE
PING, READ, WRITE, REG_WRITE, ACTION, SYNC_READ, SYNC_WRITE = 1, 2, 3, 4, 5, 0x82, 0x83

# Registers (address); two bytes where the name says word.
MODEL_WORD, ID, BAUD, RETURN_DELAY, RESPONSE_LEVEL = 3, 5, 6, 7, 8
MIN_ANGLE_WORD, MAX_ANGLE_WORD, MAX_TEMPERATURE, MAX_VOLTAGE, MIN_VOLTAGE, MAX_TORQUE_WORD = (
    9,
    11,
    13,
    14,
    15,
    16,
)
UNLOAD_ON, PROTECTION_CURRENT_WORD, OFFSET_WORD, MODE = 19, 28, 31, 33
TORQUE_ENABLE, ACCELERATION, GOAL_WORD, GOAL_SPEED_WORD, TORQUE_LIMIT_WORD, LOCK = 40, 41, 42, 46, 48, 55
POSITION_WORD, SPEED_WORD, LOAD_WORD, VOLTAGE, TEMPERATURE, STATUS, MOVING, CURRENT_WORD = (
    56, 58, 60, 62, 63, 65, 66, 69,
)  # fmt: skip
EEPROM_END, READ_ONLY_FROM, READ_ONLY_END, REGISTERS = 40, 56, 80, 87
CENTRE_HERE = 128  # written to TORQUE_ENABLE: where the shaft is becomes position 2048

VOLTAGE_BIT, TEMPERATURE_BIT, CURRENT_BIT, OVERLOAD_BIT = 1, 4, 8, 32
MODEL_STS3215 = 777
BAUDS = (1_000_000, 500_000, 250_000, 128_000, 115_200, 76_800, 57_600, 38_400)

ACCELERATION_UNIT = 100.0  # ticks/s²
CURRENT_UNIT_MA = 6.5
OFFSET_SIGN, POSITION_SIGN, LOAD_SIGN = 11, 15, 10
# The 12 V STS3215 without load turns at 45 rpm; what its motor can accelerate is a guess.
MAX_SPEED_TICKS_S = 3072.0
MAX_ACCELERATION_TICKS_S2 = 40_000.0

FACTORY = {
    0: 3, 1: 10, BAUD: 0, RETURN_DELAY: 0, RESPONSE_LEVEL: 1, MAX_TEMPERATURE: 70, MAX_VOLTAGE: 140,
    MIN_VOLTAGE: 40, UNLOAD_ON: VOLTAGE_BIT | TEMPERATURE_BIT | CURRENT_BIT | OVERLOAD_BIT, 20: 47, 21: 32,
    22: 32, 24: 16, 26: 1, 27: 1, 30: 1, 34: 20, 35: 200, 36: 80, 37: 10, 38: 200,
}  # fmt: skip
FACTORY_WORDS = {
    MODEL_WORD: MODEL_STS3215,
    MIN_ANGLE_WORD: 0,
    MAX_ANGLE_WORD: 4095,
    MAX_TORQUE_WORD: 1000,
    PROTECTION_CURRENT_WORD: 500,
}


class FeetechServo(EmulatedServo):
    """An STS3215. `position` is where the shaft stands, in ticks of its encoder."""

    position_register = (POSITION_WORD, 2)

    def __init__(self, servo_id: int, position: int = 2048, supply_v: float = 12.0) -> None:
        self.supply_v = supply_v
        self.pending: tuple[int, bytes] | None = None  # what REG WRITE left for ACTION
        super().__init__(servo_id, position)

    def factory_settings(self, servo_id: int) -> bytearray:
        registers = bytearray(REGISTERS)
        for address, value in {**FACTORY, ID: servo_id}.items():
            registers[address] = value
        for address, value in FACTORY_WORDS.items():
            registers[address : address + 2] = value.to_bytes(2, "little")
        return registers

    def power_up(self) -> None:
        self.registers[:] = self.saved
        self.put(TORQUE_LIMIT_WORD, 2, self.get(MAX_TORQUE_WORD, 2))
        self.put(LOCK, 1, 1)
        self.pending = None
        self._measure(Conditions())

    @property
    def servo_id(self) -> int:
        return self.registers[ID]

    @property
    def torque(self) -> bool:
        return self.registers[TORQUE_ENABLE] == 1

    @property
    def reply_delay_s(self) -> float:
        return self.registers[RETURN_DELAY] * 2e-6

    def write(self, address: int, data: bytes) -> None:
        if address + len(data) > REGISTERS:
            return
        if address == TORQUE_ENABLE and data[0] == CENTRE_HERE:
            self._put_signed(OFFSET_WORD, round(self.shaft.position) - 2048, OFFSET_SIGN)
            self._save(OFFSET_WORD, 2)
            return
        for i, byte in enumerate(data):
            if not READ_ONLY_FROM <= address + i < READ_ONLY_END and not address + i < ID:
                self.registers[address + i] = byte
        if address < EEPROM_END and not self.registers[LOCK]:
            self._save(address, min(len(data), EEPROM_END - address))

    def _save(self, address: int, size: int) -> None:
        self.saved[address : address + size] = self.registers[address : address + size]

    def advance(self, elapsed_s: float, conditions: Conditions) -> None:
        speed = self.get(GOAL_SPEED_WORD, 2) or MAX_SPEED_TICKS_S
        acceleration = self.get(ACCELERATION, 1) * ACCELERATION_UNIT or MAX_ACCELERATION_TICKS_S2
        self.shaft.advance(
            elapsed_s,
            self.goal + self.offset if self.torque else None,
            min(speed, MAX_SPEED_TICKS_S),
            min(acceleration, MAX_ACCELERATION_TICKS_S2),
            conditions.stuck,
        )
        self._measure(conditions)
        self._protect(conditions)

    @property
    def offset(self) -> int:
        return _from_sign_magnitude(self.get(OFFSET_WORD, 2), OFFSET_SIGN)

    @property
    def goal(self) -> int:
        """The goal position, kept within the angle limits; both zero mean that there are none."""
        goal = _from_sign_magnitude(self.get(GOAL_WORD, 2), POSITION_SIGN)
        lower, upper = self.get(MIN_ANGLE_WORD, 2), self.get(MAX_ANGLE_WORD, 2)
        return min(max(goal, lower), upper) if lower or upper else goal

    def _measure(self, conditions: Conditions) -> None:
        self._put_signed(POSITION_WORD, round(self.shaft.position) - self.offset, POSITION_SIGN)
        self._put_signed(SPEED_WORD, round(self.shaft.velocity), POSITION_SIGN)
        blocked = conditions.stuck and self.torque and abs(self.goal + self.offset - self.shaft.position) > 2
        self._put_signed(LOAD_WORD, 900 if blocked else 0, LOAD_SIGN)
        current_ma = conditions.current_ma or (900.0 if blocked else IDLE_CURRENT_MA if self.torque else 0.0)
        self._put_signed(CURRENT_WORD, round(current_ma / CURRENT_UNIT_MA), POSITION_SIGN)
        voltage = self.supply_v if conditions.voltage_v is None else conditions.voltage_v
        heat = ROOM_TEMPERATURE_C if conditions.temperature_c is None else conditions.temperature_c
        self.put(VOLTAGE, 1, round(voltage * 10))
        self.put(TEMPERATURE, 1, round(heat))
        self.put(MOVING, 1, int(abs(self.shaft.velocity) > 1.0))

    def _protect(self, conditions: Conditions) -> None:
        """Set the status bits; those chosen by UNLOAD_ON take the torque off."""
        volts, heat = self.get(VOLTAGE, 1), self.get(TEMPERATURE, 1)
        status = VOLTAGE_BIT * (not self.get(MIN_VOLTAGE, 1) <= volts <= self.get(MAX_VOLTAGE, 1))
        status |= TEMPERATURE_BIT * (heat > self.get(MAX_TEMPERATURE, 1))
        status |= CURRENT_BIT * (self.get(CURRENT_WORD, 2) > self.get(PROTECTION_CURRENT_WORD, 2))
        status |= OVERLOAD_BIT * conditions.overload
        self.put(STATUS, 1, status)
        if status & self.get(UNLOAD_ON, 1):
            self.put(TORQUE_ENABLE, 1, 0)

    def _put_signed(self, address: int, value: int, sign_bit: int) -> None:
        self.put(address, 2, min(abs(value), (1 << sign_bit) - 1) | (value < 0) << sign_bit)


class FeetechBus(EmulatedBus[FeetechServo]):
    """STS servos on one wire."""

    def _next_packet(self) -> bytes | None:
        while True:
            start = self._received.find(HEADER)
            self._received = self._received[start:] if start >= 0 else self._received[-1:]
            if start < 0 or len(self._received) < 4:
                return None
            size = self._received[3] + 4
            if len(self._received) < size:
                return None
            packet, self._received = self._received[:size], self._received[size:]
            if size >= 6 and packet[-1] == checksum(packet[2:-1]):
                return packet  # a servo does not answer what it cannot read

    def _execute(self, packet: bytes) -> list[tuple[FeetechServo, bytes]]:
        servo_id, instruction, parameters = packet[2], packet[4], packet[5:-1]
        if instruction == SYNC_READ:
            address, size = parameters[:2]
            asked = (self._answering(one) for one in parameters[2:])
            return [
                (servo, self._status(servo, self._read(servo, address, size))) for servo in asked if servo
            ]
        if instruction == SYNC_WRITE:
            address, size = parameters[:2]
            for at in range(2, len(parameters) - size, size + 1):
                if servo := self._answering(parameters[at]):
                    servo.write(address, parameters[at + 1 : at + 1 + size])
            return []
        if servo_id == BROADCAST:
            everyone = [servo for one in sorted(self.servos) if (servo := self._answering(one))]
            replies = [(servo, self._instruct(servo, instruction, parameters)) for servo in everyone]
            return [(servo, reply) for servo, reply in replies if instruction == PING and reply]
        servo = self._answering(servo_id)
        reply = self._instruct(servo, instruction, parameters) if servo else b""
        return [(servo, reply)] if servo and reply else []

    def _instruct(self, servo: FeetechServo, instruction: int, parameters: bytes) -> bytes:
        """Do it; what the servo answers."""
        data = b""
        if instruction == READ and len(parameters) == 2:
            data = self._read(servo, parameters[0], parameters[1])
        elif instruction == WRITE and len(parameters) >= 2:
            servo.write(parameters[0], parameters[1:])
        elif instruction == REG_WRITE and len(parameters) >= 2:
            servo.pending = (parameters[0], parameters[1:])
        elif instruction == ACTION and servo.pending:
            servo.write(*servo.pending)
            servo.pending = None
        quiet = not servo.get(RESPONSE_LEVEL, 1) and instruction not in (PING, READ)
        return b"" if quiet else self._status(servo, data)

    def _status(self, servo: FeetechServo, data: bytes) -> bytes:
        return packed(servo.servo_id, servo.get(STATUS, 1), data)

    def _with_id(self, reply: bytes, servo_id: int) -> bytes:
        return packed(servo_id, reply[4], reply[5:-1])


def packed(servo_id: int, code: int, parameters: bytes) -> bytes:
    """A packet: `code` is the instruction, or the status of a reply."""
    body = bytes([servo_id, len(parameters) + 2, code]) + parameters
    return HEADER + body + bytes([checksum(body)])


def checksum(body: bytes) -> int:
    return ~sum(body) & 0xFF


def _from_sign_magnitude(value: int, sign_bit: int) -> int:
    magnitude = value & ((1 << sign_bit) - 1)
    return int(math.copysign(magnitude, -1)) if value >> sign_bit & 1 else magnitude
