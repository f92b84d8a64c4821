"""Run one long text through a small random model and print the increase of peak memory in MB."""

import json
import resource
import sys
from pathlib import Path

import numpy as np

from embedway.local.backend import SessionOptions, open_session
from embedway.local.recipe import read_recipe

HIDDEN, HEADS, INNER = 64, 16, 64


def write_model(folder, positions):
    config = {"model_type": "bert", "hidden_size": HIDDEN, "num_hidden_layers": 1, "num_attention_heads": HEADS}
    config |= {"max_position_embeddings": positions, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}
    shapes = {
        f"embeddings.{name}_embeddings.weight": (rows, HIDDEN)
        for name, rows in (("word", 50), ("position", positions), ("token_type", 2))
    }
    layer = "encoder.layer.0."
    for name, out, width in (
        ("attention.self.query", HIDDEN, HIDDEN),
        ("attention.self.key", HIDDEN, HIDDEN),
        ("attention.self.value", HIDDEN, HIDDEN),
        ("attention.output.dense", HIDDEN, HIDDEN),
        ("intermediate.dense", INNER, HIDDEN),
        ("output.dense", HIDDEN, INNER),
    ):
        shapes |= {f"{layer}{name}.weight": (out, width), f"{layer}{name}.bias": (out,)}
    for name in ("embeddings.LayerNorm", f"{layer}attention.output.LayerNorm", f"{layer}output.LayerNorm"):
        shapes |= {f"{name}.weight": (HIDDEN,), f"{name}.bias": (HIDDEN,)}
    header, offset = {}, 0
    for name, shape in shapes.items():
        end = offset + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    numbers = np.random.default_rng(1).standard_normal(offset // 4, np.float32) * 0.1
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + numbers.tobytes())
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(folder, backend, tokens):
    write_model(Path(folder), tokens)
    recipe = read_recipe(Path(folder), name="small", weights_sha256="0" * 64, facts=None)
    session = open_session(recipe, SessionOptions(backend, "f32", 1, 2))
    ids = np.random.default_rng(2).integers(1, 50, (1, tokens)).astype(np.int32)
    session.run(ids[:, :8], np.ones_like(ids[:, :8]))
    before = peak_mb()
    vectors = session.run(ids, np.ones_like(ids))
    assert np.isfinite(vectors).all()
    sys.stdout.write(str(peak_mb() - before))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
