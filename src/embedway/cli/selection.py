"""Criteria of commands that select a model, and advice in the terms of a command."""

import contextlib
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, cast

from embedway.errors import NoModelError

if TYPE_CHECKING:
    from embedway.config import Config
    from embedway.selection.criteria import ModelSelectionCriteria
    from embedway.selection.relaxations import Place
    from embedway.selection.scoring import ScoredModel


def criteria_of(config: "Config", changes: dict[str, Any]) -> "ModelSelectionCriteria":
    """Return the criteria of the settings, with changes. Raises UsageError."""
    from embedway.selection.criteria import ModelSelectionCriteria

    return ModelSelectionCriteria.preset(config.selection.preset, **{**config.selection.criteria, **changes})


@contextlib.contextmanager
def advice_for(place: "Place", options: Collection[str]) -> Iterator[None]:
    """Let NoModelError give its advice as options or settings. `options` are the criteria given as options."""
    try:
        yield
    except NoModelError as error:
        from embedway.selection.relaxations import no_model

        raise no_model(cast("tuple[ScoredModel, ...]", error.table), place, options) from None
