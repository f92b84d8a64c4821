"""Options of a call that determine its model, and the chosen model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway.arguments import as_max_nanousd, check_name, check_names, is_a
from embedway.config.local_models import AUTO
from embedway.errors import UsageError
from embedway.ledger.account import CallBudget
from embedway.ledger.base import Purpose
from embedway.selection.criteria import ModelSelectionCriteria
from embedway.text import shown, shown_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.ledger.pins import Pin
    from embedway.money import Amount
    from embedway.types import Overflow, Selected


@dataclass(frozen=True, slots=True)
class CallOptions:
    """Selection criteria, collection, API key to charge, maximum cost, and tenant of a call."""

    criteria: ModelSelectionCriteria | str | None = None
    collection: str = ""
    api_key_name: str = ""
    max_cost_nanousd: int | None = None
    #: Models for the whole call, in another space, if the first one fails.
    backup: tuple[str, ...] = ()
    #: Tenant of the gateway, whose cache is used; empty for the default tenant.
    tenant: str = ""

    @classmethod
    def of(
        cls,
        criteria: ModelSelectionCriteria | str | None,
        collection: str,
        api_key_name: str,
        max_cost: Amount | None,
        backup: Sequence[str] | None = None,
        *,
        tenant: str = "",
    ) -> CallOptions:
        """Check the arguments of a call. Raises UsageError."""
        if criteria is not None and not is_a(criteria, (ModelSelectionCriteria, str)):
            raise UsageError(
                f"criteria is {shown(criteria)}; it must be ModelSelectionCriteria, or the name of a preset"
            )
        if is_a(criteria, str):
            criteria = str.__str__(criteria)  # the name of a preset
        collection = "" if collection is None else check_name(collection, "collection")
        api_key_name = "" if api_key_name is None else check_name(api_key_name, "api_key_name")
        max_cost_nanousd = as_max_nanousd(max_cost)
        names = check_names(backup, "backup") or ()
        if names and collection:
            raise UsageError(
                f"backup is set for collection {shown_name(collection)}, but a collection has vectors of one space, "
                "and those of a backup are of another; leave backup out, or embed without a collection"
            )
        return cls(criteria, collection, api_key_name, max_cost_nanousd, names, tenant)

    def wants_selection(self, default_model: str) -> bool:
        """Return whether a call without a model selects one: if it has criteria, or without a default model."""
        if self.criteria is not None:
            return True
        return default_model == AUTO and (bool(self.collection) or self.max_cost_nanousd is not None)

    def spending(self, model: str) -> CallBudget:
        """Return the budgets to charge for a call with a model, and the call's own limit."""
        return CallBudget(Purpose(model, self.collection, self.api_key_name), self.max_cost_nanousd)


@dataclass(frozen=True, slots=True)
class ChosenModel:
    """The model of a call, by a name that opens it, with its pin or selection."""

    model: str
    dimensions: int | None
    pin: Pin | None = None
    selected: Selected | None = None
    #: Whether vectors have length 1; None for those that the model returns.
    normalize: bool | None = None
    #: Handling of texts over the model's limit, in place of the call's own; None for the call's.
    on_overflow: Overflow | None = None
