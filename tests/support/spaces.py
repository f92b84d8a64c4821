"""Spaces as tests compare them."""

from embedway.types import Space


def recorded(space):
    """A space as its record is read: facts that a service has not are not written."""
    return Space.from_json(space.to_json())
