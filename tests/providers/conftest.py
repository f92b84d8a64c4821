"""Fixtures of the weights store, for tokenizers that come from a hub."""

from hub_fixtures import files, hub, settings

__all__ = ["files", "hub", "settings"]
