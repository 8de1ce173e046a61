"""Errors of the nodes that a user can meet and mend; each message says what, where and what to do."""


class ParameterError(ValueError):
    """A node parameter is unknown, has the wrong type, is out of range or names nothing that is there."""


class MessageError(ValueError):
    """A message does not hold what its type promises; the text says what was expected."""


class EpisodeError(RuntimeError):
    """An episode could not be run through the graph: a service or action did not answer, or refused."""


class GoalRefused(ValueError):
    """The planner does not take a goal: a picture of another size, or it is not active."""
