"""Errors of calls that a spending limit refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.errors import BudgetExceededError
from embedway.ledger.base import moment
from embedway.money import usd

if TYPE_CHECKING:
    from embedway.ledger.account import CallBudget
    from embedway.ledger.base import Refused

MAX_COST = "max_cost"


def budget_exceeded(refused: Refused, needed: int | None, *, model: str = "", note: str = "") -> BudgetExceededError:
    """Return the error for a reservation of `needed` nano-dollars that a budget refuses; None for an unknown price."""
    limit = refused.limit
    if refused.restored is not None:
        message = (
            f"the ledger was restored from a backup of {moment(refused.restored.books_of)}, and later spending is "
            f"missing: budget {limit.name!r} refuses every call, and the request was not sent. Check "
            "`embedway budget show`, lower the budgets by the missing spending (`embedway budget set NAME USD`, or "
            "the settings), then allow spending again with `embedway budget confirm`"
        )
    else:
        when = "in all" if limit.period == "total" else f"in {refused.period}"
        scope = "" if limit.scope == "*" else f" for {limit.scope.replace(':', ' ')}"
        cost = "has no known price" if needed is None else f"may cost ${usd(needed)}{note}"
        advice = f"; {_price_advice(model)}" if needed is None else ""
        message = (
            f"the call {cost}, and budget {limit.name!r} allows ${usd(limit.nanousd)} {when}{scope}, of which "
            f"${usd(refused.left)} is left; the request was not sent{advice}"
        )
    scope = limit.scope if refused.restored is None else "*"  # a restored ledger concerns all callers
    return BudgetExceededError(message, budget=limit.name, needed=needed, left=refused.left, scope=scope)


def max_cost_exceeded(call_budget: CallBudget, needed: int | None, left: int, *, note: str = "") -> BudgetExceededError:
    """Return the error for `needed` nano-dollars that exceed the call's own `max_cost`; None for an unknown price."""
    model, max_cost = call_budget.purpose.model, usd(call_budget.max_nanousd or 0)
    if needed is None:
        reason = f"{model} has no known price, and max_cost is ${max_cost}; {_price_advice(model)}"
    else:
        rest = "" if left == call_budget.max_nanousd else f", of which ${usd(left)} is left"
        reason = f"the call may cost ${usd(needed)} with {model}{note}; max_cost is ${max_cost}{rest}"
    return BudgetExceededError(f"{reason}; the request was not sent", budget=MAX_COST, needed=needed, left=left)


def _price_advice(model: str) -> str:
    """Return the setting for a model's price: one of the settings has it in its own table."""
    from embedway.catalog import default_catalog  # noqa: PLC0415  only for this error
    from embedway.catalog.services import default_services  # noqa: PLC0415

    if model.startswith("hf:") or model in default_catalog() or model.casefold() in default_services():
        table, key = f'[embedding.model_benchmarks."{model}"]', "cost_per_million_tokens"
    else:
        table, key = "[models.NAME]", "price_usd_per_million_tokens"
    return f'set a price for the model: write {key} = "0.02" in {table} ("0" if it is free)'


def estimate_note(model: str) -> str:
    """Return the note that a cost is twice its estimate."""
    return f" (twice its estimate, because {model} has no tokenizer here)"
