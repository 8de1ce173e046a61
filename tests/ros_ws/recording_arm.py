"""An arm that jumps to where it is told, and writes down what it was told. For the arm node's test."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from hardware.arm.contract import JointCommand, JointState


class RecordingArm:
    joint_names = ("shoulder", "elbow")

    def __init__(self) -> None:
        self._log = Path(os.environ["RECORDING_ARM_LOG"])
        self._positions = np.zeros(len(self.joint_names))
        self._connected = False

    def connect(self) -> None:
        self._connected = True
        self._write("connect")

    def state(self) -> JointState:
        self._check()
        return JointState(self.joint_names, self._positions, np.zeros_like(self._positions), time.time_ns())

    def command(self, command: JointCommand) -> JointCommand:
        self._check()
        self._positions = np.array(command.positions)
        self._write("command")
        return command

    def stop(self) -> None:
        self._check()
        self._write("stop")

    def disconnect(self) -> None:
        if self._connected:
            self._connected = False
            self._write("disconnect")

    def _check(self) -> None:
        if not self._connected:
            raise OSError("the arm is not connected")

    def _write(self, word: str) -> None:
        with self._log.open("a") as log:
            log.write(word + "\n")
