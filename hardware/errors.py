"""Errors that users of `hardware` can meet and mend."""


class ContractError(AssertionError):
    """A Camera or an Arm broke a promise of its contract."""


class RobotError(ValueError):
    """A robot file or its URDF cannot be used; the message names the file and the key."""


class CameraError(OSError):
    """A camera cannot be used; the message names the device or file and what to do."""


class ArmError(OSError):
    """An arm cannot be used or has been stopped; the message names servo, joint and what to do."""


class CameraUnplugged(CameraError):
    """The camera is not connected, or not any more; the message names it."""


class CalibrationError(ValueError):
    """A calibration cannot be made from what was given; the message says what is missing or wrong."""
