"""Baselines of an embedder: create, check, list and remove them, and keep the state of each route."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from embedway._version import __version__
from embedway.errors import BadVectorsError, BudgetExceededError, EmbedwayError, LedgerError, UsageError
from embedway.ledger.account import CallBudget
from embedway.ledger.base import Purpose
from embedway.ledger.records import UnreadableRecordError
from embedway.money import usd
from embedway.pipeline.baseline_store import BaselineStore
from embedway.pipeline.route_answers import RouteAnswers, Usage, planned_texts, request_of
from embedway.pipeline.route_states import RouteStates
from embedway.quality.baseline import Baseline, PairSet, RouteBaseline
from embedway.quality.baseline_reports import (
    BaselineReport,
    BaselineSummary,
    QualityCheck,
    QualityPlan,
    SemanticCheck,
    summary_of,
)
from embedway.quality.canaries import CANARY_VERSION
from embedway.quality.drift import Observation, RouteCheck, advice_for, common_results, compare
from embedway.quality.noise import CEILING
from embedway.quality.pair_sets import new_sets, usable_sets
from embedway.quality.retrieval import accuracy
from embedway.quality_commands import command
from embedway.space import INPUT_TYPES
from embedway.telemetry.operations import DriftDetails
from embedway.text import printable, shown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from embedway.config import Config
    from embedway.ledger.budgets import Budgets
    from embedway.ledger.records import Records
    from embedway.models.base import Model
    from embedway.quality.pairs import Pair
    from embedway.quality.quarantine import Quarantines
    from embedway.types import Vectors

_log = logging.getLogger("embedway.quality")
_NO_BASELINE = "no baseline for comparison"
#: Errors that end a baseline or check of all routes: no other route helps.
_FATAL = (BudgetExceededError, LedgerError)


@dataclass(slots=True)
class Baselines:
    """Baselines in the records of the ledger's store."""

    config: Config
    records: Records | None
    budgets: Budgets
    quarantines: Quarantines | None
    #: Returns seconds since 1970.
    clock: Callable[[], float] = time.time
    _states: RouteStates | None = field(init=False, default=None)
    #: Spaces without a baseline that were reported.
    _missed: set[str] = field(init=False, default_factory=set)

    @property
    def store(self) -> Records:
        """The records. Raises UsageError if there is no store."""
        if self.records is None:
            raise UsageError(
                "baselines are stored with the ledger, and ledger.backend is none: set it to sqlite or redis"
            )
        return self.records

    @property
    def stored(self) -> BaselineStore:
        """The stored baselines. Raises UsageError if there is no store."""
        return BaselineStore(self.store)

    @property
    def states(self) -> RouteStates:
        """The state of each route."""
        if self._states is None:
            self._states = RouteStates(self.store, self.budgets, self.quarantines, self.config.quality.on_drift)
        return self._states

    async def plan(self, model: Model, pairs: Sequence[Pair] | None, *, is_baseline: bool) -> QualityPlan:
        """Return the estimated work of a baseline or check."""
        try:
            stored = await self._get(model)
        except UnreadableRecordError:
            if not is_baseline:
                raise
            stored = None
        sets = new_sets(pairs, stored) if stored is None or is_baseline else usable_sets(stored)[0]
        return await self._planned(model, sets, model.route_names, is_baseline=is_baseline)

    async def _planned(
        self, model: Model, sets: tuple[PairSet, ...], routes: Sequence[str], *, is_baseline: bool
    ) -> QualityPlan:
        texts, requests, tokens = await _work_of_route(model, sets, is_baseline=is_baseline)
        cost, count = _price(model, routes, tokens), len(routes)
        return QualityPlan(model.name, tuple(routes), texts * count, requests * count, tokens * count, cost)

    async def create(
        self,
        model: Model,
        pairs: Sequence[Pair] | None,
        *,
        replaces: bool,
        max_nanousd: int | None,
        report: Callable[[str], None],
    ) -> BaselineReport:
        """Create the baseline of a model's space, or add the routes that it lacks.

        Nothing is sent if the estimated cost exceeds a limit. If a limit refuses a later request, the routes that were
        measured are stored, and the error says so.
        """
        async with self.stored.creation(model.space.id):
            old = await self._old(model, pairs, replaces=replaces, report=report)
            kept = {} if old is None or replaces else dict(old.routes)
            sets = new_sets(pairs, old) if old is None or replaces else usable_sets(old)[0]
            missing = [route for route in model.route_names if route not in kept]
            report((await self._planned(model, sets, missing, is_baseline=True)).summary)
            if replaces and pairs is None and len(sets) > 1:
                own = sum(len(one.pairs) for one in sets if one.name == "own")
                report(f"the {own:,} own pairs of the replaced baseline are kept; `--pairs FILE` replaces them")
            usage, spending = Usage(), CallBudget(Purpose(model.name), max_nanousd)
            await self._reserve_all(model, missing, sets, spending, is_baseline=True)
            answers = [RouteAnswers(model, route, spending, usage) for route in missing]
            made, failed, stop = await self._measure_all(answers, sets, report)
            new = Baseline(model.name, model.space, self.clock(), __version__, CANARY_VERSION, sets, {**kept, **made})
            if stop is not None and old is not None and replaces:
                # Its other routes are kept, if they can be compared with the new ones.
                made = made if old.has_texts_of(new) else {}
                new = replace(new, routes={**old.routes, **made})
            if not made:
                raise _with_note(stop, usage, ()) if stop is not None else failed[0][1]
            differences = () if old is None or not replaces else tuple(self._differences(old, new, made))
            for one in differences:
                report(f"difference of {one.route} to the replaced baseline: {'; '.join(one.reasons) or 'none'}")
            new = await self.stored.put(new, replaces=replaces)
            for route in made:
                await self.states.clear(model.space.id, route)
        if stop is not None:
            raise _with_note(stop, usage, made)
        reasons = tuple((route, str(error)) for route, error in failed)
        return BaselineReport(summary_of(new), usage.texts, usage.tokens, usage.cost_nanousd, reasons, differences)

    async def check(
        self, model: Model, *, max_nanousd: int | None = None, report: Callable[[str], None] | None = None
    ) -> QualityCheck:
        """Compare all routes of a model with the baseline of its space, and keep their states."""
        baseline = await self._get(model)
        if baseline is None:
            raise UsageError(await self._missing(model))
        sets, notes = usable_sets(baseline)
        if report is not None:
            report((await self._planned(model, sets, model.route_names, is_baseline=False)).summary)
        usage, spending, began = Usage(), CallBudget(Purpose(model.name), max_nanousd), self.clock()
        routes: list[RouteCheck] = []
        compared = [route for route in model.route_names if route in baseline.routes]
        await self._reserve_all(model, compared, sets, spending, is_baseline=False)
        for route in model.route_names:
            answers = RouteAnswers(model, route, spending, usage)
            try:
                found = await self._check_route(answers, baseline, sets)
            except _FATAL as error:
                raise _with_note(error, usage, [one.route for one in routes]) from None
            routes.append(await self.states.record(model, found, baseline.created, began, self.clock()))
        lost = [route for route in baseline.routes if route not in model.route_names]
        if lost:
            notes = (*notes, f"not set up here, and not checked: {', '.join(lost)}")
        return QualityCheck(
            model.name,
            model.space.id,
            began,
            baseline.created,
            tuple(routes),
            notes,
            usage.texts,
            usage.tokens,
            usage.cost_nanousd,
        )

    async def semantic(self, model: Model, *, max_nanousd: int | None) -> SemanticCheck:
        """Compare the accuracy of a model, by the routes that answer, with its baseline."""
        baseline = None if self.records is None else await self._get(model)
        if baseline is None:
            return SemanticCheck(valid=True, message=_NO_BASELINE)
        sets, notes = usable_sets(baseline)
        usage = Usage()
        results = await RouteAnswers(model, "", CallBudget(Purpose(model.name), max_nanousd), usage).results(sets)
        stored = [baseline.routes[route] for route in usage.routes if route in baseline.routes]
        both = [common_results(one, results) for one in stored]
        facts = [(accuracy(now.values()), accuracy(before.values()), len(now)) for now, before in both]
        # Of several routes, the one with the best baseline decides.
        new, old, count = max(facts, key=lambda one: one[1] or 0.0, default=(None, None, 0))
        routes = tuple(usage.routes)
        if new is None or old is None:
            message = "; ".join((_NO_BASELINE, *notes))
            return SemanticCheck(valid=True, message=message, routes=routes, cost_nanousd=usage.cost_nanousd)
        least = self.config.quality.min_accuracy_ratio
        is_valid = new >= old * least
        message = (
            "" if is_valid else f"accuracy of the pairs is {new:.1%}, below {least:.0%} of the baseline's {old:.1%}"
        )
        return SemanticCheck(is_valid, message, new, old, count, routes, usage.cost_nanousd)

    def report_missing(self, model: Model) -> None:
        """Report that a scheduled check compares nothing. The log has it once for each space."""
        if model.space.id not in self._missed:
            self._missed.add(model.space.id)
            _log.warning(
                "quality.check_every_s is set, but %s has no baseline, so its routes are not checked: create one with "
                "%s. This is logged once",
                shown_name(model.space.id),
                command("baseline", model.name),
            )
        for route in model.route_names:
            self.budgets.hooks.event(DriftDetails, model.name, model.space.id, route, "no_baseline", False, None, None)

    async def all(self) -> list[BaselineSummary]:
        """Return all baselines that can be read, with the last check of each route; others are logged."""
        found = [summary_of(one) for one in await self.stored.all()]
        return [replace(one, checks=await self.states.last_checks(one.space_id)) for one in found]

    async def remove(self, space_id: str) -> bool:
        """Remove a baseline and the states of its routes, also if they cannot be read. Return False without one."""
        await self.states.clear(space_id, None)
        return await self.stored.remove(space_id)

    async def _get(self, model: Model) -> Baseline | None:
        return await self.stored.get(model.space.id)

    async def _old(
        self, model: Model, pairs: Sequence[Pair] | None, *, replaces: bool, report: Callable[[str], None]
    ) -> Baseline | None:
        """Return the stored baseline. With `replaces`, one that cannot be read counts as absent."""
        try:
            old = await self._get(model)
        except UnreadableRecordError as error:
            if not replaces:
                raise
            report(f"the old baseline is replaced without a comparison, because it cannot be read: {error}")
            return None
        if old is not None and not replaces and (pairs is not None or set(model.route_names) <= set(old.routes)):
            raise UsageError(
                f"{old.space.id} has a baseline of {_day(old.created)}: {command('check', model.name)} compares with "
                f"it, and {command('baseline', model.name, '--replace')} replaces it"
            )
        return old

    async def _reserve_all(
        self,
        model: Model,
        routes: Sequence[str],
        sets: tuple[PairSet, ...],
        spending: CallBudget,
        *,
        is_baseline: bool,
    ) -> None:
        """Raise BudgetExceededError if a limit does not allow the estimated cost of all requests to the routes.

        The reservation ends at once; each request then has its own.
        """
        if _price(model, routes, 1_000_000) == 0:
            return
        _, _, tokens = await _work_of_route(model, sets, is_baseline=is_baseline)
        account = await self.budgets.open(
            spending,
            lambda tokens, _searches: _price(model, routes, tokens),
            tokens=tokens,
            texts=0,
            exact=model.profile.exact,
        )
        await account.close()

    async def _measure_all(
        self, routes: Sequence[RouteAnswers], sets: tuple[PairSet, ...], report: Callable[[str], None]
    ) -> tuple[dict[str, RouteBaseline], list[tuple[str, EmbedwayError]], EmbedwayError | None]:
        """Return the measured routes, those that failed with the error, and the error that ended the measurement."""
        made: dict[str, RouteBaseline] = {}
        failed: list[tuple[str, EmbedwayError]] = []
        for answers in routes:
            report(f"measuring {answers.route}")
            try:
                made[answers.route] = await self._measure(answers, sets)
            except _FATAL as error:
                return made, failed, error
            except EmbedwayError as error:
                failed.append((answers.route, error))
        return made, failed, None

    async def _missing(self, model: Model) -> str:
        others = [one for one in await self.stored.spaces_of(model.name) if one != model.space.id]
        other = f" (there is one of its other space {', '.join(map(printable, others))})" if others else ""
        create = command("baseline", model.name)
        return f"{shown_name(model.space.id)} has no baseline{other}: create one with {create}"

    async def _measure(self, answers: RouteAnswers, sets: tuple[PairSet, ...]) -> RouteBaseline:
        measured = await answers.noise()
        largest = max(noise.largest for _, noise in measured.values())
        if largest > CEILING:
            raise BadVectorsError(
                f"gives one text vectors with a cosine of {1 - largest:.3f} in different requests, so it can have no "
                "baseline: its rows may be permuted",
                route=answers.route,
            )
        return RouteBaseline(
            answers.route,
            self.clock(),
            answers.model.price_on(answers.route, 1_000_000),
            {kind: vectors for kind, (vectors, _) in measured.items()},
            {kind: noise for kind, (_, noise) in measured.items()},
            await answers.results(sets),
        )

    async def _check_route(self, answers: RouteAnswers, baseline: Baseline, sets: tuple[PairSet, ...]) -> RouteCheck:
        route, model = answers.route, answers.model.name
        stored = baseline.routes.get(route)
        if stored is None:
            reason = "the baseline does not contain this route"
            return RouteCheck(route, "unchecked", (reason,), f"Add it with {command('baseline', model)}")
        if baseline.canary_version != CANARY_VERSION:
            reason = f"the baseline has version {baseline.canary_version} of the canaries, not {CANARY_VERSION}"
            advice = f"Create a new one with {command('baseline', model, '--replace')}"
            return RouteCheck(route, "unchecked", (reason,), advice)
        seed = random.SystemRandom().getrandbits(32)
        try:
            found = await answers.observe(sets, seed)
        except _FATAL:
            raise
        except BadVectorsError as error:
            return RouteCheck(route, "drifted", (_fault_of(error),), advice_for("drifted", model))
        except EmbedwayError as error:
            reason = str(error).removeprefix(f"{route}: ")
            return RouteCheck(route, "unchecked", (reason,), advice_for("unchecked", model))
        compared = compare(stored, found, min_accuracy_ratio=self.config.quality.min_accuracy_ratio)
        return replace(compared, advice=advice_for(compared.verdict, model))

    def _differences(self, old: Baseline, new: Baseline, measured: Iterable[str]) -> list[RouteCheck]:
        """Return the differences of a new baseline to the old one, for common routes that were measured."""
        ratio = self.config.quality.min_accuracy_ratio
        same = {one.name for one in new.sets if (one.name, one.digest) in {(o.name, o.digest) for o in old.sets}}
        found = []
        for route in measured:
            one = new.routes[route]
            if route in old.routes and old.canary_version == new.canary_version:
                results = {name: results for name, results in one.results.items() if name in same}
                vectors: dict[str, list[Vectors]] = {kind: [one.vectors[kind]] for kind in INPUT_TYPES}
                found.append(compare(old.routes[route], Observation(vectors, results), min_accuracy_ratio=ratio))
        return found


async def _work_of_route(model: Model, sets: Sequence[PairSet], *, is_baseline: bool) -> tuple[int, int, int]:
    """Return the texts, requests and tokens of a baseline or check for one route."""
    texts = requests = tokens = 0
    for kind, rows, times, sent in planned_texts(sets, is_baseline=is_baseline):
        work = await model.work(request_of(model, kind, rows, CallBudget(Purpose(model.name)), ""))
        texts, requests, tokens = texts + len(rows) * times, requests + sent, tokens + work.tokenized.tokens * times
    return texts, requests, tokens


def _price(model: Model, routes: Sequence[str], tokens: int) -> int | None:
    """Return the price of `tokens` on each of the routes, in nano-dollars; None if one is unknown."""
    costs = [model.price_on(route, tokens) for route in routes]
    return sum(one for one in costs if one is not None) if None not in costs else None


def _with_note(error: EmbedwayError, usage: Usage, routes: Iterable[str]) -> EmbedwayError:
    """Return an error with a note on earlier requests, if there were any."""
    if usage.texts:
        cost = "an unknown cost" if usage.cost_nanousd is None else f"${usd(usage.cost_nanousd)}"
        done = ", ".join(routes)
        kept = f"the results of {done} are stored" if done else "no result is stored"
        error.add_note(f"before that, {usage.texts:,} texts were sent for {cost}; {kept}")
    return error


def _fault_of(error: BadVectorsError) -> str:
    """Return a refused answer as the difference that it is. Here, switching the check off is no remedy."""
    rows = f"{len(error.rows)} rows of an answer" if error.rows else "an answer"
    if error.check == "same_vector":
        return f"rows: {rows} have the vector of another text: rows are permuted, or one vector is for different texts"
    if error.check == "near_constant":
        return f"rows: {rows} have nearly equal vectors for clearly different texts"
    return error.message


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
