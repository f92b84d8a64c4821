"""Measure models of usual shapes on this machine, for selection: the source of the speeds of its benchmarks.

    python benchmarks/speeds.py [--texts 16] [--queries 20] [--rounds 9] [--note TEXT]

Speed depends on a model's shape and not on its training, so weights are random, and made in a temporary folder: up to
1.3 GB. Texts are passages of the standard library's sources. Cache off. Latency is the median of single queries of
about ten tokens; tokens/s is the median of passages of at most 256 tokens, in batches.

All shapes are open in one process, and measured in alternating rounds, so that noise of the machine affects all of
them. The first round, and the first query after a batch, do not count. Ctrl-C ends the rounds early. Prints, for each
shape, a table for `catalog/benchmarks.toml` that names this machine. Exits with 1 if a deeper or wider shape is faster
than a smaller one: then the machine was too busy, and the rows are wrong.
"""

import argparse
import contextlib
import importlib.metadata
import itertools
import json
import platform
import random
import statistics
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from embedway import Config, Embedder
from embedway.catalog import DEFAULT_MODEL, default_catalog
from embedway.local import cpu
from embedway.weights.store import WeightsStore

#: Layers, width and inner width; heads are 64 wide, in small models 32.
SHAPES = {
    "l6-384": (6, 384, 1536),
    "l12-384": (12, 384, 1536),
    "l12-768": (12, 768, 3072),
    "l24-1024": (24, 1024, 4096),
}
_VOCABULARY = 30522


def random_bert(folder, layers, wide, inner, tokenizer):
    """Make a BERT encoder of that shape with random weights, and the default model's tokenizer."""
    random_numbers = np.random.default_rng(5)
    folder.mkdir(parents=True)
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": _VOCABULARY,
        "hidden_size": wide,
        "num_hidden_layers": layers,
        "num_attention_heads": wide // (64 if wide > 384 else 32),
        "intermediate_size": inner,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    tensors = {}

    def linear(name, rows, columns):
        tensors[f"{name}.weight"] = random_numbers.standard_normal((rows, columns), np.float32) * np.float32(0.02)
        tensors[f"{name}.bias"] = np.zeros(rows, np.float32)

    def norm(name):
        tensors[f"{name}.weight"] = np.ones(wide, np.float32)
        tensors[f"{name}.bias"] = np.zeros(wide, np.float32)

    for name, rows in (("word", _VOCABULARY), ("position", 512), ("token_type", 2)):
        table = random_numbers.standard_normal((rows, wide), np.float32) * np.float32(0.02)
        tensors[f"embeddings.{name}_embeddings.weight"] = table
    norm("embeddings.LayerNorm")
    for layer in range(layers):
        start = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            linear(f"{start}.attention.self.{part}", wide, wide)
        linear(f"{start}.attention.output.dense", wide, wide)
        norm(f"{start}.attention.output.LayerNorm")
        linear(f"{start}.intermediate.dense", inner, wide)
        linear(f"{start}.output.dense", wide, inner)
        norm(f"{start}.output.LayerNorm")
    save_file(tensors, folder / "model.safetensors")


def passages(count):
    """Return texts of up to about 256 tokens."""
    library = Path(sysconfig.get_paths()["stdlib"])
    texts = [path.read_text(errors="replace") for path in sorted(library.glob("*.py"))[:80]]
    pieces = [text[at : at + 900] for text in texts for at in range(0, min(len(text), 9000), 900)]
    chance = random.Random(3)  # noqa: S311  texts, no secrets
    chance.shuffle(pieces)
    return [piece for piece in pieces if piece.strip()][:count]


def query(number):
    """Return a short query that differs from all others."""
    return f"{number} how do i read a file line by line?"


class Shape:
    """A model of one shape, with the times of its rounds."""

    def __init__(self, embedder, folder):
        self._embedder, self._model = embedder, str(folder)
        self._asked = 0
        self.latencies, self.rates = [], []

    def _seconds(self):
        self._asked += 1
        began = time.perf_counter()
        self._embedder.embed(query(self._asked), model=self._model, input_type="query")
        return time.perf_counter() - began

    def measure(self, texts, queries):
        """Return the seconds of single queries, and the tokens per second of a batch."""
        self._seconds()  # the first query after a batch, or of all
        latencies = [self._seconds() for _ in range(queries)]
        began = time.perf_counter()
        tokens = self._embedder.embed(texts, model=self._model).receipt.tokens
        return latencies, tokens / (time.perf_counter() - began)

    def round(self, texts, queries):
        """Measure once, and keep the times."""
        latencies, rate = self.measure(texts, queries)
        self.latencies += latencies
        self.rates.append(rate)

    @property
    def runtime(self):
        """Backend and precision."""
        return self._embedder.models.describe(self._model).runtime

    @property
    def latency_ms(self):
        """Median latency."""
        return statistics.median(self.latencies) * 1000

    @property
    def tokens_per_second(self):
        """Median throughput."""
        return statistics.median(self.rates)


def alternate(shapes, texts, given):
    """Measure all shapes in rounds of alternating order; Ctrl-C ends it."""
    for number in range(given.rounds):
        for shape in shapes if number % 2 else reversed(shapes):
            shape.round(texts, given.queries)
        now = ", ".join(f"{shape.latency_ms:.1f} ms {shape.tokens_per_second:.0f}/s" for shape in shapes)
        print(f"round {number + 1} of {given.rounds}: {now}", file=sys.stderr, flush=True)


def is_monotonic(shapes):
    """Return whether no shape is faster than a smaller one; `shapes` are from small to large."""
    pairs = list(itertools.pairwise(shapes))
    return all(
        one.latency_ms <= other.latency_ms and one.tokens_per_second >= other.tokens_per_second for one, other in pairs
    )


def machine():
    """Return the machine and the versions, for the field `by`."""
    facts = cpu.facts()
    fields = dict(
        line.replace("\t", "").split(": ", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ": " in line
    )
    which = f"family {fields['cpu family']}, model {fields['model']}" if "cpu family" in fields else "unknown family"
    openvino = importlib.metadata.version("openvino")
    return (
        f"{facts.cores} cores of {facts.name} ({which}), Python {platform.python_version()}, OpenVINO {openvino}, "
        f"embedway {importlib.metadata.version('embedway')}"
    )


def print_row(name, shape, note):
    """Print a shape's table of the catalog."""
    rounds = f"median of {len(shape.latencies)} queries and {len(shape.rates)} batches after warm-up"
    by = f"embedway on {machine()}; {shape.runtime}; random weights of this shape; {rounds}{note and '; ' + note}"
    print(f"[speeds.{name}]")
    print(f"avg_latency_ms = {shape.latency_ms:.1f}")
    print(f"tokens_per_second = {float(f'{shape.tokens_per_second:.3g}'):.0f}")
    print(f'by = "{by} (benchmarks/speeds.py)"')
    print(f"date = {time.strftime('%Y-%m-%d')}\n", flush=True)


def main():
    """Print a table for each shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=16)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--note", default="", help="what else a reader of the rows must know, such as a busy machine")
    given = parser.parse_args()
    defaults = Config.load()
    store = WeightsStore(defaults.store_settings())
    weights = default_catalog().get(DEFAULT_MODEL).weights
    tokenizer = (store.find(weights) or store.pull(weights)).path / "tokenizer.json"
    texts = passages(given.texts)
    with tempfile.TemporaryDirectory() as folder:
        config = Config.load(overrides={"cache.backend": "none"})
        with Embedder(config=config) as embedder:
            shapes = {}
            for name, (layers, wide, inner) in SHAPES.items():
                random_bert(Path(folder) / name, layers, wide, inner, tokenizer)
                shapes[name] = Shape(embedder, Path(folder) / name)
                shapes[name].measure(texts, given.queries)
            with contextlib.suppress(KeyboardInterrupt):
                alternate(list(shapes.values()), texts, given)
            for name, shape in shapes.items():
                print_row(name, shape, given.note)
            right = is_monotonic(list(shapes.values()))
    if not right:
        sys.exit("a larger shape is faster than a smaller one: repeat on a machine that does nothing else")


if __name__ == "__main__":
    main()
