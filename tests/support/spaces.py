"""Normalized spaces for comparisons in tests."""

from embedway.types import Space


def recorded(space):
    """Return a space as read from its record, which omits facts that a service does not have."""
    return Space.from_json(space.to_json())
