"""Errors of `perception` that a user can meet and mend; each message says what, where and what to do."""


class ModelError(ValueError):
    """A model file is missing, damaged or not the one that was promised."""


class DatasetError(ValueError):
    """A dataset is missing, damaged, foreign or could not be written."""


class TrainingError(ValueError):
    """A training run cannot start or go on."""


class RuntimeUnavailable(ModelError):
    """A runtime cannot be used on this machine: what is missing, and how to get it."""
