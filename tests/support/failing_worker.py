"""Function that worker processes run."""


def fail(error):
    """Raise the error."""
    raise error
