"""Receiver of vectors that are computed before their call ends.

A call that fails or is stopped has computed some of its texts, and a service has billed them. The receiver gets these
texts as soon as they are computed, so that nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeAlias

from embedway.pipeline.normalize import in_space
from embedway.types import Space, Vectors
from embedway.vectors import to_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedway.compute import OnReady
    from embedway.types import TextMeta

#: Function that gets texts, their vectors, float32 (n, d), and the space of these. It must neither block nor fail.
TextReceiver: TypeAlias = Callable[[Sequence[str], Vectors, Space], object]

_receiver: ContextVar[TextReceiver | None] = ContextVar("text_receiver", default=None)


@contextmanager
def ready_texts_to(receiver: TextReceiver) -> Iterator[None]:
    """Pass texts that the calls of this block compute to a receiver, on the event loop.

    Texts from the cache, and vectors that depend on the other texts of their batch, are only in the results.
    """
    token = _receiver.set(receiver)
    try:
        yield
    finally:
        _receiver.reset(token)


def ready_callback(texts: Sequence[str], own: Space, space: Space) -> OnReady | None:
    """Return the callback of a request for these texts; None without a receiver.

    `own` is the model's space at the size of the call, `space` that of the call's vectors.
    """
    receiver = _receiver.get()
    if receiver is None:
        return None

    def on_ready(positions: Sequence[int], vectors: Vectors, metas: Sequence[TextMeta]) -> None:
        del metas
        if vectors.shape[1] != own.dimensions:
            vectors = to_size(vectors, own)
        receiver([texts[position] for position in positions], in_space(vectors, own, space), space)

    return on_ready
