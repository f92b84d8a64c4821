"""The sources that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.weights.sources.folder import FolderSource
from embedway.weights.sources.hub import HubSource
from embedway.weights.sources.wheel import WheelSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from embedway.catalog.types import Wheel
    from embedway.weights.sources.base import WeightsSource
    from embedway.weights.types import StoreSettings


def open_sources(settings: StoreSettings, wheels: Sequence[Wheel]) -> Iterator[WeightsSource]:
    """Iterate over the sources in the order of `settings.places`; each wheel is a source of its own."""
    for name in settings.places:
        if name == "folder":
            yield FolderSource(settings)
        elif name == "hub":
            yield HubSource(settings)
        else:
            yield from (WheelSource(settings, wheel) for wheel in wheels)
