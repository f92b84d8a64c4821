"""Speed of the built-in runtime with encoders of each size in the catalog: the source of its benchmarks.

    python benchmarks/speeds.py [--texts 64]

Speed depends on a model's shape and not on its training, so weights are random, and made in a temporary folder: up to
1.3 GB. Texts are passages of the standard library's sources. Cache off. Latency is that of a single query of about ten
tokens; tokens/s is that of passages of at most 256 tokens, in batches. Printed as rows for `catalog/benchmarks.toml`.
"""

import argparse
import json
import random
import statistics
import sysconfig
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from embedway import Config, Embedder
from embedway.catalog import DEFAULT_MODEL, default_catalog
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


def main():
    """Print a row for each shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=64)
    arguments = parser.parse_args()
    defaults = Config.load()
    store = WeightsStore(defaults.store_settings())
    weights = default_catalog().get(DEFAULT_MODEL).weights
    tokenizer = (store.find(weights) or store.pull(weights)).path / "tokenizer.json"
    texts = passages(arguments.texts)
    for name, (layers, wide, inner) in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / name
            random_bert(model, layers, wide, inner, tokenizer)
            config = Config.load(overrides={"cache.backend": "none"})
            with Embedder(config=config) as embedder:
                embedder.embed(texts[:4], model=str(model))
                rates = []
                for _ in range(3):
                    began = time.perf_counter()
                    tokens = embedder.embed(texts, model=str(model)).receipt.tokens
                    rates.append(tokens / (time.perf_counter() - began))
                times = []
                for number in range(30):
                    began = time.perf_counter()
                    embedder.embed(f"{number} how do i read a file line by line?", model=str(model), input_type="query")
                    times.append(time.perf_counter() - began)
                runtime = embedder.models.describe(str(model)).runtime
        print(
            f"{name}: avg_latency_ms = {statistics.mean(times) * 1000:.1f}, "
            f"tokens_per_second = {statistics.median(rates):.0f}, {runtime}",
            flush=True,
        )


if __name__ == "__main__":
    main()
