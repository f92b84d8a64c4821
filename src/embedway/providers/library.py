"""Common code of providers that run other libraries on this machine."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.errors import EmbedwayError, RuntimeUnavailableError, UnsupportedModelError, UpstreamError
from embedway.providers.options import one_of, whole
from embedway.text import redact
from embedway.third_party import must_pass, place_of
from embedway.weights.hashes import hash_file
from embedway.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from embedway.providers.base import Endpoint
    from embedway.types import Vectors

#: Texts of a request to a library, unless its batches are larger.
_MAX_INPUTS = 256
DEVICES = ("auto", "cpu", "cuda", "mps")


def request_inputs(endpoint: Endpoint, batch_size: int) -> int:
    """Return the most texts of a request: the option `max_inputs`, by default at least one batch."""
    return whole(endpoint, "max_inputs", max(_MAX_INPUTS, batch_size))


@dataclass(frozen=True, slots=True)
class LibraryFacts:
    """The facts of a model that a library has loaded. `max_tokens` includes special tokens."""

    dimensions: int
    max_tokens: int
    query_prompt: str = ""
    document_prompt: str = ""


class LoadedOnce:
    """Lazily loaded model of a library, with a single worker thread for its computations."""

    def __init__(self, endpoint: Endpoint, load: Callable[[], Any]) -> None:
        self._endpoint = endpoint
        self._load = load
        self._lock = threading.Lock()
        self._model: Any = None
        self._worker: Worker | None = None

    def get(self) -> Any:
        """Return the model; load it at the first call. Blocking.

        Raises UnsupportedModelError if the library cannot load it.
        """
        with self._lock:
            if self._model is None:
                try:
                    self._model = self._load()
                except EmbedwayError:
                    raise
                except BaseException as error:
                    if must_pass(error):
                        raise
                    raise UnsupportedModelError(_why(self._endpoint, error)) from error
            return self._model

    async def compute(self, function: Callable[[Any], Vectors]) -> Vectors:
        """Call a function with the model on the worker thread, one call at a time.

        Raises UpstreamError for the library's exceptions. A call that is cancelled before it starts is skipped.
        """
        if self._worker is None:
            self._worker = Worker("embedway-library")
        cancelled = threading.Event()

        def call() -> Vectors:
            if cancelled.is_set():
                return np.zeros((0, 0), np.float32)
            return function(self.get())

        try:
            return await self._worker.call(call)
        except EmbedwayError:
            raise
        except BaseException as error:
            if must_pass(error):
                cancelled.set()
                raise
            place = place_of(error)
        # Not raised above, so that it is not chained: the library's error may repeat texts.
        raise UpstreamError(f"the library failed ({place})", route=self._endpoint.route)

    def close(self) -> None:
        """Let the thread finish its queued calls, and release the model."""
        if self._worker is not None:
            self._worker.close()
        self._worker = self._model = None


def shortest_first(texts: Sequence[str]) -> tuple[list[str], np.ndarray[tuple[int], np.dtype[np.intp]]]:
    """Sort texts by length, to reduce padding; also return the position of each text in the sorted list."""
    order = np.argsort([len(text) for text in texts], kind="stable")
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    return [texts[row] for row in order], places


def check_installed(module: str, extra: str, endpoint: Endpoint) -> None:
    """Raise RuntimeUnavailableError, naming the extra, if a library is not installed."""
    if importlib.util.find_spec(module) is None:
        raise RuntimeUnavailableError(f"{endpoint.route} needs a library: pip install 'embedway[{extra}]'")


def device_of(endpoint: Endpoint) -> str:
    """Return the option `device`: one of `DEVICES`, by default `auto`. Raises ConfigError for other values."""
    return one_of(endpoint, "device", DEVICES)


def digest_of(files: Sequence[Path], options: Mapping[str, str]) -> str:
    """Return a digest (16 hex digits) of weights and of options that change vectors. Blocking: reads files."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.name} {hash_file(path)}\n".encode())
    digest.update(json.dumps(dict(options), sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _why(endpoint: Endpoint, error: BaseException) -> str:
    said: Any = str(error)
    if "trust_remote_code" in said:
        return (
            f"{endpoint.model}: its repository contains code that would run here. If you trust it, allow that with "
            "options.trust_remote_code = true on a route of the model"
        )
    line = said.splitlines()[0] if said else ""
    return f"{endpoint.model}: the library cannot load it ({type(error).__name__}): {redact(line, endpoint.secret)}"
