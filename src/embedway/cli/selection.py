"""Criteria of commands that select a model, and advice in the terms of a command."""

import contextlib
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, cast

from embedway.cli.output import note
from embedway.errors import NoModelError

if TYPE_CHECKING:
    from embedway._embedder import AsyncEmbedder
    from embedway.cli.options import Invocation
    from embedway.collections.run import RunOptions
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
    """Word the advice of NoModelError as options or settings; `options` are criteria that are options."""
    try:
        yield
    except NoModelError as error:
        from embedway.selection.relaxations import no_model

        raise no_model(cast("tuple[ScoredModel, ...]", error.table), place, options) from None


def job_flags(dimensions: int | None, on_overflow: str) -> list[str]:
    """Return the criteria that are options of `run`, `plan` and `embed`, for `advice_for`."""
    flags = ["require_fit", *(["on_overflow"] if on_overflow == "error" else [])]
    return [*flags, "dimensions"] if dimensions else flags


async def select_job_model(
    invocation: "Invocation", config: "Config", embedder: "AsyncEmbedder", sources: list[str], options: "RunOptions"
) -> "RunOptions":
    """Return the options of a job with the model that its sources and the settings select, and print its name."""
    from embedway.collections.model_choice import select_for_job

    cached = config.cache.backend != "none"
    with advice_for("settings", job_flags(options.dimensions, options.on_overflow)):
        options = await select_for_job(embedder, sources, options, criteria_of(config, {}), cached=cached)
    note(invocation, f"selected {options.model}")
    return options
