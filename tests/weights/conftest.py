"""Fixtures of the weights store."""

from hub_fixtures import default_model_store, files, hold, hub, index, puller, settings, sink, unhashed, weights

__all__ = [
    "default_model_store",
    "files",
    "hold",
    "hub",
    "index",
    "puller",
    "settings",
    "sink",
    "unhashed",
    "weights",
]
