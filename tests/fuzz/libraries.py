"""Code of others in this process: hooks, progress sinks, providers and libraries that raise or return anything."""

import asyncio
import random as randoms
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import numpy as np
from cases import SECRET, TEXT, CallersError, Case, WrongResultError
from values import VALUES

from calls import make_config, settings
from embedway import BaseHook, Config, Embedder
from embedway.models import opening
from embedway.providers import registry
from embedway.providers.base import Answer, Declared
from embedway.providers.library import LoadedOnce
from embedway.types import RateState

WIDE = 8


class PanicException(BaseException):
    """Error of a panic, as PyO3 raises it."""


def errors(message=f"{TEXT} {SECRET}"):
    """Return new errors of each kind that other code raises; their messages repeat a text and a key."""
    return [
        ValueError(message),
        CallersError(message),
        SystemExit(message),
        KeyboardInterrupt(message),
        asyncio.CancelledError(message),
        MemoryError(message),
        RecursionError(message),
        PanicException(message),
        BaseException(message),
        ExceptionGroup(message, [ValueError(message)]),
        BaseExceptionGroup(message, [SystemExit(message)]),
        StopIteration(message),
        StopAsyncIteration(message),
        TimeoutError(message),
        OSError(5, message),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, message),
    ]


ERRORS = [f"{number} {type(error).__name__}" for number, error in enumerate(errors())]


def fail(what, *message):
    """Raise a new error of a kind."""
    raise errors(*message)[int(what.split()[0])]


class Hook(BaseHook):
    """A hook of which one method fails."""

    def __init__(self, method, what):
        def failing(*_):
            fail(what)

        async def failing_flush():
            fail(what)

        setattr(self, method, failing_flush if method == "flush" else failing)


class ContextHook(BaseHook):
    """A hook whose context manager fails when it is entered or left."""

    def __init__(self, method, what):
        names = ("__enter__", "__exit__")
        steps = {name: (lambda *_: fail(what)) if name == method else (lambda *_: None) for name in names}
        self._context = type("Context", (), steps)()

    def context(self, operation):
        return self._context


class Provider:
    """Provider whose `embed` does one thing."""

    declared = Declared(max_inputs=32)

    def __init__(self, embed):
        self._embed = embed

    async def embed(self, texts, *, input_type, dimensions):
        return self._embed(texts)

    async def aclose(self):
        """Do nothing."""


class Library(Provider):
    """Provider that computes in a library's thread."""

    def __init__(self, embed):
        super().__init__(embed)
        self._loaded = LoadedOnce(mock.Mock(route="r", model="m"), lambda: None)

    async def embed(self, texts, *, input_type, dimensions):
        return Answer(await self._loaded.compute(lambda _: self._embed(texts).vectors))

    async def aclose(self):
        self._loaded.close()


def good(texts):
    """Return a good answer."""
    return Answer(np.tile(np.eye(1, WIDE, dtype=np.float32), (len(texts), 1)))


def answers():
    """Return functions that make odd answers, by name."""
    arrays = {
        "float64": lambda texts: good(texts).vectors.astype(np.float64),
        "integers": lambda texts: good(texts).vectors.astype(np.int64),
        "objects": lambda texts: good(texts).vectors.astype(object),
        "texts": lambda texts: np.array([[TEXT]]),
        "flat": lambda texts: good(texts).vectors.reshape(-1),
        "3-d": lambda texts: good(texts).vectors[None],
        "nan": lambda texts: good(texts).vectors * np.nan,
        "list": lambda texts: good(texts).vectors.tolist(),
        "none": lambda texts: np.zeros((0, WIDE), np.float32),
        "strided": lambda texts: np.asfortranarray(good(texts).vectors),
    }
    odd = {f"array {name}": lambda texts, a=array: Answer(a(texts)) for name, array in arrays.items()}
    odd |= {f"vectors {name}": lambda texts, v=value: Answer(v()) for name, value in VALUES.items()}
    odd |= {f"answer {name}": lambda texts, v=value: v() for name, value in VALUES.items()}
    odd |= {
        f"tokens {name}": lambda texts, v=value: Answer(good(texts).vectors, tokens=v())
        for name, value in VALUES.items()
    }
    odd |= {
        f"searches {name}": lambda texts, v=value: Answer(good(texts).vectors, searches=v())
        for name, value in VALUES.items()
    }
    odd |= {
        f"rates {name}": lambda texts, v=value: Answer(good(texts).vectors, rates=v()) for name, value in VALUES.items()
    }
    odd |= {
        f"rate {name}": lambda texts, v=value: Answer(
            good(texts).vectors, rates=RateState(v(), v(), v(), v(), v(), v())
        )
        for name, value in VALUES.items()
    }
    return odd


def cases(seed, place):
    """Yield cases: each kind of foreign code with each error, then odd answers."""
    random = randoms.Random(seed)
    config = make_config(place)
    model = {
        "models.m": {"name": "acme/m", "dimensions": WIDE, "max_tokens": 64, "tokenizer": "estimate"},
        "routes.r": {"model": "acme/m", "provider": "openai-compatible", "base_url": "http://127.0.0.1:9"},
        "upstream.max_attempts": 1,
        "upstream.deadline_s": 3.0,
        "cache.backend": "none",
    }
    served = Config.load(environ={}, overrides={**settings(place), **model})
    found = []
    methods = dict.fromkeys(("begin", "end", "context", "event", "flush"), Hook)
    for what in ERRORS:
        for method, hook in {**methods, "__enter__": ContextHook, "__exit__": ContextHook}.items():
            found.append(Case(f"hook {method}", what, lambda m=method, w=what, h=hook: _hooked(config, h(m, w))))
        for kind in (Provider, Library):
            entry = f"{kind.__name__} raises"
            found.append(Case(entry, what, lambda k=kind, w=what: _asked(served, k(lambda _, w=w: fail(w)))))
        found.append(Case("LoadedOnce", what, lambda w=what: _loaded(w), repeats=True))
        found.append(Case("make_provider", what, lambda w=what: _made(served, w)))
        found.append(Case("models.tune(progress)", what, lambda w=what: _tuned(config, w)))
    for name, answer in answers().items():
        found.append(Case(f"Provider {name.split()[0]}", name, lambda a=answer: _asked(served, Provider(a))))
        if name.startswith(("array", "vectors")):
            found.append(Case(f"Library {name.split()[0]}", name, lambda a=answer: _asked(served, Library(a))))
    random.shuffle(found)
    yield from found


def _hooked(config, hook):
    """Hooks never fail a call, and do not end the embedder's event loop."""
    with Embedder(config=config, hooks=[hook]) as embedder:
        for text in ("a b", "c"):
            if len(embedder.embed([text])) != 1:
                raise WrongResultError(text)
        embedder.models.describe()


def _asked(config, provider):
    """Two calls: the second works or fails like the first, and does not hang."""
    with (
        mock.patch.object(opening, "make_provider", return_value=provider),
        Embedder(config=config) as embedder,
    ):
        failure = None
        for _ in range(2):
            try:
                result = embedder.embed([TEXT, "b", "c"], model="acme/m")
                repr(result)
                _check_shape(result)
            except BaseException as error:
                failure = error
        if failure is not None:
            raise failure


def _check_shape(result):
    if result.vectors.shape != (3, WIDE) or not np.isfinite(result.vectors).all():
        raise WrongResultError("shape")


def _loaded(what):
    """Loading reads no texts, so the library's error is chained. Models are loaded in a thread."""
    loaded = LoadedOnce(mock.Mock(route="r", model="m", secret=SECRET), lambda: fail(what, "a file is missing"))
    with ThreadPoolExecutor(1) as threads:
        threads.submit(loaded.get).result()


def _made(config, what):
    with (
        mock.patch.object(registry, "load_entry", return_value=lambda _: fail(what)),
        Embedder(config=config) as embedder,
    ):
        embedder.embed([TEXT], model="acme/m")


def _tuned(config, what):
    with Embedder(config=config) as embedder, mock.patch("embedway.local.tune.tune_model", _report_only):
        embedder.models.tune(progress=lambda line: fail(what))


def _report_only(encoder, config, report, fill):
    report("a line")
    report("another line")
