"""The judge of a mix: what the caller got, the ledger and everything shown, against the server's own bill."""

import math
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
from service_behaviours import BAD, FAILING_TEXT, FINAL, INDEXES, SPOILING_ROWS
from service_play import PRICE
from service_server import score_of, tokens_of, vector_of

from embedway.dispatch.proofs import ORDER_PATTERN
from embedway.errors import BudgetExceededError, EmbedwayError

#: Estimated tokens are reserved twice.
_MARGIN = 2
#: Names of a row in a message: the row of the caller's texts.
_ROW = re.compile(r"\b(?:text|texts|row|rows|document|documents) (\d+)\b")
#: Errors that a text may cause.
_OF_TEXTS = {"RefusedInputError", "BadVectorsError", "UnavailableError", "ProtocolError"}


@dataclass(frozen=True)
class Finding:
    """One fault: its kind, and what was seen."""

    kind: str
    what: str


def judge(seen):
    """Return the faults of an observed mix."""
    found = [Finding("leak" if not leak.startswith("hang") else "hang", leak) for leak in seen.leaks]
    for outcome in seen.outcomes:
        found += _judge_call(seen, outcome)
    return [*found, *_judge_spaces(seen), *_judge_sends(seen), *_judge_money(seen), *_judge_secrets(seen)]


# ---- rows


def is_sound(route):
    """Return whether a route must answer at last."""
    return not (route.final or route.unreachable or route.space != "right" or INDEXES[route.index].effect == "wrong")


def is_tame(mix):
    """Return whether the faults of the mix leave each good text a way, within the limits on attempts."""
    kinds = [kind for route in mix.routes for _, kind, _ in route.poison]
    # Each of these fails some requests in a row, and the circuit opens after eight.
    failing_texts = {text for route in mix.routes for text, kind, _ in route.poison if kind in FAILING_TEXT}
    failing = sum(mix.texts[row] in failing_texts for call in mix.calls for row in set(call.rows))
    faults = [len([one for one in route.faults if one]) for route in mix.routes]
    bad = [len([one for one in route.faults if one in BAD]) for route in mix.routes]
    return (
        mix.budget is None
        and any(map(is_sound, mix.routes))
        # A request that failed on one route goes to the next, and never back.
        and (all(map(is_sound, mix.routes)) or not any(faults))
        and all(route.space == "right" for route in mix.routes)
        and not any(kind in SPOILING_ROWS for kind in kinds)
        and failing <= 2
        and not (failing and any(faults))
        and not (failing and any(route.loading for route in mix.routes))
        and sum(faults) <= 2
        and sum(bad) <= 1
        # A bad answer and a bad row are two bad answers of one text.
        and not (any(bad) and kinds)
    )


def poisoned(mix):
    """Return the texts that some route never answers well."""
    return {text for route in mix.routes for text, _, times in route.poison if times == "always"}


def _judge_call(seen, outcome):
    mix, call, error = seen.mix, outcome.call, outcome.error
    tame = is_tame(mix) and call.cancel_at is None
    if error is None:
        return [*_judge_result(mix, outcome, tame=tame), *_judge_notes(seen, outcome)]
    if not isinstance(error, EmbedwayError):
        return [] if call.cancel_at is not None else [Finding("outside", f"{type(error).__name__}: {error}")]
    at_fault = poisoned(mix)
    bad_rows = [row for row, number in enumerate(call.rows) if mix.texts[number] in at_fault]
    found = _judge_error(mix, error, bad_rows, tame=tame, is_raised=True)
    if tame and not (bad_rows and not call.partial):
        found.append(Finding("lost", f"all texts of a call: {_short(error)}"))
    return found


def _judge_result(mix, outcome, *, tame):
    found, at_fault = [], poisoned(mix)
    errors, rows = outcome.result.errors, _rows(outcome.result)
    for row, text in enumerate(mix.texts[number] for number in outcome.call.rows):
        if row not in errors:
            if not _spaces_of(mix, text, rows[row]):
                found.append(Finding("row", "a wrong vector"))
            continue
        if not np.isnan(rows[row]).all():
            found.append(Finding("row", "a failed row is not NaN"))
        if tame and text not in at_fault:
            found.append(Finding("lost", f"a good text: {_short(errors[row])}"))
        found += _judge_error(mix, errors[row], [row] if text in at_fault else [], tame=tame)
    if errors and not outcome.call.partial:
        found.append(Finding("row", "errors without partial"))
    return found


def _rows(result):
    return result.vectors if hasattr(result, "vectors") else result.scores.reshape(-1, 1)


def _spaces_of(mix, text, row):
    """Return the spaces of the routes in which the row is the vector of the text."""
    if mix.task == "rerank":
        return {"right"} if np.allclose(row, score_of(mix.query, text), atol=1e-3) else set()
    spaces = {route.space for route in mix.routes}
    return {space for space in spaces if np.allclose(row, vector_of(text, space), atol=1e-3)}


def _judge_spaces(seen):
    """All vectors of a model are of one space, whichever of its routes answered first."""
    spaces = set()
    for outcome in seen.outcomes:
        if outcome.result is not None and seen.mix.task == "embed":
            for row, number in enumerate(outcome.call.rows):
                spaces |= _spaces_of(seen.mix, seen.mix.texts[number], outcome.result.vectors[row])
    return [Finding("space", "vectors of two spaces")] if len(spaces) > 1 else []


def _judge_error(mix, error, bad_rows, *, tame, is_raised=False):
    """Judge the class of an error, and the row that it names."""
    found = []
    if isinstance(error, BudgetExceededError):
        return [] if mix.budget is not None else [Finding("class", "a budget without one")]
    named = {int(row) for row in _ROW.findall(str(error))}
    if bad_rows and named - set(bad_rows) and all(map(is_sound, mix.routes)):
        found.append(Finding("name", f"rows {bad_rows} are at fault: {_short(error)}"))
    elif bad_rows and not named and tame and is_raised and type(error).__name__ in _OF_TEXTS:
        found.append(Finding("name", f"no row is named: {_short(error)}"))
    (first, *others) = mix.routes
    if not others and first.final and not (first.key_rotates or first.unreachable):
        wanted = FINAL[first.final].ends_as
        if wanted and type(error).__name__ not in {*wanted, "UpstreamError", "DeadlineError"}:
            found.append(Finding("class", f"{first.final} is not {wanted[0]}: {_short(error)}"))
    return found


def _judge_notes(seen, outcome):
    """An answer without indexes is noted in the receipt."""
    (first, *others) = seen.mix.routes
    receipt = outcome.result.receipt
    if others or INDEXES[first.index].effect != "noted" or outcome.result.errors:
        return []
    if seen.mix.cache != "none":  # other calls may send some of its texts
        return []
    if receipt.unique_texts < 2 or receipt.notes:
        return []
    return [Finding("note", f"no note on index {first.index}")]


def _short(error):
    return f"{type(error).__name__}: {str(error)[:150]!r}"


# ---- requests


def _is_unproved(mix, one):
    """Return whether an answer without index is larger than the probe of the order, so that it is asked again."""
    unindexed = {route.name for route in mix.routes if route.index and INDEXES[route.index].effect == "noted"}
    return one.route in unindexed and len(one.texts) > len(ORDER_PATTERN)


def _judge_sends(seen):
    """No text that was answered well is sent again, and the number of requests is bounded."""
    mix, found = seen.mix, []
    cancelled = {mix.texts[row] for call in mix.calls if call.cancel_at is not None for row in call.rows}
    allowed = Counter(text for call in mix.calls for text in {mix.texts[row] for row in call.rows})
    for text, calls in allowed.items():
        # Scores are not cached.
        most = 1 + _waiting(seen, text) if mix.cache != "none" and mix.task == "embed" else calls
        used = [one for one in seen.bill.served if text in one.good and not one.dropped and not _is_unproved(mix, one)]
        answered = sorted(one.answered_before for one in used)
        if mix.budget is not None or text in cancelled:
            continue
        if len(answered) >= most:
            after = [one for one in seen.bill.served[answered[most - 1] :] if text in one.texts]
            if after:
                found.append(
                    Finding("twice", f"text {mix.texts.index(text)} was answered, and sent {len(after)} times more")
                )
                break
    probes = sum(not any(mix.marker in text for text in one.texts) for one in seen.bill.served)
    sent, most = len(seen.bill.served) - probes, most_requests(mix)
    if sent > most:
        found.append(Finding("requests", f"{sent} requests, at most {most} were expected"))
    if probes > 10 + 4 * (sent + len(mix.calls)):
        found.append(Finding("requests", f"{probes} probes for {sent} requests"))
    if not set(seen.bill.strange_keys) <= set(seen.secrets["key"]):
        found.append(Finding("secret", "an unknown credential was sent"))
    return found


def _waiting(seen, text):
    """Return the calls that may each compute a text, because a concurrent call that was to compute it failed."""
    start = waiting = 0
    for round_ in seen.mix.rounds:
        own, start = seen.outcomes[start : start + len(round_)], start + len(round_)
        having = [one for one in own if text in {seen.mix.texts[row] for row in one.call.rows}]
        waiting += len(having) - 1 if any(one.error is not None for one in having) else 0
    return waiting


def most_requests(mix):
    """Return a generous bound of the requests of a mix."""
    bound = 10
    for call in mix.calls:
        texts = {mix.texts[row] for row in call.rows}
        depth = 2 + math.ceil(math.log2(len(texts) + 1))
        for route in mix.routes:
            bad = len(texts & {text for text, _, _ in route.poison})
            parts = len(texts) if route.max_texts or route.max_tokens else 0
            bound += 6 + min(len(texts), 24) + 3 * bad * depth + 4 * parts + len(route.faults) + route.loading_for
    return bound


# ---- money


def _judge_money(seen):
    """Compare the ledger with the server's bill: reported, estimated and unsure amounts, and the receipts."""
    low, high = expected(seen)
    entries = seen.ledger.values()
    booked = {name: sum(entry[name] for entry in entries) for name in ("spent", "estimated", "unsure")}
    booked["reported"] = booked["spent"] - booked["estimated"] - booked["unsure"]
    found = []
    for name in ("reported", "estimated", "unsure", "spent"):
        if not low[name] * PRICE <= booked[name] <= high[name] * PRICE:
            span = (
                f"{low[name] * PRICE:,}"
                if low[name] == high[name]
                else f"{low[name] * PRICE:,} to {high[name] * PRICE:,}"
            )
            found.append(Finding("money", f"{name} is {booked[name]:,} nano-dollars; the bill is {span}"))
    if any(entry["reserved"] or entry["sent"] or entry["state"] == "open" for entry in entries):
        found.append(Finding("money", "an entry is still open"))
    if seen.mix.budget is not None:
        over = sum(max(0, one.reported - _MARGIN * one.tokens) for one in seen.bill.served) * PRICE
        if booked["spent"] > seen.mix.budget + over:
            found.append(Finding("money", f"{booked['spent']:,} were spent of a hard budget of {seen.mix.budget:,}"))
    for outcome in seen.outcomes:
        if outcome.result is not None:
            receipt = outcome.result.receipt
            own = [seen.ledger[entry] for entry in receipt.ledger_entries if entry in seen.ledger]
            if receipt.cost_nanousd != sum(entry["spent"] for entry in own):
                found.append(
                    Finding(
                        "receipt",
                        f"cost {receipt.cost_nanousd:,}, but entries {sum(entry['spent'] for entry in own):,}",
                    )
                )
            if receipt.unsure_nanousd != sum(entry["unsure"] for entry in own):
                found.append(Finding("receipt", "the unsure part is not that of its entries"))
    return found


def _implausible(mix, one):
    """Return the spans of an implausible report. A lone document may be plausible without the tokens of the query."""
    least, most = min(one.tokens, one.reported), max(_MARGIN * one.tokens, one.reported)
    if mix.task != "rerank" or len(one.texts) > 1:
        return {"unsure": (least, most)}
    return {"reported": (0, one.reported), "unsure": (0, most), "spent": (least, most)}


def expected(seen):
    """Return the least and the most tokens that must be booked, by kind."""
    low, high = Counter(), Counter()
    cancelled = {seen.mix.texts[row] for call in seen.mix.calls if call.cancel_at is not None for row in call.rows}
    for one in seen.bill.served:
        # An answer that a cancelled caller may not have read is unsure.
        is_unread = one.dropped or (one.ended and one.fate == "good" and not cancelled.isdisjoint(one.texts))
        ours, theirs, most = one.tokens, one.reported, _MARGIN * one.tokens
        spans = {
            "free": {},
            "maybe": {"unsure": (0, most)},
            "computed": {"unsure": (ours, most)},
            "exact": {"reported": (theirs, theirs)},
            "ours": {"estimated": (ours, ours)},
            "either": {
                "reported": (0, theirs),
                "estimated": (0, ours),
                "spent": (min(ours, theirs), max(ours, theirs)),
            },
            "no number": {"estimated": (0, ours), "unsure": (0, most), "spent": (ours, most)},
            "implausible": _implausible(seen.mix, one),
            # The tokens of an answer that was refused as a whole.
            "bad": _any_of(min(ours, theirs), max(most, theirs)),
        }["bad" if is_unread else one.money]
        spans = {"spent": _sum(spans), **spans}
        for name, (least, most) in spans.items():
            low[name] += least
            high[name] += most
    for outcome in seen.outcomes:
        if outcome.error is not None:
            # Its other requests are cancelled, perhaps before they arrive, but after they were marked as sent.
            texts = {seen.mix.texts[row] for row in outcome.call.rows}
            more = _MARGIN * sum(tokens_of(text) + tokens_of(seen.mix.query) for text in texts)
            may_cancel = outcome.call.cancel_at is not None or (len(texts) > 1 and not outcome.call.partial)
            high += Counter({"unsure": more, "spent": more} if may_cancel else {})
    return low, high


def _any_of(least, most):
    return {"reported": (0, most), "estimated": (0, most), "unsure": (0, most), "spent": (least, most)}


def _sum(spans):
    return sum(least for least, _ in spans.values()), sum(most for _, most in spans.values())


# ---- secrets


def _judge_secrets(seen):
    found = []
    for kind, values in seen.secrets.items():
        for value in values:
            where = sorted({place for place, text in seen.shown if value in text})
            # Files of vectors and money contain no text of a server; the settings contain no text at all.
            found += [
                Finding("secret" if kind != "words of the server" else "words", f"{kind} in {place}") for place in where
            ]
    return found
