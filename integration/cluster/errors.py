"""The one error of the harness."""


class ClusterError(Exception):
    """The cluster, a laptop or an image could not be made; the text says what to do."""
