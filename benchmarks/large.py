"""Load and use a model of bge-m3's size with random weights: seconds and peak memory, for each backend.

    python benchmarks/large.py

24 layers, 1024 wide, 250,002 tokens, 8,194 positions: 2.27 GB in float32. Weights are written tensor by tensor, so that
making them does not count; each backend runs in its own process.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CONFIG = {
    "architectures": ["XLMRobertaModel"],
    "model_type": "xlm-roberta",
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "vocab_size": 250_002,
    "max_position_embeddings": 8194,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "hidden_act": "gelu",
}


def shapes():
    hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    yield "embeddings.word_embeddings.weight", (CONFIG["vocab_size"], hidden)
    yield "embeddings.position_embeddings.weight", (CONFIG["max_position_embeddings"], hidden)
    yield "embeddings.token_type_embeddings.weight", (1, hidden)
    yield from norm("embeddings.LayerNorm", hidden)
    for layer in range(CONFIG["num_hidden_layers"]):
        prefix = f"encoder.layer.{layer}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            yield from linear(prefix + name, hidden, hidden)
        yield from norm(prefix + "attention.output.LayerNorm", hidden)
        yield from linear(prefix + "intermediate.dense", inner, hidden)
        yield from linear(prefix + "output.dense", hidden, inner)
        yield from norm(prefix + "output.LayerNorm", hidden)


def linear(name, rows, columns):
    yield f"{name}.weight", (rows, columns)
    yield f"{name}.bias", (rows,)


def norm(name, width):
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def write_model(folder):
    header, offset = {}, 0
    for name, shape in shapes():
        end = offset + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    generator = np.random.default_rng(1)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes():
            values = generator.standard_normal(shape, np.float32) * 0.02
            file.write((values + 1 if "LayerNorm.weight" in name else values).tobytes())
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    return offset


def peak_mb():
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(row.split()[1]) for row in status.splitlines() if row.startswith("VmHWM")) / 1024


def measure(folder, backend, precision):
    from embedway.local import cpu
    from embedway.local.backend import SessionOptions, open_session
    from embedway.local.recipe import read_recipe

    recipe = read_recipe(Path(folder), name="large", weights_sha256="0" * 64, facts=None)
    before = peak_mb()
    started = time.perf_counter()
    session = open_session(recipe, SessionOptions(backend, precision, 1, cpu.facts().cores))
    loaded, loaded_peak = time.perf_counter() - started, peak_mb()
    ids = np.random.default_rng(2).integers(5, 250_000, (4, 128)).astype(np.int32)
    vectors = session.run(ids, np.ones_like(ids))
    started = time.perf_counter()
    session.run(ids, np.ones_like(ids))
    assert np.isfinite(vectors).all()
    print(
        f"{backend} {precision}: loaded in {loaded:.1f} s, peak {loaded_peak:.0f} MB ({before:.0f} before); "
        f"4 texts of 128 tokens in {time.perf_counter() - started:.2f} s, peak {peak_mb():.0f} MB",
        flush=True,
    )


def main():
    from contestants import cpu_line
    from embedway.local import cpu

    print(cpu_line())
    with tempfile.TemporaryDirectory() as folder:
        size = write_model(Path(folder))
        print(f"weights: {size / 1e6:.0f} MB; 1.3 times that is {1.3 * size / 2**20:.0f} MiB", flush=True)
        for backend, precision in (("onnxruntime", "f32"), ("openvino", "f32"), ("openvino", "bf16")):
            if precision == "f32" or cpu.facts().bf16:
                subprocess.run([sys.executable, __file__, folder, backend, precision], check=True)


if __name__ == "__main__":
    measure(*sys.argv[1:]) if len(sys.argv) > 1 else main()
