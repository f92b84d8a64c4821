"""Garbage collection in a process of the gateway."""

from __future__ import annotations

import asyncio
import gc

#: New objects after which the youngest generation is collected; Python's default is 700. A request leaves 10 to 40.
_YOUNG = 10_000
#: Time after which the first requests have loaded what they need, in seconds.
_LOADED_S = 30.0


def freeze_loaded_objects() -> None:
    """Exclude all present objects from garbage collection, and once more after the first requests.

    A full collection would inspect the modules, the catalog and the models. It takes 50 ms every few thousand requests,
    and no request is answered meanwhile. Call it in the running event loop, when the process is about to serve.
    """
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
    _freeze()
    asyncio.get_running_loop().call_later(_LOADED_S, _freeze)


def _freeze() -> None:
    gc.collect()  # so that garbage is not kept for ever
    gc.freeze()
