"""Mixes of odd behaviours: one or two routes, calls in rounds, a cache and a budget, drawn from a seed and a number."""

import dataclasses
import random as randoms
from dataclasses import dataclass, replace

from service_behaviours import (
    BAD,
    BAD_ROWS,
    BAD_SCORES,
    FAILING_TEXT,
    FINAL,
    INDEXES,
    LOADING,
    MANY_TEXTS,
    MANY_TOKENS,
    PASSING,
    PASSING_TEXT,
    RATES,
    REFUSED_TEXT,
    SPOILING_ROWS,
    UNREACHABLE,
    USAGES,
    WIRES,
)
from service_server import tokens_of

_WORDS = [
    "river",
    "stone",
    "lamp",
    "north",
    "copper",
    "window",
    "garden",
    "paper",
    "signal",
    "harbour",
    "winter",
    "engine",
    "thread",
    "market",
    "silver",
]


#: Providers besides `openai-compatible`.
_PROVIDERS = {"embed": ("cohere", "gemini", "voyage", "jina", "mistral"), "rerank": ("voyage", "jina")}


@dataclass(frozen=True)
class RoutePlan:
    """Behaviours of one route. The defaults are those of a server without oddities."""

    name: str
    space: str = "right"
    #: Faults of the first requests, in order; None for a good answer between them.
    faults: tuple[str | None, ...] = ()
    loading: str = ""
    loading_for: int = 0
    final: str = ""
    unreachable: str = ""
    #: The server's limits, 0 for none, and the words of its refusal.
    max_texts: int = 0
    many_texts: str = ""
    max_tokens: int = 0
    many_tokens: str = ""
    #: Text, kind of its fault, and `always` or `once`.
    poison: tuple[tuple[str, str, str], ...] = ()
    index: str = "full"
    usage: str = "both"
    #: Reported tokens per token of our own count.
    usage_factor: float = 1.0
    rates: str = "none"
    wire: str = "whole"
    base64: bool = False
    #: Whether the key comes from a file that is rewritten when the server refuses it.
    key_rotates: bool = False


@dataclass(frozen=True)
class CallPlan:
    """One call: positions of its texts among those of the mix.

    `cancel_at` is the number of the request at whose arrival it is cancelled, from the start of its round.
    """

    rows: tuple[int, ...]
    partial: bool = False
    cancel_at: int | None = None


@dataclass(frozen=True)
class Mix:
    """One mix. `marker` is a part of each text; `word` is the server's own."""

    seed: int
    number: int
    task: str
    marker: str
    word: str
    texts: tuple[str, ...]
    routes: tuple[RoutePlan, ...]
    #: Calls of a round are concurrent.
    rounds: tuple[tuple[CallPlan, ...], ...]
    cache: str = "memory"
    #: Hard limit in nano-dollars, or None.
    budget: int | None = None
    query: str = ""
    #: Whether routes have a secret header of their own.
    headers: bool = False
    provider: str = "openai-compatible"

    @property
    def calls(self):
        return [call for round_ in self.rounds for call in round_]

    def to_text(self):
        """Describe the mix, without the fields that have their defaults."""
        name = f"mix {self.number} of seed {self.seed}: {self.task}, {len(self.texts)} texts"
        lines = [f"{name}, {self.provider}, cache {self.cache}, budget {self.budget}"]
        for route in self.routes:
            odd = {
                f.name: getattr(route, f.name) for f in dataclasses.fields(route) if getattr(route, f.name) != f.default
            }
            if "poison" in odd:
                odd["poison"] = [(self.texts.index(text), kind, times) for text, kind, times in route.poison]
            lines.append(f"  route {odd}")
        lines += [
            f"  round {[(call.rows, 'partial' if call.partial else 'all', call.cancel_at) for call in one]}"
            for one in self.rounds
        ]
        return "\n".join(lines)


def draw(seed, number):
    """Return the mix with that number."""
    random = randoms.Random(f"{seed}:{number}")
    task = "rerank" if random.random() < 0.12 else "embed"
    marker, word = f"zq{random.getrandbits(48):012x}", f"hostword{random.getrandbits(40):010x}"
    count = random.choice([1, 2, 3, 5, 8, 13, 20, 24])
    texts = tuple(f"{marker} {' '.join(random.choices(_WORDS, k=random.randint(3, 9)))} {row}" for row in range(count))
    first = RoutePlan("a", usage_factor=random.choice([1.0, 1.0, 0.7, 1.5, 1.9, 3.0]), base64=random.random() < 0.2)
    for feature in random.sample(_FEATURES, random.choice([1, 1, 2, 2, 3])):
        first = feature(random, first, texts, task)
    routes = (first,)
    if random.random() < 0.35:
        second = RoutePlan("b", usage_factor=random.choice([1.0, 1.3]))
        for feature in random.sample(_FEATURES, random.choice([0, 0, 0, 1])):
            second = feature(random, second, texts, task)
        routes = (first, second) if random.random() < 0.75 else (replace(second, name="a"), replace(first, name="b"))
    if task == "embed" and len(routes) == 2 and random.random() < 0.1:
        routes = (routes[0], RoutePlan("b", space="other"))
    provider = random.choice(_PROVIDERS[task]) if random.random() < 0.3 else "openai-compatible"
    routes = tuple(_for_provider(route, provider) for route in routes)
    cache = random.choice(["none", "memory", "memory", "sqlite"])
    budget = None
    if random.random() < 0.12:
        budget = round(sum(map(tokens_of, texts)) * 1000 * random.choice([0.3, 1.0, 2.0, 2.5, 5.0]))
    rounds = tuple(_round(random, count) for _ in range(random.choice([1, 2, 2, 3])))
    query = f"{marker} which one" if task == "rerank" else ""
    return Mix(
        seed,
        number,
        task,
        marker,
        word,
        texts,
        routes,
        rounds,
        cache,
        budget,
        query,
        headers=random.random() < 0.3,
        provider=provider,
    )


def _for_provider(route, provider):
    """Return the route without behaviours that the answers of a provider do not have."""
    if provider not in {"cohere", "gemini"}:
        return route
    usage = route.usage if not route.usage.startswith("prompt") else "both"
    return replace(route, index="full", usage=usage, base64=False)


def _round(random, count):
    calls = []
    for _ in range(random.choice([1, 1, 2, 3, 5])):
        rows = tuple(random.choices(range(count), k=random.randint(1, count + 2)))
        if random.random() < 0.4:
            rows = tuple(range(count))
        calls.append(CallPlan(rows, partial=random.random() < 0.5))
    if random.random() < 0.07:
        calls[-1] = replace(calls[-1], cancel_at=random.randrange(6))
    return tuple(calls)


def _add_faults(random, route, texts, task):
    names = random.choices(list(PASSING), k=random.choice([1, 1, 2]))
    if random.random() < 0.3:
        names = [random.choice(list(BAD)), *names[:1]]
    random.shuffle(names)
    return replace(
        route, faults=tuple(one for name in names for one in ([name, None] if random.random() < 0.2 else [name]))
    )


def _add_loading(random, route, texts, task):
    return replace(route, loading=random.choice(list(LOADING)), loading_for=random.choice([1, 2, 5, 7]))


def _add_final(random, route, texts, task):
    return replace(route, final=random.choice(list(FINAL)))


def _add_unreachable(random, route, texts, task):
    return replace(route, unreachable=random.choice(UNREACHABLE))


def _add_max_texts(random, route, texts, task):
    return replace(route, max_texts=random.choice([1, 2, 3, 5, 10]), many_texts=random.choice(list(MANY_TEXTS)))


def _add_max_tokens(random, route, texts, task):
    # No limit of a server is below the tokens of the product's own probes.
    most = 260 + random.randrange(60)
    return replace(route, max_tokens=most, many_tokens=random.choice(list(MANY_TOKENS)))


def _poison(kinds):
    def add(random, route, texts, task):
        own = list(BAD_SCORES if kinds is BAD_ROWS and task == "rerank" else kinds)
        chosen = random.sample(texts, min(len(texts), random.choice([1, 1, 1, 2, 3])))
        times = random.choice(["always", "always", "once"])
        drawn = ((text, random.choice(own)) for text in chosen)
        # A text that is refused for itself is not sent again, so it is never refused only once.
        is_final = {*REFUSED_TEXT, *FAILING_TEXT} - PASSING_TEXT
        poison = tuple((text, kind, "always" if kind in is_final else times) for text, kind in drawn)
        return replace(route, poison=(*route.poison, *poison))

    return add


def _add_spoiling(random, route, texts, task):
    return route if task == "rerank" else _poison(SPOILING_ROWS)(random, route, texts, task)


def _of(name, table):
    return lambda random, route, texts, task: replace(route, **{name: random.choice(list(table))})


def _add_index(random, route, texts, task):
    right = [name for name, rows in INDEXES.items() if task == "embed" or rows.effect == "right"]
    return replace(route, index=random.choice(right))


def _add_rotation(random, route, texts, task):
    return replace(route, key_rotates=True)


_FEATURES = [
    _add_faults,
    _add_faults,
    _add_loading,
    _add_final,
    _add_unreachable,
    _add_max_texts,
    _add_max_tokens,
    _poison(FAILING_TEXT),
    _poison(FAILING_TEXT),
    _poison(REFUSED_TEXT),
    _poison(BAD_ROWS),
    _poison(BAD_ROWS),
    _add_spoiling,
    _add_index,
    _add_index,
    _of("usage", USAGES),
    _of("usage", USAGES),
    _of("rates", RATES),
    _of("wire", WIRES),
    _add_rotation,
]


def singles():
    """Yield each behaviour alone, by its name: two calls for the same texts, for one and for two routes."""
    alone = {f"fault: {name}": {"faults": (name,)} for name in {**PASSING, **BAD}}
    alone |= {f"loading: {name}": {"loading": name, "loading_for": 3} for name in LOADING}
    alone |= {f"final: {name}": {"final": name} for name in FINAL}
    alone |= {f"unreachable: {name}": {"unreachable": name} for name in UNREACHABLE}
    alone |= {f"many texts: {name}": {"max_texts": 3, "many_texts": name} for name in MANY_TEXTS}
    alone |= {f"many tokens: {name}": {"max_tokens": 60, "many_tokens": name} for name in MANY_TOKENS}
    for field_, table in (("index", INDEXES), ("usage", USAGES), ("rates", RATES), ("wire", WIRES)):
        alone |= {f"{field_}: {name}": {field_: name} for name in table}
    alone["key rotates"] = {"key_rotates": True}
    kinds = [*FAILING_TEXT, *REFUSED_TEXT, *BAD_ROWS, *SPOILING_ROWS]
    for task in ("embed", "rerank"):
        for partial in (False, True):
            base = dataclasses.replace(draw(1, 0), task=task, cache="memory", budget=None, headers=False)
            base = replace(base, texts=tuple(f"{base.marker} river stone lamp {row}" for row in range(8)))
            base = replace(base, query=f"{base.marker} which one" if task == "rerank" else "")
            calls = (CallPlan(tuple(range(8)), partial=partial),)
            base = replace(base, rounds=(calls, (CallPlan(tuple(range(7, -1, -1)), partial=partial),)))
            own = dict(alone)
            for kind in BAD_SCORES if task == "rerank" else kinds:
                own[f"text: {kind}"] = {"poison": ((base.texts[5], kind, "always"),)}
                if kind not in REFUSED_TEXT and (kind not in FAILING_TEXT or kind in PASSING_TEXT):
                    own[f"text once: {kind}"] = {"poison": ((base.texts[5], kind, "once"),)}
            for name, change in own.items():
                first = replace(RoutePlan("a"), **change)
                if task == "rerank" and (name.startswith("index") and INDEXES[first.index].effect != "right"):
                    continue
                yield name, replace(base, routes=(first,))
                yield f"{name}, two routes", replace(base, routes=(first, RoutePlan("b")))


_NEUTRAL = ({"cache": "none"}, {"budget": None}, {"headers": False}, {"provider": "openai-compatible"})


def smaller(mix):
    """Yield simpler mixes, the simplest first."""
    rounds = mix.rounds
    yield from (replace(mix, rounds=_without(rounds, at)) for at in range(len(rounds)) if len(rounds) > 1)
    for number, own in enumerate(rounds):
        for at in range(len(own)):
            if len(own) > 1:
                yield replace(mix, rounds=_with(rounds, number, _without(own, at)))
    yield from _simpler_routes(mix)
    yield from (replace(mix, **change) for change in _NEUTRAL)
    for number, own in enumerate(rounds):
        for at, call in enumerate(own):
            middle = len(call.rows) // 2
            shorter = (call.rows[:middle], call.rows[middle:], call.rows[:-1], call.rows[1:])
            changes = [{"rows": rows} for rows in shorter if rows] + [{"cancel_at": None}, {"partial": False}]
            for change in changes:
                yield replace(mix, rounds=_with(rounds, number, _with(own, at, replace(call, **change))))


def _simpler_routes(mix):
    if len(mix.routes) > 1:
        yield replace(mix, routes=mix.routes[:1])
        yield replace(mix, routes=(replace(mix.routes[1], name="a"),))
    for position, route in enumerate(mix.routes):
        for one in dataclasses.fields(RoutePlan):
            value = getattr(route, one.name)
            if one.name == "name" or value == one.default:
                continue
            options = [one.default]
            if isinstance(value, tuple):
                options += [_without(value, at) for at in range(len(value)) if len(value) > 1]
            for option in options:
                yield replace(mix, routes=_with(mix.routes, position, replace(route, **{one.name: option})))


def _without(values, at):
    return values[:at] + values[at + 1 :]


def _with(values, at, value):
    return (*values[:at], value, *values[at + 1 :])


async def shrink(mix, still_fails, tries=250):
    """Return the smallest mix found for which `still_fails` is true."""
    while tries > 0:
        for candidate in smaller(mix):
            if candidate != mix:
                tries -= 1
                if await still_fails(candidate):
                    mix = candidate
                    break
                if tries <= 0:
                    break
        else:
            return mix
    return mix
