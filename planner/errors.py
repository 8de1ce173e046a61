"""Errors of `planner` that a user can meet and mend; each message says what, where and what to do."""


class BundleError(ValueError):
    """A world-model bundle is missing, damaged, or does not fit what it is started with."""


class PlannerError(ValueError):
    """A planner was asked for something it cannot do."""


class RuntimeRefused(ValueError):
    """A runtime was asked for by name that is not here, or not exact enough to act by."""
