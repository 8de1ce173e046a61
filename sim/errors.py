"""Errors of `sim` that a user can meet and mend; each message says what, where and what to do."""


class SimulationError(ValueError):
    """A task, a bundle or an option does not fit the simulator."""
