"""Backup models of a call: checks of their names, the errors that they help with, and notes in the receipt."""

from __future__ import annotations

import asyncio
import copy
import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar, cast

from embedway.config.local_models import AUTO
from embedway.errors import (
    AuthenticationError,
    BadVectorsError,
    BatchError,
    BudgetExceededError,
    ClosedError,
    ConfigError,
    DeadlineError,
    DimensionsError,
    EmbedwayError,
    InputError,
    MissingExtraError,
    NoRouteError,
    ProtocolError,
    QuotaExceededError,
    RateLimitedError,
    RefusedInputError,
    RuntimeUnavailableError,
    UnavailableError,
    UnsupportedModelError,
    UpstreamError,
    UsageError,
    WeightsError,
)
from embedway.local import loading
from embedway.local.recipe import task_of
from embedway.money import usd
from embedway.pipeline.request import inspect
from embedway.providers.names import full_name, key_of, library_of, service_of
from embedway.sizes import VectorSizes
from embedway.text import shown_name
from embedway.types import EmbedResult
from embedway.weights.store import WeightsStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from embedway.config import Config
    from embedway.ledger.account import CallBudget
    from embedway.pipeline.request import Call
    from embedway.selection.call_options import CallOptions, ChosenModel
    from embedway.selection.selector import ModelSelector
    from embedway.types import Plan, Receipt

R = TypeVar("R")

_log = logging.getLogger("embedway.pipeline")

#: Errors that another model may help with, and their text in receipts and the log; never a message of a service.
_HELPED: tuple[tuple[type[EmbedwayError], str], ...] = (
    (AuthenticationError, "its service refused the key"),
    (QuotaExceededError, "the quota of its account is used up"),
    (RateLimitedError, "its service is over its rate limit"),
    (UnavailableError, "its service is unavailable"),
    (ProtocolError, "its service did not answer as its API requires"),
    (UpstreamError, "its service failed"),
    (NoRouteError, "none of its routes succeeded"),
    (DeadlineError, "it could not answer in time"),
    (BudgetExceededError, "a spending limit does not allow it"),
    (BadVectorsError, "it returned invalid vectors"),
    (BatchError, "a batch failed"),
    (WeightsError, "its files cannot be used"),
    (RuntimeUnavailableError, "nothing here can run it"),
    (MissingExtraError, "a package that it needs is not installed"),
    (ConfigError, "it is not set up here"),
)


def reason_of(error: EmbedwayError) -> str:
    """Return why a model failed, in our own words; empty if another model does not help."""
    if isinstance(error, RefusedInputError):
        return ""
    return next((words for kind, words in _HELPED if isinstance(error, kind)), "")


async def backups_of(
    call: Call, choice: ChosenModel, options: CallOptions, *, config: Config, selector: ModelSelector
) -> tuple[str, ...]:
    """Check the names of a call's backups, and return those that are other models than the chosen one.

    Nothing is opened or sent. Raises UnknownModelError, UnsupportedModelError, DimensionsError and UsageError.
    """
    if call.has_token_ids:
        raise UsageError("token ids belong to one model, so they have no backup; pass the texts, or leave backup out")
    default = config.embedding.default_model
    names = [default if name == AUTO else name for name in options.backup]
    sized = replace(call, dimensions=choice.dimensions)
    found = await asyncio.to_thread(_check_names, names, choice.model, sized, config)
    criteria = selector.criteria(options.criteria)
    if has_criteria(call, options, config):
        if choice.selected is not None and choice.selected.warnings:
            criteria = replace(criteria, min_accuracy=0)  # the selected model is below the default too
        texts = inspect(replace(call, partial=True), config.embedding.on_overflow).texts
        for name in found:
            reasons = await selector.reasons_against(name, texts, criteria)
            if reasons:
                unmet = "; ".join(f"{one.requirement}: {one.message}" for one in reasons)
                raise UsageError(
                    f"backup names {shown_name(name)}, which does not meet the criteria ({unmet}); leave these "
                    "requirements out, or name another backup"
                )
    elif call.model == AUTO and criteria.require_local:
        for name in found:
            reason = await selector.leaves_machine(await asyncio.to_thread(full_name, name, config))
            if reason:
                raise UsageError(f"backup names {shown_name(name)}, but {reason}; require_local forbids that")
    return found


def has_criteria(call: Call, options: CallOptions, config: Config) -> bool:
    """Return whether criteria select the first model of a call, so that its backups must meet them too."""
    return call.model == AUTO and options.wants_selection(config.embedding.default_model)


def call_of_backups(call: Call, options: CallOptions, *, config: Config, selector: ModelSelector) -> Call:
    """Return the call for backups: if the criteria require that texts fit, a text that is too long is an error."""
    on_overflow = call.on_overflow or config.embedding.on_overflow
    if (
        on_overflow == "truncate"
        and has_criteria(call, options, config)
        and selector.criteria(options.criteria).require_fit
    ):
        return replace(call, on_overflow="error")
    return call


def _check_names(names: Sequence[str], first: str, call: Call, config: Config) -> tuple[str, ...]:
    keys = {key_of(first, config)}
    found = []
    for name in names:
        key = key_of(name, config)
        _check_name(name, call, config)
        if key not in keys:
            keys.add(key)
            found.append(name)
    return tuple(found)


def _check_name(name: str, call: Call, config: Config) -> None:
    """Raise the error of a name that cannot be a backup, from facts on this machine."""
    service, dimensions = service_of(name, config), call.dimensions
    if call.normalize is False and (library_of(name) or (service is not None and service.normalized)):
        raise UsageError(
            f"normalize is False, but backup names {shown_name(name)}, which returns only vectors of length 1"
        )
    if library_of(name):
        return  # the library knows its models
    facts = service or loading.resolve(name).facts
    task = _task_in_folder(name, config) if facts is None else facts.task
    if task == "rerank":
        raise UnsupportedModelError(
            f"backup names {shown_name(name)}, which is a reranker: it scores pairs of texts and returns no vectors"
        )
    if facts is None or dimensions is None:
        return
    supported = VectorSizes(facts.sizes) if service is None else service.supported
    if dimensions not in supported:
        raise DimensionsError(
            f"the backup {facts.name}", asked=dimensions, sizes=supported.listed, min_dimensions=supported.least
        )


def _task_in_folder(name: str, config: Config) -> str:
    """Return the task of a folder or repository, if its files are here."""
    named, store = loading.resolve(name), WeightsStore(config.store_settings())
    if named.folder is not None:
        return task_of(store.open_folder(named.folder).path)
    here = store.find_repository(named.repository or "", named.revision)
    return "embed" if here is None else task_of(here.path)


@dataclass(slots=True)
class Failures:
    """The models of one call that failed, in order, and what they have spent."""

    failed: list[tuple[str, EmbedwayError]] = field(default_factory=list)
    budgets: list[CallBudget] = field(default_factory=list)

    def spending(self, options: CallOptions, model: str) -> CallBudget:
        """Return the budgets for the next model; its limit is what the earlier ones left."""
        budget = options.spending(model)
        budget.spent = sum(one.spent + one.held for one in self.budgets[-1:])  # the last contains the earlier ones
        self.budgets.append(budget)
        return budget

    def with_failed_models(self, result: EmbedResult) -> EmbedResult:
        """Return the result of a backup, whose receipt names the failed models and includes their cost."""
        if not self.failed:
            return result
        model, space = result.receipt.model, result.space.id
        note = f"{self._reasons()}; all vectors are of the backup {model}, in the space {space}"
        receipt = replace(result.receipt, notes=(note, *result.receipt.notes))
        return replace(result, receipt=_with_costs(receipt, self.budgets[:-1]))

    def with_note_on_backup(self, plan: Plan) -> Plan:
        """Return the plan of a backup, with a note that names the models that cannot be planned."""
        if not self.failed:
            return plan
        return replace(plan, notes=(f"{self._reasons()}; the plan is of the backup {plan.model}", *plan.notes))

    def _reasons(self) -> str:
        return ", and ".join(f"{shown_name(name)} failed: {reason_of(error)}" for name, error in self.failed)

    def with_failed_backups(self, result: EmbedResult) -> EmbedResult:
        """Return the partial result of the first model, whose receipt names the backups that failed too."""
        names = ", ".join(shown_name(name) for name, _ in self.failed[1:])
        receipt = replace(result.receipt, notes=(*result.receipt.notes, f"backups failed too: {names}"))
        return replace(result, receipt=_with_costs(receipt, self.budgets[1:]))

    def error(self) -> EmbedwayError:
        """Return the error of the first model, with the reasons of the backups."""
        error = copy.copy(self.failed[0][1])
        error.__cause__, error.__suppress_context__ = self.failed[0][1].__cause__, True
        error.backups = tuple((shown_name(name), _in_one_line(other)) for name, other in self.failed[1:])
        return error


async def first_success(
    names: Sequence[str], attempt: Callable[[str, Failures], Awaitable[R]], *, texts: int, is_plan: bool = False
) -> R:
    """Return the result of the first model that succeeds for all texts of a call; `texts` counts the unique ones.

    A backup is used only after an error that another model may help with. Raises the error of the first model, which
    names the backups that failed too. A partial result without any vector is returned if no backup has one.
    """
    failures = Failures()
    kept: EmbedResult | None = None
    for name, following in zip(names, (*names[1:], ""), strict=True):
        try:
            result = await attempt(name, failures)
            if (error := _error_of_all(result)) is None:
                return result
            if isinstance(result, EmbedResult) and not failures.failed:
                kept = result
        except ClosedError:
            raise
        except EmbedwayError as raised:
            # If one text of several is at fault, another model would not help the request as a whole.
            helped = reason_of(raised) and (raised.row is None or texts == 1)
            if not failures.failed and not helped:
                raise
            error = raised
        failures.failed.append((name, error))
        if following and not is_plan:
            why = reason_of(error) or type(error).__name__
            _log.warning("%s failed (%s); using the backup %s", shown_name(name), why, shown_name(following))
    if kept is not None:
        return cast("R", failures.with_failed_backups(kept) if failures.failed[1:] else kept)
    raise failures.error() from failures.failed[0][1].__cause__


def _with_costs(receipt: Receipt, budgets: Sequence[CallBudget]) -> Receipt:
    """Return a receipt that includes the cost of the models that failed."""
    accounts = [account for budget in budgets for account in budget.accounts]
    costs = sum(account.totals.spent + account.sent for account in accounts)
    tokens = sum(account.totals.tokens for account in accounts)
    unpriced = any(account.totals.unpriced for account in accounts)
    if not costs and not tokens and not unpriced:
        return receipt
    unsure = sum(account.totals.unsure + account.sent for account in accounts)
    amount = f"{'may have cost' if unsure else 'cost'} {'an unknown amount' if unpriced else f'${usd(costs)}'}"
    return replace(
        receipt,
        notes=(*receipt.notes, f"requests to models that failed {amount}, which is part of the cost"),
        billed_tokens=receipt.billed_tokens + tokens,
        cost_nanousd=None if unpriced or receipt.cost_nanousd is None else receipt.cost_nanousd + costs,
        unsure_nanousd=receipt.unsure_nanousd + unsure,
        estimated=receipt.estimated or any(account.totals.estimated for account in accounts),
        ledger_entries=(*(one.entry for one in accounts if one.entry is not None), *receipt.ledger_entries),
    )


def _error_of_all(result: object) -> EmbedwayError | None:
    """Return the first error of a partial result in which every valid text failed, and a backup may help; or None."""
    if not isinstance(result, EmbedResult):
        return None
    errors = [error for error in result.errors.values() if not isinstance(error, InputError)]
    valid = len(result.vectors) - (len(result.errors) - len(errors))
    return errors[0] if errors and len(errors) == valid and all(map(reason_of, errors)) else None


def _in_one_line(error: EmbedwayError) -> str:
    alone = copy.copy(error)
    if isinstance(alone, (NoRouteError, UpstreamError)):
        alone.elsewhere = ()  # the first error names the other models that are set up
    return " ".join(part.strip() for part in str(alone).splitlines())
