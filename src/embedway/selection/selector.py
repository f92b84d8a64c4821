"""Which model takes a call's texts: the one that is named, the one of the collection, or the one that scores best."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from embedway.arguments import named
from embedway.errors import BudgetExceededError, LedgerError, NoModelError, SpaceMismatchError, UsageError
from embedway.ledger.account import CallBudget
from embedway.ledger.base import Purpose
from embedway.ledger.opening import open_pins
from embedway.ledger.pins import new_pin
from embedway.ledger.refusals import MAX_COST
from embedway.money import to_nanousd, usd
from embedway.selection.analysis import analyze, sample_of
from embedway.selection.candidates import Candidates
from embedway.selection.scoring import ModelSelectionCriteria, select
from embedway.space import comparable, explained
from embedway.types import Selected

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence

    from embedway.config import Config
    from embedway.ledger.pins import Pin, Pins
    from embedway.money import Amount
    from embedway.selection.candidates import TokenTotals
    from embedway.selection.scoring import Candidate, Selection
    from embedway.types import InputType, Space

AUTO = "auto"
#: How long after a process died the collection that it wrote to first is free again.
CLAIM_S = 60.0

_log = logging.getLogger("embedway.pins")


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What a call says beside its texts: how its model is selected, what they are for, who pays, and how much."""

    criteria: ModelSelectionCriteria | str | None = None
    collection: str = ""
    api_key_name: str = ""
    #: Nano-dollars.
    most: int | None = None

    def selects(self, default_model: str) -> bool:
        """Whether a call that names no model wants one to be selected: by criteria, or where no default is named."""
        asked = self.criteria is not None
        return asked or (default_model == AUTO and (bool(self.collection) or self.most is not None))

    def spending(self, model: str) -> CallBudget:
        """What the call may spend on a model."""
        return CallBudget(Purpose(model, self.collection, self.api_key_name), self.most)


def call_options(
    criteria: ModelSelectionCriteria | str | None, collection: str, api_key_name: str, max_cost: Amount | None
) -> CallOptions:
    """The terms of a call, checked. Raises UsageError."""
    if criteria is not None and not isinstance(criteria, (ModelSelectionCriteria, str)):
        raise UsageError(f"criteria is {criteria!r}; it must be ModelSelectionCriteria, or the name of a preset")
    collection, api_key_name = named(collection or "", "collection"), named(api_key_name or "", "api_key_name")
    most = None if max_cost is None else to_nanousd(max_cost, name="max_cost")
    return CallOptions(criteria, collection, api_key_name, most)


@dataclass(frozen=True, slots=True)
class ChosenModel:
    """The model of a call, by a name that opens it, and how it was found."""

    model: str
    dimensions: int | None
    pin: Pin | None = None
    selected: Selected | None = None


class ModelSelector:
    """Selects models by the settings, and keeps what collections are pinned to."""

    def __init__(self, config: Config, *, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        self._config = config
        self._sleep = sleep
        self._candidates: Candidates | None = None
        self._lock = threading.Lock()
        self._pins: Pins | None = None
        #: Collections whose pins lack facts, and were told of.
        self._told: set[str] = set()

    @property
    def pins(self) -> Pins:
        """Where pins are kept; opened at its first use."""
        if self._pins is None:
            self._pins = open_pins(self._config)
        return self._pins

    def criteria(self, given: ModelSelectionCriteria | str | None = None) -> ModelSelectionCriteria:
        """The criteria of a call: its own, a preset's, or those of `[selection]`. Raises UsageError."""
        if isinstance(given, ModelSelectionCriteria):
            return given
        if given is not None:
            return ModelSelectionCriteria.preset(given)
        settings = self._config.selection
        return ModelSelectionCriteria.preset(settings.preset, **settings.criteria)

    async def select(
        self,
        texts: Sequence[str],
        criteria: ModelSelectionCriteria,
        *,
        anywhere: bool = False,
        rest: AsyncIterable[Sequence[str]] | None = None,
    ) -> Selection:
        """The best model for some texts. Raises NoModelError.

        `rest` are more texts, which are read only for a limit on what all cost.
        """
        totals = None
        if criteria.max_total_cost is not None:
            totals = await asyncio.to_thread(self._totals)
            await asyncio.to_thread(totals.add, texts)
            if rest is not None:
                async for more in rest:
                    await asyncio.to_thread(totals.add, more)
        return await asyncio.to_thread(self._select, texts, criteria, anywhere, totals)

    def _totals(self) -> TokenTotals:
        with self._lock:
            return self._opened().totals()

    async def select_for(
        self, texts: Sequence[str], criteria: ModelSelectionCriteria, *, whole: bool, partial: bool
    ) -> Selection:
        """The same for a call; with `whole`, of models that cut no text. Raises NoModelError.

        In a partial call texts that are too long fail by themselves, so that others are embedded where no model fits.
        """
        try:
            return await self.select(texts, replace(criteria, require_fit=criteria.require_fit or whole))
        except NoModelError:
            if not whole or not partial or criteria.require_fit:
                raise
        return await self.select(texts, criteria)

    async def check_privacy(self, pin: Pin, terms: CallOptions, *, named: bool = False) -> None:
        """Raise UsageError where texts are to stay on this machine, and the model of their collection lets them leave.

        A call that names its model is not asked where the texts go.
        """
        if not named and self.criteria(terms.criteria).require_local:
            away = await asyncio.to_thread(self._gets_texts, pin.model)
            if away:
                raise UsageError(
                    f"collection {pin.collection!r} has vectors of {pin.model}, and {away}; require_local forbids that"
                )

    def _gets_texts(self, model: str) -> str:
        with self._lock:
            return self._opened().gets_texts(model)

    async def known(self) -> tuple[Candidate, ...]:
        """Every model that may be selected, here or elsewhere."""
        return await asyncio.to_thread(self._known)

    def _known(self) -> tuple[Candidate, ...]:
        with self._lock:
            return self._opened().known()

    def _opened(self) -> Candidates:
        if self._candidates is None:
            self._candidates = Candidates(self._config)
        return self._candidates

    def _select(
        self, texts: Sequence[str], criteria: ModelSelectionCriteria, anywhere: bool, totals: TokenTotals | None
    ) -> Selection:
        sample = sample_of(texts)
        analysis = analyze(texts, sample=sample)
        with self._lock:
            counted = self._opened().counted(texts, sample, totals=totals)
        return select(counted, criteria, analysis, anywhere=anywhere)

    def check_space(self, pin: Pin, space: Space, input_type: InputType) -> None:
        """Raise SpaceMismatchError unless vectors of a space may be compared with those of a pinned collection.

        Facts that an older version did not write into the pin are accepted, and told once.
        """
        comparison = comparable(space, pin.space)
        if not comparison:
            raise pinned_elsewhere(pin, space, input_type)
        if comparison.unknown and pin.collection not in self._told:
            self._told.add(pin.collection)
            _log.warning(
                "the pin of collection %r was written by an older version and does not name the %s of its vectors; "
                "they are taken for those of %s. `embedway budget pins --prove COLLECTION --by DEST` proves it",
                pin.collection,
                " and ".join(comparison.unknown),
                space.id,
            )

    async def claim(self, collection: str, model: str, space: Space) -> tuple[Pin, bool]:
        """The pin of a collection, made if there is none, and whether it is this call's to confirm or withdraw."""
        mine = new_pin(collection, model, space, uuid.uuid4().hex)
        pin = await self.pins.claim(mine, CLAIM_S)
        return pin, pin.claim == mine.claim

    @contextlib.asynccontextmanager
    async def writing(self, pin: Pin | None, *, mine: bool) -> AsyncIterator[list[bool]]:
        """Hold a pin while vectors are made for its collection; the list is told whether there are any.

        `pin` is None where none is to be held, as for queries. Raises SpaceMismatchError where another space was first
        after all: the claim may be withdrawn, or run out, while a write that joined it goes on.
        """
        written: list[bool] = []
        if pin is None or not pin.claim:
            yield written
            return
        renewing = asyncio.create_task(self._renew(pin))
        try:
            yield written
        finally:
            renewing.cancel()
            if not any(written) and mine:
                await asyncio.shield(self._withdraw(pin))
        if any(written):
            held = await self.pins.confirm(pin)
            if not comparable(pin.space, held.space):
                raise pinned_elsewhere(held, pin.space, "document")

    async def _withdraw(self, pin: Pin) -> None:
        try:
            await self.pins.withdraw(pin)
        except LedgerError as error:
            # Why the write failed is what counts; the claim ends with its lease.
            _log.warning("the claim on a collection could not be withdrawn: %s", error)

    async def _renew(self, pin: Pin) -> None:
        while True:
            await self._sleep(CLAIM_S / 3)
            try:
                await self.pins.renew(pin, CLAIM_S)
            except LedgerError as error:
                _log.warning("the claim on a collection could not be renewed: %s", error)

    async def aclose(self) -> None:
        """Give files and connections back."""
        if self._pins is not None:
            await self._pins.aclose()


def for_dimensions(criteria: ModelSelectionCriteria, dimensions: int | None) -> ModelSelectionCriteria:
    """The criteria of a call that asks for a size itself."""
    return criteria if dimensions is None else replace(criteria, dimensions=dimensions)


def selected(selection: Selection, place: int = 0, too_dear: Sequence[tuple[str, int | None]] = ()) -> Selected:
    """What the receipt tells of a selection, of which the model in this place was taken."""
    row = selection.ranked[place]
    assert row.score is not None  # noqa: S101  it is ranked
    return Selected(
        row.model,
        row.score,
        tuple((other.model, other.score or 0.0) for other in selection.ranked),
        selection.criteria.to_json(),
        tuple(too_dear),
    )


def pinned_elsewhere(pin: Pin, space: Space, input_type: InputType) -> SpaceMismatchError:
    """The error for vectors that do not belong into a collection."""
    return SpaceMismatchError(
        collection=f"collection {pin.collection!r}",
        claimed=bool(pin.claim),
        collection_space=pin.space.id,
        asked_space=explained(space, comparable(space, pin.space), pin.space),
        asked="the query" if input_type == "query" else "these vectors",
    )


def nothing_fits(
    most: int, too_dear: Sequence[tuple[str, int | None]], *, limit: str = MAX_COST
) -> BudgetExceededError:
    """The error of a call whose `max_cost`, or other limit, buys none of the models that would do."""
    known = [(cost, model) for model, cost in too_dear if cost is not None]
    if not known:
        names = ", ".join(model for model, _ in too_dear)
        message = f"{limit} is ${usd(most)}, and no price is known of {names}; give one of them a price"
        return BudgetExceededError(f"{message}; nothing was sent", budget=limit, needed=None, left=most)
    cost, model = min(known)
    return BudgetExceededError(
        f"{limit} is ${usd(most)}, and the cheapest model that would do is {model}, which may cost ${usd(cost)}; "
        "nothing was sent",
        budget=limit,
        needed=cost,
        left=most,
    )
