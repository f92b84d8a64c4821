"""What it takes to select a model for 10,000 texts among all that have benchmarks: the sample's look, and the rest.

    python benchmarks/selecting.py [--texts 10000] [--rounds 15]

Texts are passages of the Python documentation in `../shared/data` where it is there, and of the language reference
in Python otherwise, five times over. The first round loads language models and vocabularies, and is told apart.
"""

import argparse
import statistics
import time

from contestants import read_texts
from embedway import Config, ModelSelectionCriteria
from embedway.stages.analyze import analyze, sample_of
from embedway.stages.candidates import Candidates
from embedway.stages.select import select


def main():
    """Select again and again, and tell the medians."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--texts", type=int, default=10_000)
    options.add_argument("--rounds", type=int, default=15)
    given = options.parse_args()
    some = read_texts(None)
    texts = (some * (given.texts // len(some) + 1))[: given.texts]
    candidates = Candidates(Config.load(environ={"OPENAI_API_KEY": "unused"}))
    criteria = ModelSelectionCriteria.preset("balanced")
    rounds = []
    for _ in range(given.rounds + 1):
        began = time.perf_counter()
        sample = sample_of(texts)
        analysis = analyze(texts, sample=sample)
        looked = time.perf_counter()
        known = candidates.counted(texts, sample)
        counted = time.perf_counter()
        selection = select(known, criteria, analysis)
        rounds.append((looked - began, counted - looked, time.perf_counter() - counted))
    print(f"{len(known)} models, {len(texts):,} texts, a sample of {analysis.sampled}: {selection.model}")
    print("| | the sample's languages and code, ms | tokens, ms | score and rank, ms | beyond the sample, ms |")
    print("| --- | ---: | ---: | ---: | ---: |")
    median = [statistics.median(column) for column in zip(*rounds[1:], strict=True)]
    for name, row in (("first", rounds[0]), ("median of the others", median)):
        cells = " | ".join(f"{1000 * value:.1f}" for value in (*row, row[1] + row[2]))
        print(f"| {name} | {cells} |")


if __name__ == "__main__":
    main()
