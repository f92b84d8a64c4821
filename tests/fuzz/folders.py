"""Model folders of strangers: mutated settings, tokenizers, weights and ONNX graphs, and odd kinds of files."""

import json
import os
import random as randoms
import shutil
import struct

import numpy as np
import onnx
from cases import Case, WrongResultError
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file

from calls import WORDS, settings, tiny_tokenizer
from embedway import Config, Embedder
from tiny_models import WIDE, tiny_encoder, tiny_reranker

#: JSON texts: each is wrong for most keys.
JSON = [
    "null",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "7",
    "0.5",
    "-0.0",
    "1e999",
    "NaN",
    "-Infinity",
    "1000000000",
    "2147483648",
    "9223372036854775808",
    "1" + "0" * 400,
    "9" * 5000,
    '""',
    '"a"',
    '"a\\u0000b"',
    '"\\ud800"',
    '"../../a"',
    '"/etc/passwd"',
    f'"{"x" * 10_000}"',
    "[]",
    "[[]]",
    "[0]",
    '["a", 1, null]',
    "[{}]",
    "{}",
    '{"a": 5}',
    '{"": {"": {}}}',
    "[" * 500 + "]" * 500,
    "[" * 100_000,
    '{"a":' * 100_000,
    "\ufeff{}",
]
LONG = "b " * 300
_KINDS = ("json", "json", "json", "json", "bytes", "header", "tensor", "onnx", "onnx", "file")


def cases(seed, place):
    """Yield cases without end."""
    random = randoms.Random(seed)
    bases = _bases(place)
    embedders = [_embedder(place, backend) for backend in ("onnxruntime", "openvino")]
    number = 0
    while True:
        number += 1
        base, task = random.choice(bases)
        folder = place / "mutated"
        kind = random.choice(_KINDS)
        plan = [random.getrandbits(64) for _ in range(random.choice([1, 1, 1, 2, 3]))]
        backend = random.choice([0, 0, 1])
        call = random.choice(["compute", "compute", "compute", "describe", "plan"])
        yield Case(
            f"{base.name} {kind}",
            f"{number} {call} {'openvino' if backend else 'onnxruntime'}",
            lambda b=base, t=task, k=kind, p=plan, e=embedders[backend], c=call, f=folder: _run(b, t, k, p, e, c, f),
        )


def _embedder(place, backend):
    own = {"local.backend": backend, "local.precision": "f32", "cache.backend": "none", "upstream.deadline_s": 20.0}
    return Embedder(config=Config.load(environ={}, overrides={**settings(place), **own}))


def _run(base, task, kind, plan, embedder, call, folder):
    for path in (folder, *folder.parent.glob("mutated-*")):
        shutil.rmtree(path, ignore_errors=True)
    folder = folder.with_name(f"mutated-{plan[0]}")  # an embedder keeps models by their path
    shutil.copytree(base, folder)
    done = [_MUTATIONS[kind](randoms.Random(step), folder) for step in plan]
    try:
        _use(embedder, task, call, str(folder))
    except BaseException as error:
        error.add_note(f"mutations: {done}")
        raise


def _use(embedder, task, call, model):
    if call == "describe" and task == "embed":
        repr(embedder.models.describe(model))
    elif call == "plan" and task == "embed":
        repr(embedder.plan(["a b", LONG], model=model))
    elif task == "rerank":
        scores = embedder.rerank("a", ["b", LONG, "a c"], model=model).scores
        if scores.shape != (3,) or not np.isfinite(scores).all():
            raise WrongResultError(str(scores))
    else:
        vectors = embedder.embed(["a b", LONG, "a b"], model=model).vectors
        if len(vectors) != 3 or not np.isfinite(vectors).all() or not np.allclose(vectors[0], vectors[2], atol=1e-4):
            raise WrongResultError("rows or numbers")


def _bases(place):
    """Make complete folders: a BERT encoder with every file, shards, ONNX graphs, and a reranker."""
    root = place / "bases"
    tokenizer = tiny_tokenizer(root / "tokenizer")
    encoder = tiny_encoder(root / "encoder", tokenizer, layers=1, vocab_size=len(WORDS))
    _shrink(encoder, "embeddings.word_embeddings.weight")
    dump(encoder / "2_Dense" / "config.json", {"activation_function": "torch.nn.Tanh", "out_features": WIDE})
    dense = {"linear.weight": np.eye(WIDE, dtype=np.float32), "linear.bias": np.zeros(WIDE, np.float32)}
    save_file(dense, encoder / "2_Dense" / "model.safetensors")
    modules = json.loads((encoder / "modules.json").read_text())
    dump(encoder / "modules.json", [*modules[:2], {"path": "2_Dense", "type": "models.Dense"}, *modules[2:]])
    dump(encoder / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": True})
    dump(encoder / "tokenizer_config.json", {"model_max_length": 64})
    prompts = {"prompts": {"query": "a ", "document": "b "}, "default_prompt_name": "query"}
    dump(encoder / "config_sentence_transformers.json", prompts)
    shards = root / "shards"
    shutil.copytree(encoder, shards)
    tensors = load_file(shards / "model.safetensors")
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for name, part in parts.items():
        save_file({one: tensors[one] for one in part}, shards / name)
    weight_map = {one: name for name, part in parts.items() for one in part}
    dump(shards / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    (shards / "model.safetensors").unlink()
    reranker = tiny_reranker(root / "reranker", tokenizer)
    _shrink(reranker, "bert.embeddings.word_embeddings.weight")
    exported = [_exported(root / name, encoder, external=name == "onnx-external") for name in ("onnx", "onnx-external")]
    return [(folder, "embed") for folder in (encoder, encoder, shards, *exported)] + [(reranker, "rerank")]


def _shrink(folder, name):
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, name: tensors[name][: len(WORDS)].copy()}, folder / "model.safetensors")


def _exported(folder, encoder, *, external):
    """Make an ONNX folder: ids to rows of a table, a linear layer, and one vector per token."""
    shutil.copytree(encoder, folder)
    (folder / "model.safetensors").unlink()
    random = np.random.default_rng(3)
    table = random.normal(size=(len(WORDS), WIDE)).astype(np.float32)
    weight = random.normal(size=(WIDE, WIDE)).astype(np.float32)
    initializers = [numpy_helper.from_array(weight, "weight")]
    if external:
        (folder / "table.bin").write_bytes(table.tobytes())
        tensor = TensorProto(name="table", data_type=1, dims=table.shape, data_location=TensorProto.EXTERNAL)
        for key, value in (("location", "table.bin"), ("offset", "0"), ("length", str(table.nbytes))):
            tensor.external_data.add(key=key, value=value)
        initializers.append(tensor)
    else:
        initializers.append(numpy_helper.from_array(table, "table"))
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"], axis=0),
        helper.make_node("MatMul", ["rows", "weight"], ["last_hidden_state"]),
    ]
    inputs = [helper.make_tensor_value_info(name, 7, ["b", "s"]) for name in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("last_hidden_state", 1, ["b", "s", WIDE])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder


def dump(path, content):
    """Write JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def paths_of(value, path=()):
    """Yield the path of each value in parsed JSON."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from paths_of(item, (*path, key))


def mutate_json(random, value):
    """Return the JSON text of a value with one change, and where it was."""
    path = random.choice(list(paths_of(value)))
    odd = random.choice(JSON)
    if not path:
        return odd, "whole"
    value = json.loads(json.dumps(value))
    place = value
    for key in path[:-1]:
        place = place[key]
    action = random.choice(["replace", "replace", "replace", "delete", "rename", "double"])
    if action == "delete":
        del place[path[-1]]
    elif action == "rename" and isinstance(place, dict):
        place[random.choice(["", "a", "type", "\ud800"])] = place.pop(path[-1])
    elif action == "double" and isinstance(place, list):
        place.append(place[path[-1]])
    else:
        place[path[-1]] = "@@"
    return json.dumps(value).replace('"@@"', odd), f"{action} {path} {odd[:30]}"


def mutate_bytes(random, data):
    """Return bytes with one change."""
    action = random.choice(["cut", "flip", "flip", "insert", "remove", "empty", "binary", "zeros", "twice"])
    at = random.randrange(len(data) + 1)
    if action == "cut":
        return data[:at], action
    if action == "flip":
        changed = bytearray(data)
        for _ in range(random.choice([1, 1, 4, 30])):
            if changed:
                changed[random.randrange(min(len(changed), random.choice([32, 500, 10**9])))] = random.randrange(256)
        return bytes(changed), action
    new = {"insert": random.randbytes(random.choice([1, 8, 1000])), "empty": b"", "binary": random.randbytes(500)}
    if action == "insert":
        return data[:at] + new[action] + data[at:], action
    if action == "remove":
        return data[:at] + data[at + random.choice([1, 8, 100]) :], action
    return {"empty": b"", "binary": new["binary"], "zeros": bytes(len(data)), "twice": data * 2}[action], action


def _files(folder, *suffixes):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name.endswith(suffixes or ("",)))


def _change_json(random, folder):
    path = random.choice(_files(folder, ".json"))
    try:
        text, what = mutate_json(random, json.loads(path.read_text("utf-8")))
    except (ValueError, RecursionError):  # damaged by an earlier mutation
        return "nothing"
    path.write_text(text, "utf-8", errors="surrogatepass")
    return f"{path.name}: {what}"


def _change_bytes(random, folder):
    path = random.choice(_files(folder))
    data, what = mutate_bytes(random, path.read_bytes())
    path.write_bytes(data)
    return f"{path.name}: {what}"


def _change_header(random, folder):
    found = _files(folder, ".safetensors")
    if not found:
        return _change_bytes(random, folder)
    path = random.choice(found)
    data = path.read_bytes()
    if len(data) < 8 or (length := struct.unpack("<Q", data[:8])[0]) > len(data) - 8:
        return "nothing"
    if random.random() < 0.2:
        length = random.choice([0, 1, 7, length - 1, length + 1, 2**31, 2**63 - 1, 2**64 - 1, len(data)])
        path.write_bytes(struct.pack("<Q", length) + data[8:])
        return f"{path.name}: length {length}"
    try:
        text, what = mutate_json(random, json.loads(data[8 : 8 + length]))
    except (ValueError, RecursionError):
        return "nothing"
    header = text.encode("utf-8", "surrogatepass")
    path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])
    return f"{path.name}: {what}"


def _change_tensor(random, folder):
    """Keep a file valid, but change the shape, the type or the numbers of a tensor."""
    found = _files(folder, ".safetensors")
    if not found:
        return _change_onnx(random, folder)
    path = random.choice(found)
    try:
        tensors = load_file(path)
    except Exception:
        return "nothing"
    name = random.choice(sorted(tensors))
    tensor = tensors[name]
    action = random.choice(["wider", "flat", "scalar", "none", "f16", "f64", "i64", "u8", "nan", "inf", "huge", "gone"])
    changed = {
        "wider": lambda: np.concatenate([tensor, tensor], axis=-1),
        "flat": lambda: tensor.reshape(-1),
        "scalar": lambda: np.float32(1).reshape(()),
        "none": lambda: np.zeros((0, *tensor.shape[1:]), np.float32),
        "f16": lambda: tensor.astype(np.float16),
        "f64": lambda: tensor.astype(np.float64),
        "i64": lambda: tensor.astype(np.int64),
        "u8": lambda: tensor.astype(np.uint8),
        "nan": lambda: np.full_like(tensor, np.nan),
        "inf": lambda: np.full_like(tensor, np.inf),
        "huge": lambda: np.full_like(tensor, 3e38),
        "gone": lambda: None,
    }[action]()
    kept = {key: value for key, value in tensors.items() if key != name}
    save_file(kept if changed is None else {**kept, name: np.ascontiguousarray(changed)}, path)
    return f"{path.name}: {name} {action}"


def _change_onnx(random, folder):
    path = folder / "model.onnx"
    if not path.is_file():
        return _change_json(random, folder)
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except Exception:
        return "nothing"
    graph = model.graph
    odd = random.choice([0, 1, -1, 2, 16, 2**31, 2**62, 10**9])
    word = random.choice(["", "a", "Gather", "DynamicQuantizeLinear", "Loop", "last_hidden_state", "\0", "x" * 5000])
    node = random.choice(graph.node) if graph.node else helper.make_node("Identity", ["a"], ["b"])
    tensor = random.choice(graph.initializer) if graph.initializer else TensorProto()
    value = random.choice([*graph.input, *graph.output]) if graph.input else onnx.ValueInfoProto()
    changes = {
        "operator": lambda: setattr(node, "op_type", word),
        "domain": lambda: setattr(node, "domain", word),
        "no inputs": lambda: node.ClearField("input"),
        "no outputs": lambda: node.ClearField("output"),
        "input": lambda: node.input.append(word),
        "cycle": lambda: node.input.__setitem__(0, node.output[0]) if node.input and node.output else None,
        "axis": lambda: [setattr(attribute, "i", odd) for attribute in node.attribute],
        "attribute": lambda: node.attribute.append(helper.make_attribute(word or "b", odd)),
        "attribute type": lambda: [setattr(attribute, "type", 5) for attribute in node.attribute],
        "dims": lambda: tensor.dims.append(odd),
        "dim": lambda: tensor.dims.__setitem__(0, odd) if tensor.dims else None,
        "kind": lambda: setattr(tensor, "data_type", random.choice([0, 1, 2, 7, 8, 16, 23, 99])),
        "no data": lambda: tensor.ClearField("raw_data"),
        "tensor name": lambda: setattr(tensor, "name", word),
        "external": lambda: _make_external(random, tensor),
        "value name": lambda: setattr(value, "name", word),
        "value kind": lambda: setattr(value.type.tensor_type, "elem_type", random.choice([0, 1, 6, 7, 8, 9, 99])),
        "value shape": lambda: value.type.tensor_type.ClearField("shape"),
        "value dim": lambda: value.type.tensor_type.shape.dim.add(dim_value=odd),
        "sequence": lambda: value.type.CopyFrom(
            helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, None))
        ),
        "no value": lambda: graph.output.pop() if graph.output else None,
        "no graph": lambda: model.ClearField("graph"),
        "opset": lambda: model.opset_import[0].__setattr__("version", odd) if model.opset_import else None,
        "no opset": lambda: model.ClearField("opset_import"),
        "version": lambda: setattr(model, "ir_version", odd),
        "twice": lambda: graph.node.extend([node]),
        "sub graph": lambda: node.attribute.append(helper.make_attribute("body", graph)),
    }
    action = random.choice(sorted(changes))
    try:
        changes[action]()
        path.write_bytes(model.SerializeToString())
    except (ValueError, TypeError, IndexError):  # protobuf refuses some values itself
        return "nothing"
    return f"onnx: {action} {odd} {word[:10]!r}"


def _make_external(random, tensor):
    """Let a tensor name external data: missing, outside the folder, or with odd numbers."""
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    places = ["table.bin", "../a.bin", "/etc/passwd", "", "a\0b", "x" * 300, "config.json", "2_Dense"]
    tensor.external_data.add(key="location", value=random.choice(places))
    for key in ("offset", "length"):
        if random.random() < 0.7:
            value = random.choice(["0", "4", "-1", "9" * 30, "9" * 5000, "a", "", "1e3", "٣"])
            tensor.external_data.add(key=key, value=value)


def _change_file(random, folder):
    path = random.choice([one for one in folder.rglob("*") if one.exists()] or [folder])
    kind = random.choice(["missing", "folder", "pipe", "loop", "dangling", "device", "zeros", "self", "unreadable"])
    if kind == "unreadable":
        path.chmod(0)
        return kind
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "loop":
            path.symlink_to(path.name)
        case "dangling":
            path.symlink_to("absent")
        case "device":
            path.symlink_to("/dev/zero")
        case "zeros":
            with path.open("wb") as file:
                file.truncate(400 * 2**20)
        case "self":
            path.symlink_to(".")
    return f"{path.name}: {kind}"


_MUTATIONS = {
    "json": _change_json,
    "bytes": _change_bytes,
    "header": _change_header,
    "tensor": _change_tensor,
    "onnx": _change_onnx,
    "file": _change_file,
}
