"""Inference process of a gateway: forked by the supervisor, with a listening socket that outlives it."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import threading
import time
from typing import TYPE_CHECKING

import uvloop

from embedway.server.garbage import freeze_loaded_objects
from embedway.server.heartbeats import HANGING, SERVING, send_heartbeats
from embedway.server.inference.service import InferenceService
from embedway.server.inference.settings import InferenceLimits
from embedway.telemetry.metrics import lock, process_metrics

if TYPE_CHECKING:
    import socket

    from embedway.config import Config

#: Time to end after the drain, in seconds.
_LATE_S = 5.0
#: Time between two measurements of the memory, in seconds.
_MEMORY_S = 2.0


def run_inference(config: Config, listener: socket.socket, heartbeat: int, lifeline: int) -> None:
    """Compute the jobs of all workers until SIGTERM, or until the supervisor has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watch = threading.Thread(target=_end_late, args=(lifeline, config.server.drain_s), daemon=True)
    watch.start()
    uvloop.run(_serve(config, listener, heartbeat, lifeline))


def _end_late(lifeline: int, drain_s: float) -> None:
    """End this process if it does not end by itself after its supervisor, which could kill it, has ended."""
    select.select([lifeline], [], [])
    time.sleep(drain_s + _LATE_S)
    os._exit(1)


async def _serve(config: Config, listener: socket.socket, heartbeat: int, lifeline: int) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_reader(lifeline, ended.set)
    service = InferenceService(config, InferenceLimits.of(config.server))
    listener.setblocking(False)
    await service.start(listener)
    freeze_loaded_objects()
    beating = asyncio.create_task(
        send_heartbeats(heartbeat, lambda: HANGING if service.progress.is_hanging() else SERVING)
    )
    measuring = asyncio.create_task(_report_memory()) if config.telemetry.prometheus else None
    await ended.wait()
    loop.remove_reader(lifeline)
    await service.aclose(drain_s=config.server.drain_s)
    beating.cancel()
    if measuring is not None:
        measuring.cancel()
    # The end of the loop would join the threads of a hanging batch.
    logging.shutdown()
    os._exit(0)


async def _report_memory() -> None:
    """Report the memory of this process, which has the local models, to the metrics of the gateway."""
    while True:
        with lock:
            process_metrics().measure_memory()
        await asyncio.sleep(_MEMORY_S)
