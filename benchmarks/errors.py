"""Errors of `benchmarks` that a user can meet and mend; each message says what, where and what to do."""


class BenchmarkError(ValueError):
    """The measurement was asked for in a way that makes no sense."""
