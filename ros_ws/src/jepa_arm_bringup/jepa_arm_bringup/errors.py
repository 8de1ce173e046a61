"""Errors of starting the graph that a user can mend; each message says what, where and what to do."""


class GraphError(RuntimeError):
    """The graph cannot be started or did not come up."""


class DomainBusy(GraphError):
    """Another graph already runs in the ROS domain."""


class PictureError(ValueError):
    """A file is no goal picture, or none of this camera."""
