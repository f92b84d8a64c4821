"""Tiny models with random weights, made without torch."""

import json

import numpy as np
from safetensors.numpy import save_file

WIDE, INNER, VOCABULARY = 16, 32, 30522
CONFIG = {
    "model_type": "bert",
    "vocab_size": VOCABULARY,
    "hidden_size": WIDE,
    "num_attention_heads": 2,
    "intermediate_size": INNER,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "pad_token_id": 0,
}


def tiny_encoder(folder, tokenizer, *, seed=1, layers=2, deviation=1.0, **config):
    """Make a BERT encoder in a folder; `tokenizer` is the file of MiniLM's, `config` overrides the defaults.

    The weights contain `layers` layers, independent of the configuration, with a standard `deviation`.
    """
    random = np.random.default_rng(seed)
    wide, inner, vocabulary = WIDE, INNER, VOCABULARY
    folder.mkdir(parents=True, exist_ok=True)
    facts = {**CONFIG, "architectures": ["BertModel"], "num_hidden_layers": layers, **config}
    (folder / "config.json").write_text(json.dumps(facts))
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    kinds = (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))
    modules = [{"idx": n, "path": path, "type": f"models.{kind}"} for n, (kind, path) in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    shapes = {
        "embeddings.word_embeddings": (vocabulary, wide),
        "embeddings.position_embeddings": (64, wide),
        "embeddings.token_type_embeddings": (2, wide),
    }
    norms = ["embeddings"]
    for layer in (f"encoder.layer.{number}" for number in range(layers)):
        for part in ("query", "key", "value"):
            shapes[f"{layer}.attention.self.{part}"] = (wide, wide)
        shapes[f"{layer}.attention.output.dense"] = (wide, wide)
        shapes[f"{layer}.intermediate.dense"] = (inner, wide)
        shapes[f"{layer}.output.dense"] = (wide, inner)
        norms += [f"{layer}.attention.output", f"{layer}.output"]
    tensors = {f"{name}.weight": random.normal(size=shape) for name, shape in shapes.items()}
    tensors |= {f"{n}.bias": random.normal(size=s[0]) for n, s in shapes.items() if not n.startswith("embeddings")}
    tensors = {name: deviation * tensor for name, tensor in tensors.items()}
    for name in norms:
        tensors |= {f"{name}.LayerNorm.weight": np.ones(wide), f"{name}.LayerNorm.bias": np.zeros(wide)}
    save_file({name: tensor.astype(np.float32) for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def tiny_reranker(folder, tokenizer):
    """Make a BERT cross-encoder with one layer in a folder; `tokenizer` is the file of MiniLM's."""
    random = np.random.default_rng(11)
    wide, inner, vocabulary = WIDE, INNER, VOCABULARY
    folder.mkdir(parents=True)
    config = {
        **CONFIG,
        "architectures": ["BertForSequenceClassification"],
        "num_hidden_layers": 1,
        "id2label": {"0": "LABEL_0"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    layer = "bert.encoder.layer.0"
    shapes = {
        "bert.embeddings.word_embeddings": (vocabulary, wide),
        "bert.embeddings.position_embeddings": (64, wide),
        "bert.embeddings.token_type_embeddings": (2, wide),
        f"{layer}.attention.self.query": (wide, wide),
        f"{layer}.attention.self.key": (wide, wide),
        f"{layer}.attention.self.value": (wide, wide),
        f"{layer}.attention.output.dense": (wide, wide),
        f"{layer}.intermediate.dense": (inner, wide),
        f"{layer}.output.dense": (wide, inner),
        "bert.pooler.dense": (wide, wide),
        "classifier": (1, wide),
    }
    tensors = {f"{name}.weight": random.normal(size=shape) for name, shape in shapes.items()}
    tensors |= {f"{n}.bias": random.normal(size=s[0]) for n, s in shapes.items() if not n.startswith("bert.embeddings")}
    for name in ("bert.embeddings", f"{layer}.attention.output", f"{layer}.output"):
        tensors |= {f"{name}.LayerNorm.weight": np.ones(wide), f"{name}.LayerNorm.bias": np.zeros(wide)}
    save_file({name: tensor.astype(np.float32) for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder
