"""Public calls with odd arguments: each argument alone with each value, then arguments at random."""

import asyncio
import contextlib
import json
import random as randoms

import numpy as np
from cases import SECRET, TEXT, CallersError, Case
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from values import RAISING_TEXTS, VALUES

from embedway import AsyncEmbedder, Config, Embedder, ModelBenchmark, ModelSelectionCriteria
from tiny_models import tiny_encoder, tiny_reranker

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "b", "c"]
#: Arguments whose own errors reach the caller, because the caller's iteration raised them.
_TEXTS = {"texts", "documents", "text", "rest"}
_CALL = {
    "model": None,
    "dimensions": None,
    "on_overflow": "truncate",
    "partial": True,
    "criteria": None,
    "collection": "",
    "max_cost": "1",
}
_EMBED = {
    **_CALL,
    "input_type": "query",
    "priority": 3,
    "deadline_s": 60,
    "api_key_name": "key",
    "backup": (),
    "normalize": None,
}
_SHORT = {name: value for name, value in _EMBED.items() if name != "input_type"}
_RERANK = {"model": None, "top_n": 1, "on_overflow": "truncate", "partial": True, "max_cost": "1"}
#: Required and optional arguments of each method, with valid values.
METHODS = {
    "embed": ({"texts": ["a b", "c"]}, _EMBED),
    "embed_query": ({"text": "a b"}, _SHORT),
    "embed_documents": ({"texts": ["a b", "c"]}, _SHORT),
    "rerank": ({"query": "a", "documents": ["a b", "c"]}, {**_RERANK, "collection": "", "api_key_name": ""}),
    "plan": ({"texts": ["a b", "c"]}, {**_CALL, "input_type": "query"}),
    "plans": (
        {"texts": ["a b", "c"]},
        {"models": None, "input_type": "query", "dimensions": None, "on_overflow": "truncate"},
    ),
    "select": ({"texts": ["a b", "c"]}, {"criteria": None, "anywhere": True}),
    "cache.clear": ({}, {"model": "a", "space_id": "a", "namespace": "a", "older_than_s": 5}),
    "cache.verify": (
        {"texts": ["a b"]},
        {"input_type": "query", "model": None, "on_overflow": "truncate", "sample": 5},
    ),
    "pins.forget": ({"collection": "a"}, {}),
    "pins.prove": ({"collection": "kept", "texts": ["a b"], "vectors": np.zeros((1, 16), np.float32)}, {}),
    "models.available": ({}, {"dimensions": 16}),
    "models.describe": ({}, {"model": None, "dimensions": 16}),
    "models.warm": ({}, {"model": None}),
    "models.tune": ({"model": "nothing/has-this-name"}, {"progress": None}),
}
_LISTS = ("languages", "licences")
CRITERIA = dict.fromkeys(ModelSelectionCriteria.__dataclass_fields__)
BENCHMARK = {"model_name": "acme/m", "provider": "openai", "dimensions": 16, "max_tokens": 512}


def tiny_tokenizer(folder):
    """Write the tokenizer.json of seven words."""
    tokenizer = Tokenizer(models.WordLevel({word: row for row, word in enumerate(WORDS)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("[CLS]", 1), ("[SEP]", 2)]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", special)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def settings(place, **more):
    """Return overrides of settings that read and write only below `place`."""
    own = {f"{table}.path": str(place / f"{table}.sqlite") for table in ("ledger", "pins", "cache")}
    folders = {"weights.directory": str(place / "weights"), "tune.directory": str(place / "tune")}
    fixed = {"weights.offline": True, "weights.places": ["folder"], "cache.backend": "memory"}
    return {**own, **folders, **fixed, **{name.replace("__", "."): value for name, value in more.items()}}


def make_config(place):
    """Return a configuration with tiny local models, and a service that is not reachable."""
    tokenizer = tiny_tokenizer(place / "tokenizer")
    encoder = tiny_encoder(place / "encoder", tokenizer, layers=1)
    reranker = tiny_reranker(place / "reranker", tokenizer)
    service = {
        "models.m.name": "acme/m",
        "models.m.dimensions": 16,
        "models.m.max_tokens": 64,
        "models.m.tokenizer": "estimate",
        "routes.r.model": "acme/m",
        "routes.r.provider": "openai-compatible",
        "routes.r.base_url": "http://127.0.0.1:9/v1",
        "routes.r.api_key": SECRET,
        "upstream.deadline_s": 2.0,
        "upstream.max_attempts": 1,
        "embedding.default_model": str(encoder),
        "rerank.default_model": str(reranker),
        "local.backend": "onnxruntime",
        "local.precision": "f32",
    }
    return Config.load(environ={}, overrides={**settings(place), **service})


def cases(seed, place):
    """Yield cases without end."""
    random = randoms.Random(seed)
    config = make_config(place)
    embedder = Embedder(config=config)
    embedder.embed(["a b"], collection="kept")
    alone = [*_method_cases(embedder), *_async_cases(config), *_value_cases(config, embedder)]
    random.shuffle(alone)
    yield from alone
    while True:
        yield _mixed(random, embedder)


def _allowed(arguments):
    return (CallersError,) if any(name in _TEXTS and what in RAISING_TEXTS for name, what in arguments.items()) else ()


def _method_cases(embedder):
    for method, (required, optional) in METHODS.items():
        for argument in (*required, *optional):
            for what in VALUES:
                yield _call(embedder, method, required, {argument: what})


def _call(embedder, method, valid, odd):
    def run():
        target = embedder
        for name in method.split("."):
            target = getattr(target, name)
        repr(target(**{**valid, **{name: VALUES[what]() for name, what in odd.items()}}))

    entry = f"{method}({', '.join(odd)})" if len(odd) == 1 else f"{method}(several)"
    return Case(entry, ", ".join(f"{name}={what}" for name, what in odd.items()), run, _allowed(odd))


def _mixed(random, embedder):
    method, (required, optional) = random.choice(list(METHODS.items()))
    valid = {**required, **{name: value for name, value in optional.items() if random.random() < 0.3}}
    names = random.sample([*required, *optional], min(len(required) + len(optional), random.randint(1, 4)))
    return _call(embedder, method, valid, {name: random.choice(list(VALUES)) for name in names})


def _async_cases(config):
    """Yield calls of AsyncEmbedder where its arguments differ from those of Embedder."""

    def run(method, required, argument, what):
        async def call():
            async with AsyncEmbedder(config=config) as embedder:
                return await getattr(embedder, method)(**{**required, argument: VALUES[what]()})

        repr(asyncio.run(call()))

    for method in ("embed", "rerank", "select", "plans"):
        required, _ = METHODS[method]
        for argument in (*required, *(("rest",) if method == "select" else ())):
            for what in VALUES:
                yield Case(
                    f"async {method}({argument})",
                    what,
                    lambda m=method, r=required, a=argument, w=what: run(m, r, a, w),
                    _allowed({argument: what}),
                )


def _value_cases(config, embedder):
    """Yield constructors, settings, criteria, benchmarks, and methods of results."""
    result = embedder.embed(["a b", "c"])
    sections = sorted(Config.model_fields)
    made = {
        "Embedder(model)": lambda value: _closed(Embedder(value, config=config)),
        "Embedder(config)": lambda value: _closed(Embedder(config=config if value is None else value)),
        "Embedder(progress)": lambda value: _closed(Embedder(config=config, progress=value)),
        "Embedder(hooks)": lambda value: _closed(Embedder(config=config, hooks=value)),
        "Embedder(hooks one)": lambda value: _closed(Embedder(config=config, hooks=[value])),
        "Config.load(files)": lambda value: Config.load(value, environ={}),
        "Config.load(files one)": lambda value: Config.load([value], environ={}),
        "Config.load(environ)": lambda value: Config.load(environ={} if value is None else value),
        "Config.load(environ key)": lambda value: Config.load(environ={"EMBEDWAY_EMBEDDING__DEFAULT_MODEL": value}),
        "Config.load(environ name)": lambda value: Config.load(environ={value: "a"}),
        "Config.load(overrides)": lambda value: Config.load(environ={}, overrides=value),
        "Config.load(overrides key)": lambda value: Config.load(environ={}, overrides={value: "a"}),
        "Config.load(overrides secret)": lambda value: Config.load(
            environ={}, overrides={"weights.hub_token": [SECRET, value], "routes.r.api_key": {"a": SECRET}}
        ),
        "with_benchmarks": config.with_benchmarks,
        "with_benchmarks(name)": lambda value: config.with_benchmarks({value: {"quality": 50}}),
        "with_benchmarks(change)": lambda value: config.with_benchmarks({"acme/m": value}),
        "with_benchmarks(field)": lambda value: config.with_benchmarks({"acme/m": {value: 1}}),
        "ModelSelectionCriteria.preset": ModelSelectionCriteria.preset,
        "config.access": lambda value: config.access("openai", value),
        "config.access(provider)": config.access,
        "config.key_for": config.key_for,
    }
    for section in sections:
        made[f"Config.load({section})"] = lambda value, s=section: Config.load(environ={}, overrides={s: value})
    for name in CRITERIA:
        made[f"criteria.{name}"] = lambda value, n=name: _used(ModelSelectionCriteria(**{n: value}), embedder)
    for name in (*ModelBenchmark.model_fields, "unknown"):
        made[f"with_benchmarks({name})"] = lambda value, n=name: config.with_benchmarks(
            {"acme/m": {**BENCHMARK, n: value}}
        )
    for entry, call in made.items():
        is_setting = "onfig" in entry or "benchmarks" in entry
        for what in VALUES:
            if not entry.endswith((" key)", " name)", "(name)", "(field)")) or _is_hashable(what):
                yield Case(entry, what, lambda c=call, w=what: c(VALUES[w]()), repeats=is_setting)
    protocol = {
        "result[...]": lambda value: result[value],
        "asarray(result)": lambda value: np.asarray(result, dtype=value),
    }
    for entry, call in protocol.items():
        for what in VALUES:
            # The protocols of sequences and arrays require these errors.
            allowed = (IndexError, TypeError, ValueError, OverflowError, SyntaxError, RecursionError, CallersError)
            yield Case(entry, what, lambda c=call, w=what: c(VALUES[w]()), allowed, repeats=True)


def _is_hashable(what):
    try:
        hash(VALUES[what]())
    except Exception:
        return False
    return True


def _used(criteria, embedder):
    json.dumps(criteria.to_json())
    hash(criteria)
    embedder.select(["a b"], criteria)


def _closed(embedder):
    with contextlib.closing(embedder):
        embedder.embed(["a b"])
        embedder.embed([TEXT], model="acme/m")
