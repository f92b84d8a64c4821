"""Routes that answer with real vectors of all-MiniLM-L6-v2, and their faults. Run it for a table of what is noticed.

A fault is a function of the rows of an answer and its texts; it returns the rows that are sent.
"""

import asyncio
import functools
import hashlib
import sys
from pathlib import Path

import numpy as np

from embedway.compute import Computed
from embedway.ledger.account import CallBudget
from embedway.ledger.base import Purpose
from embedway.pipeline.route_answers import RouteAnswers, Usage
from embedway.quality.baseline import PairSet, RouteBaseline
from embedway.quality.canaries import CANARIES, NEIGHBOURS
from embedway.quality.drift import compare
from embedway.quality.pairs import BUILT_IN_DIGEST, BUILT_IN_VERSION, built_in_pairs
from embedway.types import Bill, Space

WIDTH = 384
PROMPT = "query: "
SPACE = Space("m", "service:m", WIDTH, "service", normalized=True)
SETS = (PairSet("built-in", BUILT_IN_VERSION, BUILT_IN_DIGEST, built_in_pairs()),)
SENT = tuple(dict.fromkeys([*CANARIES, *NEIGHBOURS, *(t for p in built_in_pairs() for t in (p.query, p.passage))]))


def real_vectors(store, texts=SENT):
    """Return the vectors of texts, also after a prompt, by text."""
    from embedway import Config, Embedder

    overrides = {"weights.directory": str(store), "cache.backend": "none", "ledger.backend": "none"}
    rows = [*texts, *(PROMPT + text for text in texts)]
    with Embedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
        return dict(zip(rows, embedder.embed(rows).vectors, strict=True))


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@functools.cache
def _direction(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def unchanged(rows, _texts):
    return rows


def bf16(rows, texts):
    """Round to bf16 at a scale that depends on the batch and the row, like kernels that depend on the batch's shape."""
    seed = hashlib.blake2b("\n".join(texts).encode(), digest_size=4).digest()
    scales = 1 + np.random.default_rng(int.from_bytes(seed, "big")).random((len(rows), 1), np.float32)
    bits = (rows * scales).astype(np.float32).view(np.uint32)
    rounded = ((bits + 0x8000) & 0xFFFF0000).view(np.float32)
    return unit(rounded / scales)


def int8(rows, _texts, levels=127):
    """Quantize to int8 with one scale for the whole batch, so that a row depends on its neighbours."""
    step = np.abs(rows).max() / levels
    return unit(np.round(rows / step) * step)


def int4(rows, texts):
    return int8(rows, texts, levels=7)


def rotated(rows, _texts):
    """Another model of the same quality: the same distances in another space."""
    turn, _ = np.linalg.qr(_direction(1, (WIDTH, WIDTH)))
    return unit(rows @ turn)


def permuted(rows, _texts):
    return np.roll(rows, 1, axis=0)


def sorted_by_length(rows, texts):
    return rows[np.argsort([len(text) for text in texts], kind="stable")]


def two_swapped(rows, _texts):
    order = np.arange(len(rows))
    order[:2] = order[:2][::-1]
    return rows[order]


def drifted(share):
    """Return a fault that moves all vectors in one direction by a share of their length."""
    step = share * unit(_direction(2, (1, WIDTH)))
    return lambda rows, _texts: unit(rows + step)


def truncated(rows, _texts):
    """Half of the dimensions are zero."""
    kept = rows.copy()
    kept[:, WIDTH // 2 :] = 0
    return unit(kept)


class Route:
    """A route that answers with stored vectors. It has the parts of a model that a check uses."""

    space, name = SPACE, "m"

    def __init__(self, vectors, *faults, prompt=""):
        self.vectors, self.faults, self.prompt = vectors, faults, prompt

    async def compute(self, request):
        rows = np.stack([self.vectors[self.prompt + text] for text in request.texts])
        for fault in self.faults:
            rows = fault(rows, request.texts)
        return Computed({"dense": rows}, [None] * len(rows), Bill(0, 0, 1, ("r",)))

    def answers(self):
        return RouteAnswers(self, "r", CallBudget(Purpose("m")), Usage())

    async def baseline(self):
        measured = await self.answers().noise()
        return RouteBaseline(
            "r",
            0.0,
            None,
            {kind: vectors for kind, (vectors, _) in measured.items()},
            {kind: noise for kind, (_, noise) in measured.items()},
            await self.answers().results(SETS),
        )

    async def check(self, baseline, seed=0, sets=SETS):
        return compare(baseline, await self.answers().observe(sets, seed), min_accuracy_ratio=0.9)


#: Faults by name; `prompt` is one of the route.
FAULTS = {
    "unchanged": unchanged,
    "bf16 arithmetic": bf16,
    "int8": int8,
    "int4": int4,
    "another model": rotated,
    "half of the dimensions": truncated,
    "rows permuted": permuted,
    "rows sorted by length": sorted_by_length,
    "two rows swapped": two_swapped,
    "another prompt": None,
    "drift of 0.2 %": drifted(0.002),
    "drift of 1 %": drifted(0.01),
    "drift of 5 %": drifted(0.05),
    "drift of 20 %": drifted(0.2),
}


def _write(line):
    sys.stdout.write(f"{line}\n")


async def _table(vectors):
    _write(f"{'route':10} {'fault':24} {'verdict':9} {'differ':>8} {'cosine':>9} {'allowed':>9} {'accuracy':>8}  part")
    for route, noise in (("exact", unchanged), ("bf16", bf16), ("int8", int8)):
        baseline = await Route(vectors, noise).baseline()
        for name, fault in FAULTS.items():
            changed = Route(vectors, fault or unchanged, noise, prompt=PROMPT if fault is None else "")
            found = await changed.check(baseline)
            texts = len(CANARIES) * 4 + len(built_in_pairs()) * 2
            parts = sorted({_part(reason) for reason in found.reasons})
            _write(
                f"{route:10} {name:24} {found.verdict:9} {len(found.differing):>2} of {found.canaries} "
                f"{found.cosine:9.6f} {found.min_cosine:9.6f} {found.accuracy_ratio:8.0%}  "
                f"{', '.join(parts) or '-'} ({texts} texts)"
            )


def _part(reason):
    parts = {"permuted": "rows", "a little": "mean cosine", "differ": "canaries", "accuracy": "accuracy"}
    return next((part for word, part in parts.items() if word in reason), "top results")


if __name__ == "__main__":
    root = Path(__file__).parents[2] / ".cache" / "test-store"
    asyncio.run(_table(real_vectors(sys.argv[1] if len(sys.argv) > 1 else root)))
