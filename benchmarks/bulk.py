"""Texts per second in bulk: embedway, fastembed and sentence-transformers, alternating in one run.

    python benchmarks/bulk.py [--texts FILE.jsonl.gz] [--rounds 3] [--count N]

All-MiniLM-L6-v2, cut at 256 tokens. fastembed runs at the fastest of several batch sizes, which is measured first.
Prints medians, ratios, the lowest cosine to sentence-transformers in float32, peak memory, and embedway's share of this
CPU's measured rate of matrix products.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from contestants import THREADS, Contestant, cpu_line, read_texts

FASTEMBED_BATCHES = (1, 4, 8, 16, 32, 256)
PROBE = 192


def best_fastembed(texts_path):
    speeds = {}
    for size in FASTEMBED_BATCHES:
        contestant = Contestant(f"fastembed:{size}", texts_path)
        speeds[size] = PROBE / contestant.ask(f"bulk {PROBE}")
        contestant.end()
    print("fastembed by batch size, texts/s:", {size: round(speed, 1) for size, speed in speeds.items()})
    return max(speeds, key=speeds.get)


def matrix_rate(dtype):
    """Return this CPU's floating-point operations per second in large matrix products, by torch (oneDNN)."""
    import torch

    torch.set_num_threads(THREADS)
    left, right = (torch.randn(2048, 2048, dtype=torch.float32).to(dtype) for _ in range(2))
    left @ right
    rounds = []
    for _ in range(7):
        started = time.perf_counter()
        left @ right
        rounds.append(2 * 2048**3 / (time.perf_counter() - started))
    return statistics.median(rounds)


def work(lengths):
    """Return the floating-point operations of MiniLM-L6's matrix products for these lengths: layers and attention."""
    hidden, inner, layers = 384, 1536, 6
    dense = 2 * layers * (4 * hidden * hidden + 2 * hidden * inner) * lengths.sum()
    return dense + 2 * layers * 2 * hidden * (lengths**2).sum()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int)
    options = parser.parse_args()
    texts = read_texts(options.texts)[: options.count]
    print(cpu_line())
    batch = best_fastembed(options.texts)
    names = [
        "embedway:auto",
        "embedway:f32",
        f"fastembed:{batch}",
        "sentence-transformers:bf16",
        "sentence-transformers:f32",
    ]
    contestants = [Contestant(name, options.texts) for name in names]
    seconds = {name: [] for name in names}
    for _ in range(options.rounds):
        for contestant in contestants:
            seconds[contestant.name].append(contestant.ask(f"bulk {len(texts)}"))
    vectors = {}
    with tempfile.TemporaryDirectory() as folder:
        for contestant in contestants:
            path = Path(folder) / f"{len(vectors)}.npy"
            contestant.ask(f"save {path}")
            vectors[contestant.name] = np.load(path)
    peaks = {contestant.name: contestant.ask("peak") for contestant in contestants}
    for contestant in contestants:
        contestant.end()
    report(names, texts, seconds, vectors, peaks)


def report(names, texts, seconds, vectors, peaks):
    import torch

    from embedway import Embedder

    with Embedder() as embedder:
        plans = [embedder.plan(text).tokens for text in texts]
    lengths = np.array(plans, np.float64)
    print(f"{len(texts)} texts, {lengths.sum():,.0f} tokens, medians of {len(seconds[names[0]])} rounds")
    reference = vectors["sentence-transformers:f32"]
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"{'':28} {'texts/s':>8} {'tokens/s':>9} {'lowest cosine':>14} {'peak MB':>8}")
    for name in names:
        ours = vectors[name] / np.linalg.norm(vectors[name], axis=1, keepdims=True)
        cosine = (ours * reference).sum(axis=1).min()
        rate, tokens = len(texts) / medians[name], lengths.sum() / medians[name]
        print(f"{name:28} {rate:8.1f} {tokens:9,.0f} {cosine:14.6f} {peaks[name]:8.0f}")
    for name in names[:2]:
        ratios = ", ".join(f"{medians[peer] / medians[name]:.2f}x {peer}" for peer in names[2:])
        print(f"{name} is {ratios}")
    reached = work(lengths) / medians["embedway:auto"]
    for dtype in (torch.bfloat16, torch.float32):
        limit = matrix_rate(dtype)
        print(
            f"embedway:auto reaches {reached / 1e9:.0f} of {limit / 1e9:.0f} GFLOP/s in {dtype}: {reached / limit:.0%}"
        )


if __name__ == "__main__":
    main()
