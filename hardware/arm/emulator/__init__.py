"""Emulated servo buses: what the servos of an arm say and do, on a pty, with faults on demand."""
