"""Benchmark of session options for a model on this CPU: `embedway models tune`.

All options run on the same probe texts of mixed lengths. Their vectors are compared with float32 on ONNX Runtime.
Options that fail the quality gate are rejected, however fast they are.
"""

from __future__ import annotations

import re
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway._public import public
from embedway.errors import EmbedwayError, RuntimeUnavailableError
from embedway.local import cpu
from embedway.local.backend import BACKENDS, BackendName, Precision, SessionOptions, available
from embedway.local.runtime_choice import RuntimeChoice, write_choice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from embedway.config import Config
    from embedway.local.encoder import Encoder
    from embedway.types import Batch, TokenizedTexts, Vectors

#: Quality gate: the lowest cosine of any probe to float32, and the share of probes whose ten nearest neighbours are the
#: same set.
LOWEST_COSINE = 0.9995
SAME_NEIGHBOURS = 0.99
_NEIGHBOURS = 10
_TOKEN_BUDGETS = (1024, 2048, 4096)
#: Options within this share of the fastest are measured again, so that noise does not decide.
_CONTENDER = 0.85
_MORE_ROUNDS = 2
_SINGLE_RUNS = 30
_PAUSE_S = 0.01
#: Tie margin: a neighbour within this score of the tenth in float32 counts as the same. A cosine difference of 0.002 is
#: less than half of the usual distance between the tenth and the eleventh. Rows also report the share without it.
_TIE = 0.002
#: Approximate words per token of English prose. Probe lengths need not be exact.
_WORDS_PER_TOKEN = 0.7
_SHORTEST_TOKENS = 8
_LONGEST_TOKENS = 512
_PROBES = 128


@public
@dataclass(frozen=True, slots=True)
class TuneRow:
    """Measurement of one set of options, as a row of the report. Rates are medians; `reason` says why it failed."""

    backend: BackendName
    precision: Precision
    streams: int
    threads: int
    token_budget: int
    texts_per_s: float
    tokens_per_s: float
    single_ms: float
    lowest_cosine: float
    same_neighbours: float
    #: As `same_neighbours`, but without a margin for ties.
    identical_neighbours: float
    passed: bool
    reason: str = ""

    @property
    def options(self) -> SessionOptions:
        """Measured options."""
        return SessionOptions(self.backend, self.precision, self.streams, self.threads)


@public
@dataclass(frozen=True, slots=True)
class TuneReport:
    """All measurements, the fastest for bulk work and for single queries, and the path of the stored choice."""

    model: str
    cpu: str
    rows: tuple[TuneRow, ...]
    bulk: TuneRow
    single: TuneRow
    stored_at: Path

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {**asdict(self), "stored_at": str(self.stored_at)}


def tune_model(
    model: Encoder, config: Config, progress: Callable[[str], None], split: Callable[..., Sequence[Batch]]
) -> TuneReport:
    """Measure all options, choose the fastest and store the choice. Blocking; takes minutes on a small machine.

    `split` divides lengths into batches of a token budget, as the engine does.
    """
    tokenized = model.tokenize(probe_texts(model.max_tokens), "document")
    threads = config.local.threads or cpu.facts().cores
    reference_options = SessionOptions("onnxruntime", "f32", 1, threads)
    progress(f"reference: {reference_options}")
    batches = split(tokenized.lengths, token_budget=_TOKEN_BUDGETS[0])
    reference, _ = _compute(model, reference_options, tokenized, batches)
    rows: list[TuneRow] = []
    for options in _candidate_options(threads):
        try:
            rows += _measure(model, options, tokenized, reference, split)
        except RuntimeUnavailableError as error:
            progress(f"{options}: {error}")
            continue
        finally:
            model.drop(options)
        best = max(row.texts_per_s for row in rows if row.options == options)
        note = "" if rows[-1].passed else f" (rejected: {rows[-1].reason})"
        progress(f"{options}: {best:.0f} texts/s, {rows[-1].single_ms:.1f} ms per query{note}")
    if not any(row.passed for row in rows):
        raise EmbedwayError(f"{model.model}: no session options passed the quality gate on this CPU")
    rows = _measure_again(model, rows, tokenized, split)
    passed = [row for row in rows if row.passed]
    bulk = max(passed, key=lambda row: row.texts_per_s)
    single = min(passed, key=lambda row: row.single_ms)
    path = write_choice(
        config.tune.directory,
        model.recipe.weights_sha256,
        RuntimeChoice(bulk.options, single.options, bulk.token_budget),
        model=model.model,
        measured={"bulk_texts_per_s": bulk.texts_per_s, "single_ms": single.single_ms},
    )
    return TuneReport(model.model, cpu.facts().name, tuple(rows), bulk, single, path)


def _candidate_options(threads: int) -> Iterator[SessionOptions]:
    precisions: tuple[Precision, ...] = ("f32", "bf16") if cpu.facts().bf16 else ("f32",)
    streams = sorted({1, max(1, threads // 2), threads})
    for backend in BACKENDS:
        if not available(backend):
            continue
        for precision in precisions if backend == "openvino" else ("f32",):
            for count in streams:
                yield SessionOptions(backend, precision, count, threads)


def _measure(
    model: Encoder,
    options: SessionOptions,
    tokenized: TokenizedTexts,
    reference: Vectors,
    split: Callable[..., Sequence[Batch]],
) -> list[TuneRow]:
    rows = []
    # The shortest probe is similar to a query.
    shortest = tokenized.ids[int(np.argmin(tokenized.lengths))]
    _compute(model, options, tokenized, split(tokenized.lengths, token_budget=_TOKEN_BUDGETS[0]))  # warms up
    single_ms = _single_ms(model, options, shortest)
    for budget in _TOKEN_BUDGETS:
        batches = split(tokenized.lengths, token_budget=budget)
        vectors, seconds = _compute(model, options, tokenized, batches)
        cosine, neighbours, identical, reason = _check_quality(vectors, reference)
        rows.append(
            TuneRow(
                **asdict(options),
                token_budget=budget,
                texts_per_s=len(vectors) / seconds,
                tokens_per_s=tokenized.tokens / seconds,
                single_ms=single_ms,
                lowest_cosine=cosine,
                same_neighbours=neighbours,
                identical_neighbours=identical,
                passed=not reason,
                reason=reason,
            )
        )
    return rows


def _measure_again(
    model: Encoder, rows: Sequence[TuneRow], tokenized: TokenizedTexts, split: Callable[..., Sequence[Batch]]
) -> list[TuneRow]:
    """Measure the fastest options again in turns, so that a slow phase of the machine affects all equally."""
    best = max(row.texts_per_s for row in rows if row.passed)
    seconds: dict[TuneRow, list[float]] = {
        row: [len(tokenized.ids) / row.texts_per_s]
        for row in rows
        if row.passed and row.texts_per_s >= _CONTENDER * best
    }
    for _ in range(_MORE_ROUNDS):
        for row, times in seconds.items():
            batches = split(tokenized.lengths, token_budget=row.token_budget)
            times.append(_compute(model, row.options, tokenized, batches)[1])
    for options in {row.options for row in seconds}:
        model.drop(options)
    return [_with_median(row, seconds[row], tokenized) if row in seconds else row for row in rows]


def _with_median(row: TuneRow, seconds: Sequence[float], tokenized: TokenizedTexts) -> TuneRow:
    median = statistics.median(seconds)
    return replace(row, texts_per_s=len(tokenized.ids) / median, tokens_per_s=tokenized.tokens / median)


def _single_ms(model: Encoder, options: SessionOptions, ids: Any) -> float:
    """Return the median query time on a worker thread, in ms; a pause lets threads sleep before each run."""

    def seconds() -> float:
        started = time.perf_counter()
        model.compute(options, [ids], len(ids))
        return time.perf_counter() - started

    times = []
    with ThreadPoolExecutor(1) as pool:
        for _ in range(_SINGLE_RUNS):
            time.sleep(_PAUSE_S)
            times.append(pool.submit(seconds).result())
    return statistics.median(times) * 1e3


def _compute(
    model: Encoder, options: SessionOptions, tokenized: TokenizedTexts, batches: Sequence[Batch]
) -> tuple[Vectors, float]:
    """Compute all probes once, on one thread per stream; return the vectors and the seconds."""
    model.compute(options, [tokenized.ids[0][:2]], 2)  # loads the session before the measurement
    vectors = np.empty((len(tokenized.ids), model.space.dimensions), np.float32)

    def one(batch: Batch) -> None:
        vectors[batch.rows] = model.compute(options, [tokenized.ids[row] for row in batch.rows], batch.width)

    with ThreadPoolExecutor(options.streams) as pool:
        started = time.perf_counter()
        list(pool.map(one, batches))
        return vectors, time.perf_counter() - started


def _check_quality(vectors: Vectors, reference: Vectors) -> tuple[float, float, float, str]:
    """Return lowest cosine, shares of probes with same and with identical neighbours, and the reason of a failure."""
    if not np.isfinite(vectors).all():
        return float("nan"), 0.0, 0.0, "vectors contain NaN or infinite values"
    if not vectors.any(axis=1).all():
        return float("nan"), 0.0, 0.0, "vectors of zeros"
    ours, theirs = (array / np.linalg.norm(array, axis=1, keepdims=True) for array in (vectors, reference))
    cosine = float(np.einsum("ij,ij->i", ours, theirs).min())
    neighbours, identical = (_same_neighbours(ours, theirs, tie=tie) for tie in (_TIE, 0.0))
    reason = ""
    if cosine < LOWEST_COSINE:
        reason = f"lowest cosine {cosine:.5f} is below {LOWEST_COSINE}"
    elif neighbours < SAME_NEIGHBOURS:
        reason = f"{neighbours:.1%} of probes keep their neighbours, below {SAME_NEIGHBOURS:.0%}"
    return cosine, neighbours, identical, reason


def _same_neighbours(ours: Vectors, theirs: Vectors, *, tie: float) -> float:
    scores, reference_scores = ours @ ours.T, theirs @ theirs.T
    for matrix in (scores, reference_scores):
        np.fill_diagonal(matrix, -np.inf)
    chosen = np.argsort(-scores, axis=1)[:, :_NEIGHBOURS]
    # All chosen neighbours must score at least as high as the tenth in the reference.
    tenth = np.sort(reference_scores, axis=1)[:, -_NEIGHBOURS]
    lowest = np.take_along_axis(reference_scores, chosen, axis=1).min(axis=1)
    return float((lowest >= tenth - tie).mean())


def probe_texts(max_tokens: int) -> list[str]:
    """Return 128 different texts, from a few tokens to the model's limit (512 at most), short ones more often.

    They are passages of the language reference, which `pydoc` shows as `help("topics")`.
    """
    from pydoc_data import topics  # noqa: PLC0415  700 kB that only tuning needs

    longest = min(max_tokens, _LONGEST_TOKENS)
    # The first line of a topic is its heading and a row of asterisks.
    passages = [
        passage
        for name in sorted(topics.topics)
        for passage in _passages(topics.topics[name].split("\n", 3)[-1], longest)
    ]
    step = len(passages) / _PROBES
    texts = []
    for index in range(_PROBES):
        # Logarithmic spacing.
        tokens = _SHORTEST_TOKENS * (longest / _SHORTEST_TOKENS) ** (index / (_PROBES - 1))
        words = passages[int(index * step)].split(" ")
        texts.append(" ".join(words[: max(3, int(tokens * _WORDS_PER_TOKEN))]))
    return texts


def _passages(topic: str, longest_tokens: int) -> list[str]:
    words = re.sub(r"\s+", " ", topic).strip().split(" ")
    size = max(3, int(longest_tokens * _WORDS_PER_TOKEN))
    cut = [words[start : start + size] for start in range(0, len(words), size)]
    return [" ".join(part) for part in cut if len(part) == size]
