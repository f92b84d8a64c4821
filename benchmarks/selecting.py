"""Time to select a model for 10,000 texts among all models with benchmarks: analysis of the sample, and the rest.

    python benchmarks/selecting.py [--texts 10000] [--rounds 15] [--tokenizers 12]

Texts are passages of the Python documentation from `../shared/data` if it exists, otherwise of the language reference
in Python, repeated. The first round loads language models and vocabularies, and is reported separately. The second
table simulates a machine with the files of many models, each with its own tokenizer.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from contestants import model_folder, read_texts
from embedway import Config, ModelSelectionCriteria
from embedway.selection.analysis import analyze, take_sample
from embedway.selection.candidates import Candidates
from embedway.selection.scoring import select
from embedway.selection.token_counts import file_key


def main():
    """Measure with the installed models, and with more tokenizers."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--texts", type=int, default=10_000)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--tokenizers", type=int, default=12)
    given = options.parse_args()
    some = read_texts(None)
    texts = (some * (given.texts // len(some) + 1))[: given.texts]
    usual = {"environ": {"OPENAI_API_KEY": "unused"}}
    tell("installed models", Candidates(Config.load(**usual)), texts, given.rounds)
    with tempfile.TemporaryDirectory() as folder:
        overrides = with_tokenizers(Path(folder), given.tokenizers)
        many = WithTokenizers(Config.load(**usual, overrides=overrides), Path(folder))
        tell(f"{given.tokenizers} more models, each with its own tokenizer file", many, texts, given.rounds)


class WithTokenizers(Candidates):
    """Candidates with tokenizers in a folder, as if the files of their models had been pulled."""

    def __init__(self, config, folder):
        super().__init__(config)
        self._folder = folder

    def _service_tokenizer(self, facts):
        file = self._folder / facts.name / "tokenizer.json"
        return file_key(file) if file.is_file() else super()._service_tokenizer(facts)


def with_tokenizers(folder, count):
    """Return settings of models with their own tokenizers, which are copies of the default model's."""
    written = json.loads((model_folder() / "tokenizer.json").read_text())
    overrides = {}
    benchmarks = {}
    for number in range(count):
        name = f"bench/model-{number}"
        (folder / name).mkdir(parents=True)
        (folder / name / "tokenizer.json").write_text(json.dumps(written, indent=number + 1))
        overrides[f"models.m{number}"] = {
            "name": name,
            "dimensions": 16,
            "max_tokens": 512,
            "price_usd_per_million_tokens": "0.02",
        }
        overrides[f"routes.r{number}"] = {"model": name, "provider": "fake"}
        benchmarks[name] = {
            "model_name": name,
            "provider": "fake",
            "avg_latency_ms": 50,
            "quality_score": 60,
            "tokens_per_second": 1000,
            "cost_per_million_tokens": "0.02",
            "max_context_length": 512,
            "embedding_dimensions": 16,
        }
    overrides["embedding.model_benchmarks"] = benchmarks
    return overrides


def tell(name, candidates, texts, count):
    """Select several times, and print the medians."""
    criteria = ModelSelectionCriteria.preset("balanced")
    rounds = []
    for _ in range(count + 1):
        began = time.perf_counter()
        sample = take_sample(texts)
        analysis = analyze(texts, sample=sample)
        looked = time.perf_counter()
        known = candidates.count_tokens(texts, sample)
        counted = time.perf_counter()
        selection = select(known, criteria, analysis)
        rounds.append((looked - began, counted - looked, time.perf_counter() - counted))
    own = sum(one.tokens.own for one in known)
    print(f"{name}: {len(known)} models, {own} with their own tokenizer, {len(texts):,} texts, ", end="")
    print(f"a sample of {analysis.sampled}: {selection.model}")
    print("| | languages and code of the sample, ms | tokens, ms | score and rank, ms | tokens, score and rank, ms |")
    print("| --- | ---: | ---: | ---: | ---: |")
    median = [statistics.median(column) for column in zip(*rounds[1:], strict=True)]
    for told, row in (("first", rounds[0]), ("median of the other rounds", median)):
        cells = " | ".join(f"{1000 * value:.1f}" for value in (*row, row[1] + row[2]))
        print(f"| {told} | {cells} |")


if __name__ == "__main__":
    main()
