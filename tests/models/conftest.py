"""A hub on the loopback for models whose weights are not here."""

from hub_fixtures import files, hub

__all__ = ["files", "hub"]
