"""Measurement of how far two sources of vectors agree: cosines, neighbours, confidence, and the verdict in words.

Both sources embed the same texts. The verdict is `same space` only if no text has a cosine below `SAME_COSINE`. The
reasons name the kinds of texts that differ, because these show the cause: long texts are cut at another length, queries
have another prompt, capital letters are lowercased.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

from embedway._public import public
from embedway.vectors import SAME_COSINE, unit_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from embedway.quality.probe_texts import ProbeText
    from embedway.types import InputType, Vectors

    Flags: TypeAlias = npt.NDArray[np.bool_]

EquivalenceVerdict: TypeAlias = Literal["same space", "close but not the same", "different"]
VERDICTS: tuple[EquivalenceVerdict, ...] = get_args(EquivalenceVerdict)
#: Confidence of the bounds.
CONFIDENCE = 0.95
#: Minimum median cosine of one input type for `close but not the same`. Different models of one size have medians
#: around 0; the same weights with other prompts, casing or int8 stay above 0.9.
_CLOSE_MEDIAN = 0.9
#: Minimum median cosine that an approximation of the same model, such as int8, keeps.
_APPROXIMATE_MEDIAN = 0.95
#: Maximum relative difference of lengths; bfloat16 rounds to 2**-8 of each number.
_SAME_LENGTH = 0.02
#: Neighbours whose scores differ by at most this much are interchangeable: half precision swaps them.
_TIE = 0.002
_NEIGHBOURS = 10
_RESAMPLES = 1000
#: Share of the texts of a kind that must differ, and share of the other texts that may, to name the kind as the cause.
_MOST_OF_KIND, _FEW_OTHERS = 0.5, 0.02
_PLURALS: dict[str, str] = {"query": "queries", "document": "documents"}
#: Kinds of texts, the test of a text, and the probable cause if exactly these texts differ.
_KINDS: tuple[tuple[str, Callable[[ProbeText], bool], str], ...] = (
    ("long texts", lambda one: one.group == "long", "one source cuts texts at another length"),
    ("texts with capital letters", lambda one: one.text != one.text.lower(), "one source lowercases texts"),
    (
        "texts with accents or other letters than a to z",
        lambda one: not one.text.isascii(),
        "one source removes accents, or does not know these letters",
    ),
    (
        "texts with unusual whitespace",
        lambda one: one.text != " ".join(one.text.split()),
        "one source changes spaces or line ends",
    ),
)


@public
@dataclass(frozen=True, slots=True)
class EquivalenceFigures:
    """Agreement of the vectors of one input type."""

    input_type: InputType
    texts: int
    lowest_cosine: float
    first_percentile: float
    median_cosine: float
    #: Texts whose cosine is at least `SAME_COSINE`.
    same_texts: int
    #: Lower bound of the share of such texts, with a confidence of 95 % (Clopper-Pearson).
    same_share_at_least: float
    #: Texts whose nearest other text is the same, and the lower bound of their share (Clopper-Pearson).
    top1_agreement: float
    top1_at_least: float
    #: Mean overlap of the ten nearest texts, and its 95 % interval (bootstrap with a fixed seed).
    top10_overlap: float
    top10_interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of probe texts in one input type, from two sources. A row of NaN was refused."""

    input_type: InputType
    texts: Sequence[ProbeText]
    a: Vectors
    b: Vectors


@dataclass(frozen=True, slots=True)
class SpaceMeasurement:
    """Result of `measure_agreement`."""

    verdict: EquivalenceVerdict
    reasons: tuple[str, ...]
    figures: tuple[EquivalenceFigures, ...]
    dimensions: tuple[int, int]
    #: Texts that a source refused.
    left_out: int

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON types."""
        return asdict(self)


def measure_agreement(embedded: Sequence[Embedded]) -> SpaceMeasurement:
    """Compare two sources over the texts of each input type."""
    parts = [_Part.of(one) for one in embedded]
    sizes = embedded[0].a.shape[1], embedded[0].b.shape[1]
    left_out = sum(len(one.texts) - len(part.texts) for one, part in zip(embedded, parts, strict=True))
    parts = [part for part in parts if part.texts]
    if not parts:
        return SpaceMeasurement("different", ("no text was embedded by both",), (), sizes, left_out)
    figures = tuple(part.figures() for part in parts)
    reasons = [*_size_reasons(parts, sizes), *_length_reasons(parts)]
    if all(part.same.all() for part in parts):
        verdict: EquivalenceVerdict = "close but not the same" if reasons else "same space"
        return SpaceMeasurement(verdict, tuple(reasons), figures, sizes, left_out)
    reasons += _reasons(parts)
    is_close = max(one.median_cosine for one in figures) >= _CLOSE_MEDIAN
    return SpaceMeasurement(
        "close but not the same" if is_close else "different", tuple(reasons), figures, sizes, left_out
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """Texts of one input type that both sources embedded, their directions and lengths, and which are the same."""

    input_type: InputType
    texts: list[ProbeText]
    a: npt.NDArray[np.float64]
    b: npt.NDArray[np.float64]
    lengths: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
    cosines: npt.NDArray[np.float64]
    same: Flags

    @classmethod
    def of(cls, one: Embedded) -> _Part:
        width = min(one.a.shape[1], one.b.shape[1])
        usable = np.asarray(np.isfinite(one.a).all(axis=1) & np.isfinite(one.b).all(axis=1))
        usable = np.asarray(usable & one.a.any(axis=1) & one.b.any(axis=1))
        texts = [text for text, is_usable in zip(one.texts, usable, strict=True) if is_usable]
        a, b = (vectors[usable].astype(np.float64) for vectors in (one.a, one.b))
        lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
        a, b = unit_vectors(a[:, :width]), unit_vectors(b[:, :width])
        cosines = np.einsum("ij,ij->i", a, b)
        return cls(one.input_type, texts, a, b, lengths, cosines, cosines >= SAME_COSINE)

    def figures(self) -> EquivalenceFigures:
        top1, overlaps = agreement_of_neighbours(self.a, self.b)
        count, same = len(self.texts), int(self.same.sum())
        return EquivalenceFigures(
            self.input_type,
            count,
            lowest_cosine=float(self.cosines.min()),
            first_percentile=float(np.percentile(self.cosines, 1)),
            median_cosine=float(np.median(self.cosines)),
            same_texts=same,
            same_share_at_least=share_at_least(same, count),
            top1_agreement=float(top1.mean()),
            top1_at_least=share_at_least(int(top1.sum()), count),
            top10_overlap=float(overlaps.mean()),
            top10_interval=bootstrap_interval(overlaps),
        )


def agreement_of_neighbours(
    a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]
) -> tuple[Flags, npt.NDArray[np.float64]]:
    """Return for each text whether its nearest other text is the same in both, and the overlap of the ten nearest.

    Neighbours with nearly equal scores are interchangeable.
    """
    count = len(a)
    if count < 2:
        return np.ones(count, bool), np.ones(count)
    scores = [one @ one.T for one in (a, b)]
    for one in scores:
        np.fill_diagonal(one, -np.inf)
    most = min(_NEIGHBOURS, count - 1)
    order = [np.argsort(-one, axis=1, kind="stable")[:, :most] for one in scores]
    rows = np.arange(count)
    best = scores[0][rows, order[0][:, 0]], scores[1][rows, order[1][:, 0]]
    top1 = (scores[0][rows, order[1][:, 0]] >= best[0] - _TIE) | (scores[1][rows, order[0][:, 0]] >= best[1] - _TIE)
    # A neighbour in `b` counts if its score in `a` is at least that of the last neighbour in `a`, up to a tie.
    last = scores[0][rows, order[0][:, -1]][:, None]
    theirs = np.take_along_axis(scores[0], order[1], axis=1)
    return top1, (theirs >= last - _TIE).mean(axis=1)


def share_at_least(successes: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """Return the one-sided lower bound of a share (Clopper and Pearson, Biometrika 26, 1934)."""
    if successes == 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(50):
        share = (low + high) / 2
        # The bound is the share with which so many successes have a probability of 1 - confidence.
        low, high = (share, high) if _tail(successes, trials, share) <= 1 - confidence else (low, share)
    return low


def _tail(successes: int, trials: int, share: float) -> float:
    """Return the probability of at least so many successes."""
    logs = (
        math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
        + k * math.log(share) + (trials - k) * math.log1p(-share)
        for k in range(successes, trials + 1)
    )  # fmt: skip
    return sum(map(math.exp, logs))


def bootstrap_interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % interval of a mean, by resampling with a fixed seed."""
    chosen = np.random.default_rng(0).integers(0, len(values), (_RESAMPLES, len(values)))
    outside = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(values[chosen].mean(axis=1), [outside, 100 - outside])
    return float(low), float(high)


def _size_reasons(parts: Sequence[_Part], sizes: tuple[int, int]) -> list[str]:
    if sizes[0] == sizes[1]:
        return []
    words = f"the vectors have {sizes[0]} and {sizes[1]} dimensions"
    if all(part.same.all() for part in parts):
        return [f"{words}; the shorter ones are the beginning of the longer ones"]
    return [words]


def _length_reasons(parts: Sequence[_Part]) -> list[str]:
    if all((np.abs(part.lengths[0] / part.lengths[1] - 1) <= _SAME_LENGTH).all() for part in parts):
        return []
    first, second = (np.concatenate([part.lengths[side] for part in parts]) for side in (0, 1))
    lengths = f"{_span(first)} and {_span(second)}"
    cause = "one source normalizes them, and the other does not, so dot products cannot be compared"
    return [f"the vectors have other lengths ({lengths}): {cause}"]


def _span(lengths: npt.NDArray[np.float64]) -> str:
    low, high = f"{lengths.min():.3g}", f"{lengths.max():.3g}"
    return low if low == high else f"{low} to {high}"


def _reasons(parts: Sequence[_Part]) -> list[str]:
    """Return what differs, in words, with the probable cause."""
    if any(_is_reordered(part) for part in parts):
        return ["the vectors are the same, but belong to other texts: one source returns them in another order"]
    if reason := _prompt_reason(parts):
        return [reason]
    # A text is compared in both input types; it differs if one of them does.
    texts: dict[ProbeText, bool] = {}
    for part in parts:
        for text, same in zip(part.texts, part.same.tolist(), strict=True):
            texts[text] = texts.get(text, True) and same
    count = sum(not same for same in texts.values())
    lowest = min(float(part.cosines.min()) for part in parts)
    found = f"{count} of {len(texts)} texts differ (lowest cosine {lowest:.3f})"
    for name, is_of_kind, cause in _KINDS:
        if _explains(texts, is_of_kind):
            return [f"only {name} differ: {found}; {cause}"]
    median = max(float(np.median(part.cosines)) for part in parts)
    if median >= _APPROXIMATE_MEDIAN:
        return [f"{found}, most of them slightly: one source computes approximately, as with int8"]
    if median >= _CLOSE_MEDIAN:
        return [f"{found}: a related model, another tokenizer, other prompts or pooling"]
    return [f"{found}: another model"]


def _prompt_reason(parts: Sequence[_Part]) -> str:
    """Return the reason if most texts of one input type differ, and none of the other; else an empty text."""
    differing = [part for part in parts if not part.same.all()]
    if len(parts) < 2 or len(differing) != 1 or differing[0].same.mean() >= _MOST_OF_KIND:
        return ""
    (part,) = differing
    other = next(one.input_type for one in parts if one is not part)
    return f"{_PLURALS[part.input_type]} differ, and {_PLURALS[other]} do not: another prompt for them"


def _explains(texts: Mapping[ProbeText, bool], is_of_kind: Callable[[ProbeText], bool]) -> bool:
    """Return whether the texts of a kind differ, and nearly no others."""
    of_kind = [same for one, same in texts.items() if is_of_kind(one)]
    others = [same for one, same in texts.items() if not is_of_kind(one)]
    if not of_kind or all(of_kind):
        return False
    few = sum(not same for same in others) <= _FEW_OTHERS * len(others)
    # Of long texts only those between the two limits differ.
    return few and (sum(not same for same in of_kind) >= _MOST_OF_KIND * len(of_kind) or not others.count(False))


def _is_reordered(part: _Part) -> bool:
    """Return whether most vectors are those of another text: the same set in another order."""
    if len(part.texts) < 2 or part.same.mean() >= _MOST_OF_KIND:
        return False
    nearest = (part.a @ part.b.T).max(axis=1)
    return bool((nearest >= SAME_COSINE).mean() >= 1 - _FEW_OTHERS)
