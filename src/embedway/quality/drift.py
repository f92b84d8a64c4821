"""Comparison of a route's answers with its baseline, and the verdict in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from embedway._public import public
from embedway.quality.noise import distances
from embedway.quality.retrieval import accuracy, by_group, overlap
from embedway.quality_commands import command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from embedway.quality.baseline import RouteBaseline
    from embedway.quality.noise import Noise
    from embedway.quality.retrieval import QueryResult
    from embedway.types import Vectors

Verdict: TypeAlias = Literal["passed", "drifted", "unchecked"]

#: Minimum mean overlap of the top results. Noise of half precision stays above 0.97.
MIN_OVERLAP = 0.8
#: Minimum of queries that a group must lose: one may change its rank by chance.
_MIN_LOST = 2
#: Minimum of permuted canaries: two texts may be nearly equal to a model.
_MIN_SWAPPED = 2
#: Canaries that must differ, if none differs in all its answers.
_MIN_DIFFERING = 2


@dataclass(frozen=True, slots=True)
class Observation:
    """Answers of a route in one check.

    `vectors` contains, by input type, the canaries in the order of the baseline, once for each request order.
    """

    vectors: Mapping[str, Sequence[Vectors]]
    results: Mapping[str, Mapping[str, QueryResult]]


@public
@dataclass(frozen=True, slots=True)
class GroupAccuracy:
    """Accuracy of a group of pairs: now, and in the baseline."""

    pairs: int
    accuracy: float
    baseline: float


@public
@dataclass(frozen=True, slots=True)
class RouteCheck:
    """Verdict of a route: `passed`, `drifted`, or `unchecked` if it could not be compared.

    `differing` are the numbers of the canaries, from 0, that differ. `cosine` is the lowest one, and `min_cosine` the
    lowest that the noise of the route allows. `accuracy_ratio` is the accuracy divided by the baseline's.
    """

    route: str
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    advice: str = ""
    canaries: int = 0
    differing: tuple[int, ...] = ()
    cosine: float | None = None
    min_cosine: float | None = None
    accuracy_ratio: float | None = None
    overlap: float | None = None
    groups: Mapping[str, GroupAccuracy] | None = None
    quarantined: bool = False
    #: After a drift: the time since which vectors are suspicious, in seconds since 1970, and the billed texts since
    #: then; None if they are not booked.
    suspicious_since: float | None = None
    suspicious_texts: int | None = None


def compare(baseline: RouteBaseline, found: Observation, *, min_accuracy_ratio: float) -> RouteCheck:
    """Return the verdict for answers of a route."""
    reasons: list[str] = []
    differing: set[int] = set()
    largest, limit, count = 0.0, 0.0, 0
    for kind, answers in found.vectors.items():
        reference, noise = baseline.vectors[kind], baseline.noise[kind]
        count = len(reference)
        if any(vectors.shape != reference.shape for vectors in answers):
            width = answers[0].shape[1]
            reasons.append(f"its vectors have {width} dimensions, and those of the baseline {reference.shape[1]}")
            differing.update(range(count))
            largest, limit = 2.0, max(limit, noise.limit)
            continue
        rounds = np.stack([distances(vectors, reference) for vectors in answers])
        own, texts = _canary_reasons(kind, rounds, answers, reference, noise)
        reasons += texts
        differing.update(own)
        if rounds.max() >= largest:
            largest, limit = float(rounds.max()), noise.limit
    ratio, shared, groups, texts = _retrieval(baseline, found, min_accuracy_ratio)
    reasons += texts
    return RouteCheck(
        baseline.route,
        "drifted" if reasons else "passed",
        tuple(reasons),
        "",
        count,
        tuple(sorted(differing)),
        1 - largest,
        1 - limit,
        ratio,
        shared,
        groups,
    )


def common_results(
    baseline: RouteBaseline, found: Mapping[str, Mapping[str, QueryResult]]
) -> tuple[dict[str, QueryResult], dict[str, QueryResult]]:
    """Return the results of the pairs that both have, now and in the baseline."""
    now: dict[str, QueryResult] = {}
    before: dict[str, QueryResult] = {}
    for name, results in found.items():
        stored = baseline.results.get(name, {})
        common = [pair for pair in results if pair in stored]
        now |= {f"{name}/{pair}": results[pair] for pair in common}
        before |= {f"{name}/{pair}": stored[pair] for pair in common}
    return now, before


def advice_for(verdict: Verdict, model: str) -> str:
    """Return what to do after a verdict on a route of a model."""
    check = command("check", model)
    if verdict == "drifted":
        return (
            f"Ask the operator of the route what changed; {check} compares again. If the change is intended, embed "
            f"stored collections again, and then {command('baseline', model, '--replace')}"
        )
    return f"Check again later with {check}" if verdict == "unchecked" else ""


def _canary_reasons(
    kind: str, rounds: np.ndarray, answers: Sequence[Vectors], reference: Vectors, noise: Noise
) -> tuple[set[int], list[str]]:
    """Return the canaries that differ, and why this is a drift; no reasons if it is not."""
    over = rounds > noise.limit
    differing = set(np.flatnonzero(over.any(axis=0)).tolist())
    is_drift = len(differing) >= _MIN_DIFFERING or bool(over.all(axis=0).any())
    mean = float(rounds.mean())
    swapped = _swapped(over, answers, reference, noise)
    if swapped >= _MIN_SWAPPED:
        reason = "have the vector of another text: the rows of answers are permuted"
        return differing, [f"{swapped} of {len(reference)} canaries ({kind}) {reason}"]
    if is_drift:
        reason = f"lowest cosine {1 - rounds.max():.6f}, the noise of the route allows {1 - noise.limit:.6f}"
        return differing, [f"{len(differing)} of {len(reference)} canaries ({kind}) differ: {reason}"]
    if mean > noise.mean_limit:
        reason = f"mean cosine {1 - mean:.6f}, the noise of the route allows {1 - noise.mean_limit:.6f}"
        return differing, [f"all canaries ({kind}) differ a little: {reason}"]
    return set(), []


def _swapped(over: np.ndarray, answers: Sequence[Vectors], reference: Vectors, noise: Noise) -> int:
    """Return the number of canaries that have the vector of another canary."""
    found: set[int] = set()
    for number, vectors in enumerate(answers):
        for row in np.flatnonzero(over[number]).tolist():
            others = distances(np.broadcast_to(vectors[row], reference.shape), reference)
            others[row] = 2.0
            if others.min() <= noise.limit:
                found.add(row)
    return len(found)


def _retrieval(
    baseline: RouteBaseline, found: Observation, min_ratio: float
) -> tuple[float | None, float | None, dict[str, GroupAccuracy], list[str]]:
    """Return accuracy ratio, overlap, accuracy by group, and the reasons for a drift."""
    now, before = common_results(baseline, found.results)
    new, old, shared = accuracy(now.values()), accuracy(before.values()), overlap(now, before)
    ratio = None if new is None or not old else new / old
    reasons = []
    if ratio is not None and ratio < min_ratio:
        reasons.append(
            f"accuracy of the pairs is {new:.1%}, {ratio:.0%} of the baseline's {old:.1%} (minimum {min_ratio:.0%})"
        )
    if shared is not None and shared < MIN_OVERLAP:
        reasons.append(f"only {shared:.0%} of the top results are the baseline's (minimum {MIN_OVERLAP:.0%})")
    groups = {}
    olds = by_group(before)
    for group, own in by_group(now).items():
        one, other = accuracy(own) or 0.0, accuracy(olds[group]) or 0.0
        groups[group] = GroupAccuracy(len(own), one, other)
        lost = round((other - one) * len(own))
        if lost >= _MIN_LOST and one < other * min_ratio:
            reasons.append(f"accuracy of group {group or 'none'!r} is {one:.0%}, the baseline's {other:.0%}")
    return ratio, shared, groups, reasons
