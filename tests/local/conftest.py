"""Fixtures of the weights store that tests of the local runtime need."""

from hub_fixtures import files, hub, settings

__all__ = ["files", "hub", "settings"]
