"""Seeded scenarios of requests: a configuration, the faults of its services, and calls at virtual times.

A scenario is plain JSON. It depends only on its seed and number, in every process.
"""

import hashlib
import json
import random

CALLS = 20

_WORDS = (  # noqa: SIM905  a text is easier to read than fifty strings
    "river stone lamp north copper window garden paper signal harbour winter engine thread market silver orbit "
    "candle forest metal bridge cloud ticket violin anchor pepper mirror saddle rocket velvet canyon straße café 東京 "
    "naïve 42 1999 über"
).split()

#: Faults of each kind of route, by share of its requests. The others succeed.
PROFILES = {
    "well": {},
    "flaky": {"unavailable": 0.15, "limited": 0.08, "untold": 0.1},
    "limited": {"limited": 0.25, "rates": 0.2},
    "asking": {"unavailable_later": 0.25},
    "wrong": {"count": 0.08, "nan": 0.08, "inf": 0.04, "width": 0.05, "zero": 0.05},
    "billed": {"unavailable_billed": 0.15, "protocol": 0.06, "protocol_billed": 0.08},
    "hanging": {"hang": 0.15, "unavailable": 0.05},
    "strange": {"stranger": 0.12, "unavailable": 0.05},
    "untold": {"untold": 0.6},
    "dead": {"unavailable": 1.0},
    "locked": {"authentication": 1.0},
    "poor": {"quota": 0.3},
    "picky": {"refused": 0.15},
    "hopeless": {"refused": 1.0},
}
_FIRST = {
    "well": 60, "flaky": 14, "limited": 6, "asking": 5, "wrong": 7, "billed": 6, "hanging": 6, "strange": 4,
    "untold": 5, "dead": 4, "locked": 2, "poor": 2, "picky": 3, "hopeless": 1,
}  # fmt: skip
_LATER = {"well": 12, "flaky": 4, "wrong": 2, "billed": 2, "hanging": 2, "dead": 2, "locked": 1}

MODELS = {
    "small": {
        "name": "own/small",
        "dimensions": 16,
        "matryoshka": [8, 4],
        "max_tokens": 24,
        "price_usd_per_million_tokens": "0.10",
        "query_prompt": "query: ",
        "document_prompt": "passage: ",
    },
    "exact": {
        "name": "own/exact",
        "dimensions": 12,
        "matryoshka": [6],
        "max_tokens": 16,
        "tokenizer": "tiktoken:cl100k_base",
        "price_usd_per_million_tokens": "0.02",
        "query_prompt": "ask ",
    },
    "raw": {"name": "own/raw", "dimensions": 8, "max_tokens": 40, "normalized": False, "revision": "r2"},
    "dear": {"name": "own/dear", "dimensions": 4, "max_tokens": 30, "price_usd_per_million_tokens": "15"},
    "lost": {"name": "own/lost", "dimensions": 4, "max_tokens": 30},
}
#: A model of the catalog, by the shape of its vectors.
CATALOG = {"name": "text-embedding-3-small", "dimensions": 1536, "matryoshka": [512], "normalized": True}
RERANKERS = {
    "scores": {
        "name": "own/scores",
        "task": "rerank",
        "max_tokens": 30,
        "tokenizer": "tiktoken:cl100k_base",
        "price_usd_per_million_tokens": "0.05",
    },
    "guesses": {"name": "own/guesses", "task": "rerank", "max_tokens": 40},
}
#: A reranker of the catalog that bills per search.
SEARCHES = "rerank-v3.5"


def scenario(seed: int, number: int, calls: int = CALLS) -> dict:
    """Return the scenario with that number."""
    random_ = random.Random(f"{seed}:{number}")
    settings: dict = {}
    names = ["small", "exact", "raw", "dear"]
    used = random_.sample(names, random_.choice([1, 1, 1, 2, 2, 3]))
    settings |= _settings(random_, [MODELS[key]["name"] for key in used])
    facts = [MODELS[key] for key in used] + ([CATALOG] if random_.random() < 0.12 else [])
    rerankers = random_.sample(list(RERANKERS), 1) if random_.random() < 0.5 else []
    for key in dict.fromkeys((*used, *(["lost"] if random_.random() < 0.2 else []))):
        settings |= {f"models.{key}.{name}": value for name, value in MODELS[key].items()}
    for key in rerankers:
        settings |= {f"models.{key}.{name}": value for name, value in RERANKERS[key].items()}
    scorers = [RERANKERS[key]["name"] for key in rerankers]
    if rerankers and random_.random() < 0.3:
        scorers.append(SEARCHES)
    for model in facts:
        _routes(random_, settings, model["name"], model)
    for scorer in scorers:
        _routes(random_, settings, scorer, None)
    benchmarks = {model["name"]: _benchmark(random_, model) for model in facts} if random_.random() < 0.3 else {}
    if benchmarks:
        settings["embedding.model_benchmarks"] = benchmarks
    settings["embedding.default_model"] = facts[0]["name"]
    if scorers and random_.random() < 0.5:
        settings["rerank.default_model"] = scorers[0]
    pool = _texts(random_)
    at, made, crowd = 0.0, [], random_.choice([0, 0, 0.7])
    # In some scenarios calls are concurrent; in others each call is alone.
    pace = random_.choice([0.001, 0.003, 0.01, 0.02, 0.1, 1.0])
    for _ in range(calls):
        if random_.random() < 0.1:
            at += random_.uniform(0.5, 40)
        else:
            at += random_.uniform(0.0001, 0.001) if random_.random() < crowd else pace * random_.uniform(0.05, 2)
        call = _call(random_, facts, scorers, pool, benchmarks=bool(benchmarks))
        made.append({"at": round(at, 6), **call})
    return {"number": number, "settings": settings, "calls": made}


def _settings(random_: random.Random, models: list[str]) -> dict:
    cache = random_.choices(["none", "memory", "sqlite", "tiered", "small"], [8, 26, 30, 28, 8])[0]
    settings = {
        "cache.backend": {"tiered": "sqlite", "small": "memory"}.get(cache, cache),
        "cache.tiered": cache == "tiered",
        "upstream.max_attempts": random_.choice([1, 2, 3, 5, 5]),
        "upstream.first_wait_s": random_.choice([0.05, 0.2, 0.5]),
        "upstream.longest_wait_s": random_.choice([0.5, 2.0]),
        "upstream.deadline_s": random_.choice([0.6, 10.0, 10.0, 30.0, 30.0]),
        "upstream.concurrency": random_.choice([1, 1, 2, 4, 8]),
        "batching.across_callers": random_.random() < 0.8,
        "batching.max_wait_ms": random_.choice([0, 2, 20, 20, 100]),
        "batching.max_batch_size": random_.choice([3, 1000, 1000, 1000]),
        "embedding.on_overflow": random_.choice(["truncate", "truncate", "truncate", "mean", "mean", "error"]),
    }
    if cache == "small":
        settings["cache.memory_mib"] = 1
    if cache in {"sqlite", "tiered"} and random_.random() < 0.3:
        settings["cache.codec"] = random_.choice(["f16", "i8"])
    if cache != "none" and random_.random() < 0.2:
        settings["cache.ttl_s"] = random_.choice([0.5, 20.0])
    if cache != "none" and random_.random() < 0.15:
        settings["cache.secret"] = "a-secret-of-the-cache-entries"
    if cache != "none" and random_.random() < 0.3:
        settings["cache.namespace"] = random_.choice(["team-a", "team-b"])
    if random_.random() < 0.35:
        settings["ledger.backend"] = "none"
        return settings
    settings["ledger.backend"] = "sqlite"
    for name, chance in (
        ("all", 0.2),
        ("day", 0.15),
        ("model", 0.15),
        ("collection", 0.2),
        ("key", 0.2),
        ("soft", 0.3),
    ):
        if random_.random() < chance:
            settings |= {f"budgets.{name}.{key}": value for key, value in _budget(random_, name, models).items()}
    return settings


def _budget(random_: random.Random, name: str, models: list[str]) -> dict:
    usd = random_.choice(["0", "0.00001", "0.0001", "0.0005", "0.005", "0.1", "1", "1", "1", "1", "1"])
    scopes = {
        "all": {"period": "total"},
        "day": {"period": "day"},
        "model": {"model": random_.choice(models), "period": "month"},
        "collection": {"collection": random_.choice(["books", "notes"])},
        "key": {"api_key": random_.choice(["alice", "bob"])},
        "soft": {"hard": False, "warn_at": [10, 50, 100]},
    }
    return {"usd": usd, **scopes[name]}


def _routes(random_: random.Random, settings: dict, name: str, model: dict | None) -> None:
    count = random_.choices([1, 2, 3], [55, 35, 10])[0]
    honours = random_.random() < 0.5
    takes_type = random_.random() < 0.3 and model is not None
    for place in range(count):
        profile = _one(random_, _LATER if place else _FIRST)
        declared = {"max_inputs": random_.choice([2, 4, 8, 32, 32, 32])}
        if random_.random() < 0.25:
            declared["max_request_tokens"] = random_.choice([30, 100])
        if model is not None:
            declared |= {"dimensions": honours, "input_type": takes_type}
            if random_.random() < 0.06:
                declared["batch_dependent"] = True
        if random_.random() < 0.05:
            declared["free"] = True
        facts = {
            "profile": profile,
            "salt": random_.randrange(10**9),
            "declared": declared,
            "place": place,
            "slow_s": random_.choice([0.02, 0.2, 0.2, 1.0]),
            "searches": name == SEARCHES,
            "prompt": takes_type,
            **({} if model is None else {key: model.get(key, True) for key in ("name", "dimensions", "normalized")}),
        }
        key = f"routes.r{place}-{name.rsplit('/', 1)[-1].replace('.', '-')}"
        settings |= {
            f"{key}.model": name,
            f"{key}.provider": "scripted",
            f"{key}.options": {"facts": json.dumps(facts)},
        }
        if place and facts["salt"] % 2:
            # Checkouts before `same_space` know this name of it. Other routes need a proof.
            settings[f"{key}.options"]["verify"] = False
        if random_.random() < 0.08:
            settings[f"{key}.requests_per_minute"] = random_.choice([6, 60, 600])
        if random_.random() < 0.05:
            settings[f"{key}.tokens_per_minute"] = random_.choice([500, 5000])


def _benchmark(random_: random.Random, facts: dict) -> dict:
    return {
        "model_name": facts["name"],
        "provider": "scripted",
        "avg_latency_ms": random_.choice([5.0, 50.0]),
        "quality_score": random_.choice([45.0, 60.0, 70.0]),
        "tokens_per_second": random_.choice([1000.0, 90_000.0]),
        "cost_per_million_tokens": facts.get("price_usd_per_million_tokens", "unknown"),
        "max_context_length": facts.get("max_tokens", 8191),
        "embedding_dimensions": facts["dimensions"],
        "multilingual": True,
        "languages": ["mul"],
    }


def _one(random_: random.Random, weights: dict[str, int]) -> str:
    return random_.choices(list(weights), list(weights.values()))[0]


def _texts(random_: random.Random) -> list[str]:
    """Return the options that the calls of a scenario choose from."""
    pool = []
    for number in range(random_.choice([4, 6, 10, 20])):
        words = random_.choices(
            [random_.randint(1, 6), random_.randint(12, 30), random_.randint(50, 120)], [80, 15, 5]
        )[0]
        text = " ".join(random_.choice(_WORDS) for _ in range(words)) + f" {number}"
        if random_.random() < 0.03:
            text += " poison"
        pool.append(text)
    return pool


def _few(random_: random.Random, pool: list[str], most: int) -> list:
    texts: list = [random_.choice(pool) for _ in range(random_.randint(1, most))]
    if random_.random() < 0.3:
        texts += random_.sample(texts, 1)
    if random_.random() < 0.3:
        texts.append(f"only here {random_.randrange(10**6)}")
    random_.shuffle(texts)
    return texts


def _call(random_: random.Random, facts: list[dict], scorers: list[str], pool: list[str], *, benchmarks: bool) -> dict:
    kind = random_.random()
    if scorers and kind < 0.2:
        return _rerank(random_, scorers, pool)
    model = random_.choice(facts)
    options: dict = {}
    if random_.random() < 0.6:
        options["model"] = model["name"]
    else:
        model = facts[0]
    if random_.random() < 0.02:
        options["model"] = random_.choice(["own/lost", "own/smal", "nobody/knows-this", ""])
    texts = _with_bad(random_, _few(random_, pool, random_.choice([1, 2, 3, 6, 12])))
    _vectors_asked(random_, options, model)
    if random_.random() < (0.12 if benchmarks else 0.01):
        options["criteria"] = random_.choice(["cheap", "fast", "private"])
        if random_.random() < 0.7:
            options.pop("model", None)
    if kind > 0.92:
        return {"kind": "plan", "texts": texts, "options": options}
    if random_.random() < 0.2:
        options["priority"] = random_.choice([1, 1, 3, 3, 5, 5, 6, 6, 7, 8, 9, 9, 9, 9, 9, 10])
    if random_.random() < 0.1:
        options["deadline_s"] = random_.choice([0.01, 0.1, 0.1, 0.1, 0.5, 0.5, 0.5, 0.5, 2.0, 2.0, 0])
    if random_.random() < 0.2:
        options["api_key_name"] = random_.choice(["alice", "bob"])
    return {"kind": "embed", "texts": texts, "options": options, "cancel_after_s": _cancelled(random_)}


def _cancelled(random_: random.Random) -> float | None:
    if random_.random() >= 0.07:
        return None
    return round(random_.choice([0.0003, 0.01, 0.1, 0.7]) * random_.uniform(0.5, 1.5), 6)


def _with_bad(random_: random.Random, texts: list) -> list:
    """Return the texts, sometimes with an invalid one."""
    if random_.random() < 0.06:
        texts.insert(random_.randrange(len(texts) + 1), random_.choice(["", "   ", None, 7, [], ["x"], "\ud800 half"]))
    if random_.random() < 0.03:
        texts.insert(random_.randrange(len(texts) + 1), [random_.randrange(1000, 9000) for _ in range(3)])
    if random_.random() < 0.01:
        texts = []
    return texts


def _vectors_asked(random_: random.Random, options: dict, model: dict) -> None:
    """Return options for the vectors, and for their maximum cost."""
    if random_.random() < 0.35:
        options["input_type"] = "query"
    if random_.random() < 0.006:
        options["input_type"] = "passage"
    if random_.random() < 0.3:
        options["dimensions"] = random_.choice([*model.get("matryoshka", ()), model["dimensions"]] * 3 + [5])
    if random_.random() < 0.25:
        options["on_overflow"] = random_.choice(["truncate", "error", "mean", "mean"])
    if random_.random() < 0.4:
        options["partial"] = True
    if random_.random() < 0.25:
        options["collection"] = random_.choice(["books", "notes"])
    if random_.random() < 0.08:
        options["max_cost"] = random_.choice(["0", "0.0000005", "0.000003", "0.01", "0.01", "0.1"])


def _rerank(random_: random.Random, scorers: list[str], pool: list[str]) -> dict:
    options: dict = {}
    if random_.random() < 0.9:
        options["model"] = random_.choice(scorers)
    if random_.random() < 0.5:
        options["top_n"] = random_.choice([1, 3, 50])
    if random_.random() < 0.5:
        options["partial"] = True
    if random_.random() < 0.2:
        options["on_overflow"] = random_.choice(["error", "truncate", "mean"])
    if random_.random() < 0.1:
        options["max_cost"] = random_.choice(["0", "0.000001", "0.01"])
    if random_.random() < 0.2:
        options["api_key_name"] = random_.choice(["alice", "bob"])
    query = " ".join(random_.choice(_WORDS) for _ in range(random_.choice([2, 3, 5, 30])))
    call = {"kind": "rerank", "query": query, "texts": _few(random_, pool, 10), "options": options}
    if random_.random() < 0.05:
        call["cancel_after_s"] = round(random_.uniform(0.01, 0.3), 6)
    return call


def chance(*parts: object) -> float:
    """Return a number from 0 to 1 that depends on the parts, the same in every process."""
    digest = hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
