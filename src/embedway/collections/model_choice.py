"""Choose a job's model: that of its collection, a named one, or the best for the texts within a cost limit."""

from __future__ import annotations

import contextlib
import heapq
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from embedway.collections.documents import ByteCounter
from embedway.collections.plan import next_documents, plan_job
from embedway.collections.readers import find_sources, read_files
from embedway.config.local_models import AUTO
from embedway.errors import BudgetExceededError, NoModelError, UsageError
from embedway.ledger.refusals import MAX_COST
from embedway.money import to_nanousd
from embedway.providers.counting import about_tokens
from embedway.selection.selector import is_affordable, no_affordable_model
from embedway.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from typing import IO

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.plan import ModelPlan
    from embedway.collections.run import RunOptions
    from embedway.errors import SourceError
    from embedway.money import Amount
    from embedway.selection.criteria import ModelSelectionCriteria
    from embedway.selection.scoring import Selection

_log = logging.getLogger("embedway.selection")

#: Minimum characters of a sample of long sources. It ends after the document that reaches them.
SAMPLE_CHARACTERS = 16 << 20
#: Longest texts after the sample that are kept, because the model must read them completely.
_LONGEST_TEXTS = 8


async def select_for_job(
    embedder: AsyncEmbedder,
    sources: Sequence[str],
    options: RunOptions,
    criteria: ModelSelectionCriteria,
    *,
    cached: bool,
) -> RunOptions:
    """Return the options of a job with the model and size of its collection's pin, or of the selected model.

    Without a pin, a model that the options name stays. With `options.most_nanousd` or the criteria's `max_total_cost`,
    the best model within that cost is selected. Chunks fit every model. Documents that are not split must fit, unless
    the criteria waive it or windows are averaged. Reads the sources once before the job does, twice for a cost limit.
    Raises UsageError for standard input, NoModelError, and BudgetExceededError if no model is cheap enough.
    """
    if options.collection:
        pin = next((pin for pin in await embedder.pins.list() if pin.collection == options.collection), None)
        if pin is not None:
            # Raises if the criteria forbid the pinned model.
            await embedder.plan("a", criteria=criteria, collection=options.collection, dimensions=options.dimensions)
            return replace(options, model=pin.model, dimensions=options.dimensions or pin.space.dimensions)
    if options.model != AUTO:
        return options
    if "-" in sources:
        raise UsageError("standard input can be read only once, and selecting a model reads the texts; name a model")
    most, limit = _lower_limit(options.most_nanousd, criteria.max_total_cost)
    # The total cost is known only from a plan of all chunks, not from the sample.
    wanted = replace(criteria, max_total_cost=None, dimensions=options.dimensions or criteria.dimensions)
    async with open_texts(sources, options) as documents:
        texts, _ = await take_texts(documents, most_characters=SAMPLE_CHARACTERS)
        if _must_fit(options, wanted):
            texts += await _longest_texts(documents)
    selection, options = await _select_fitting(embedder, texts, options, wanted)
    options = replace(options, dimensions=wanted.dimensions, notes=selection.warnings)
    if most is None:
        return replace(options, model=selection.model)
    return await _choose_affordable(embedder, sources, options, selection, limit=(most, limit), cached=cached)


async def _choose_affordable(
    embedder: AsyncEmbedder,
    sources: Sequence[str],
    options: RunOptions,
    selection: Selection,
    *,
    limit: tuple[int, str],
    cached: bool,
) -> RunOptions:
    """Return the options with the best-ranked model within a cost limit: nano-dollars, and its name."""

    async def choose(one: Selection) -> RunOptions:
        names = [row.model for row in one.ranked]
        planned = await plan_job(embedder, sources, names, options, cached=cached, unfit=True)
        found = _best_within(*limit, planned.models)
        return replace(options, model=found, notes=one.warnings_of(found))

    try:
        return await choose(selection)
    except BudgetExceededError:
        below = selection.below_minimum()
        if below is None:
            raise
    chosen = await choose(below)
    for warning in chosen.notes:
        _log.warning("%s", warning)
    return chosen


def _must_fit(options: RunOptions, criteria: ModelSelectionCriteria) -> bool:
    """Return whether the model must read documents completely: they are not split, and nothing waives it."""
    if options.chunk:
        return False
    return options.on_overflow == "error" or (criteria.require_fit and options.on_overflow == "truncate")


async def _select_fitting(
    embedder: AsyncEmbedder, texts: Sequence[str], options: RunOptions, criteria: ModelSelectionCriteria
) -> tuple[Selection, RunOptions]:
    """Select a model that reads the documents completely, if it must; return the options with which it is used.

    If no model does, and bad rows are skipped, the documents that are too long are rejected.
    """
    fit = _must_fit(options, criteria)
    try:
        return await embedder.select(texts, replace(criteria, require_fit=fit)), options
    except NoModelError:
        if not fit or options.on_error == "stop":
            raise
    selection = await embedder.select(texts, replace(criteria, require_fit=False))
    return selection, replace(options, on_overflow="error")


def _best_within(most: int, limit: str, plans: Sequence[ModelPlan]) -> str:
    """Return the first model within the cost limit. Raises BudgetExceededError and TextTooLongError."""
    fit = [one for one in plans if one.too_long is None]
    for one in fit:
        if is_affordable(one.most_nanousd, most):
            return one.model
    for one in plans:
        if not fit and one.too_long is not None:
            raise one.too_long
    raise no_affordable_model(most, [(one.model, one.most_nanousd) for one in fit], limit=limit)


def _lower_limit(most: int | None, max_total_cost: Amount | None) -> tuple[int | None, str]:
    """Return the lower of two limits in nano-dollars, and its name."""
    if max_total_cost is not None:
        total = to_nanousd(max_total_cost, name="max_total_cost")
        if most is None or total < most:
            return total, "max_total_cost"
    return most, MAX_COST


@contextlib.asynccontextmanager
async def open_texts(
    sources: Sequence[str], options: RunOptions, *, standard_input: IO[bytes] | None = None
) -> AsyncIterator[AsyncIterator[list[str]]]:
    """Open an iterator over the documents' texts, in groups. Unusable rows are skipped. Raises `SourceError`."""

    def skip(fault: SourceError) -> None:
        del fault  # choosing a model does not need every row

    with contextlib.closing(Worker("embedway-reader")) as reader:
        files = await reader.call(find_sources, sources, options.read_options())
        documents = read_files(
            files, options.read_options(), on_bad_row=skip, counter=ByteCounter(), standard_input=standard_input
        )

        async def texts() -> AsyncIterator[list[str]]:
            while some := await reader.call(next_documents, documents):
                yield [document.text for document in some]

        yield texts()
        await reader.call(documents.close)


async def _longest_texts(texts: AsyncIterator[list[str]]) -> list[str]:
    """Return the longest texts by estimated tokens: one of them may be too long for a model."""
    longest: list[str] = []
    async for some in texts:
        longest = heapq.nlargest(_LONGEST_TEXTS, [*longest, *some], key=about_tokens)
    return longest


async def take_texts(texts: AsyncIterator[list[str]], *, most_characters: int) -> tuple[list[str], bool]:
    """Return the first texts, and whether they are all texts."""
    found: list[str] = []
    characters = 0
    while characters < most_characters:
        some = await anext(texts, None)
        if some is None:
            return found, True
        found += some
        characters += sum(map(len, some))
    return found, False
