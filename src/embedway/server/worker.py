"""HTTP worker process of a gateway: one event loop with an engine and a server."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import uvicorn
import uvloop

from embedway._engine import Engines
from embedway.config.addresses import is_loopback
from embedway.server.access import Access
from embedway.server.app import GatewayApp
from embedway.server.batches.service import BatchService
from embedway.server.bulk import BulkProxy
from embedway.server.connections import guarded_protocol
from embedway.server.endpoints import ENDPOINTS
from embedway.server.garbage import freeze_loaded_objects
from embedway.server.gateway import Gateway, GatewayParts
from embedway.server.health import ENDPOINTS as OPERATOR_ENDPOINTS
from embedway.server.heartbeats import SERVING, STARTING, send_heartbeats
from embedway.server.http_server import HttpServer
from embedway.server.inference.client import InferenceClient
from embedway.server.key_ring import KeyRing
from embedway.server.rate_stores import open_rates
from embedway.server.served import ServedModels
from embedway.server.snapshots import WRITE_S, snapshot_of, write_snapshot
from embedway.server.stats import Stats

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from embedway.config import Config
    from embedway.config.server import ServerSettings


#: Time after which a thread that computes in Python passes the interpreter's lock to the event loop, in seconds. The
#: loop needs the lock after each wait, some ten times for a request; Python's default is 5 ms.
_SWITCH_S = 0.0005
#: Increment of the nice value of a process for bulk requests: a process without it gets three times as much of a core
#: that both need.
_BULK_NICE = 5


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """Number, sockets, folder and descriptors of a worker, from its supervisor."""

    number: int
    #: Socket of the gateway; in a process for bulk requests, the one that these processes share.
    main_socket: socket.socket
    #: Socket of the port for metrics; None without one.
    metrics_socket: socket.socket | None
    #: Private folder of the running gateway.
    folder: Path
    #: Path of the socket of the process that computes local models; None if the worker does.
    inference: Path | None
    #: Path of the socket of the processes for bulk requests; None without them, and in one of them.
    bulk: Path | None
    #: Whether it is a process for bulk requests.
    is_bulk: bool
    #: Descriptor for heartbeats.
    heartbeat: int
    #: Descriptor that ends when the supervisor has ended.
    lifeline: int


def run_worker(config: Config, place: WorkerPlace) -> None:
    """Serve until SIGTERM, or until the supervisor has ended."""
    sys.setswitchinterval(_SWITCH_S)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the supervisor ends this one
    if place.is_bulk:
        os.nice(_BULK_NICE)
    uvloop.run(_serve(config, place))


async def open_gateway(
    config: Config, folder: Path, inference: Path | None = None, bulk: BulkProxy | None = None
) -> tuple[Gateway, GatewayApp]:
    """Return a gateway of the running event loop, and its application. The caller closes the gateway.

    `folder` is private and shared by the workers of a gateway. `inference` is the socket of the process that computes
    local models; None if this one does. With `bulk`, other processes answer bulk requests and compute batches.
    """
    engines = Engines(config, (), None, None if inference is None else partial(InferenceClient, inference))
    engine = await engines.current()
    stats = Stats(log_requests=config.server.access_log, metrics=config.telemetry.prometheus)
    served, rates = ServedModels(config, engine.selector), open_rates(config, folder / "rates")
    ring = None if engine.records is None else KeyRing(engine.records, keys_stale_s=config.server.keys_stale_s)
    gateway = Gateway(GatewayParts(config, engines, served, rates, stats, ring, folder))
    batches = gateway.batches = BatchService(config, gateway, engine.records)
    if bulk is None:
        batches.start()
    return gateway, GatewayApp(gateway, ENDPOINTS, Access(config.server, ring), batches, bulk)


def make_metrics_app(gateway: Gateway) -> GatewayApp:
    """Return the application of the port for metrics. It needs no key, because Prometheus has none.

    On a loopback address, the host of a request must be this machine.
    """
    settings = gateway.config.server
    auth = "auto" if is_loopback(settings.metrics_host) else "none"
    access = Access(settings.model_copy(update={"host": settings.metrics_host, "auth": auth}), None)
    return GatewayApp(gateway, OPERATOR_ENDPOINTS, access)


def make_server(app: GatewayApp, settings: ServerSettings) -> uvicorn.Server:
    """Return a server of an application; it handles no signals."""
    return HttpServer(
        uvicorn.Config(
            app,
            loop="none",
            http=guarded_protocol(settings),
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=math.ceil(settings.idle_timeout_s),
            timeout_graceful_shutdown=math.ceil(settings.drain_s),
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
        )
    )


async def _serve(config: Config, place: WorkerPlace) -> None:
    loop = asyncio.get_running_loop()
    bulk = None if place.bulk is None else _open_bulk_proxy(place.bulk, config.server)
    gateway, app = await open_gateway(config, place.folder, place.inference, bulk)
    # TLS ends in the worker that forwards a bulk request.
    plain = {"tls_certificate": None, "tls_key": None}
    server = make_server(app, config.server.model_copy(update=plain) if place.is_bulk else config.server)
    metrics = make_server(make_metrics_app(gateway), config.server)

    def stop() -> None:
        gateway.readiness.is_ending = True
        server.should_exit = True

    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_reader(place.lifeline, stop)
    beating = asyncio.create_task(send_heartbeats(place.heartbeat, lambda: SERVING if server.started else STARTING))
    writing = asyncio.create_task(_write_snapshots(gateway, place))
    try:
        await gateway.served.refresh()
        await gateway.warm()
        if place.number == 0:
            await gateway.warn_of_gaps()
        freeze_loaded_objects()
        if place.metrics_socket is not None:
            serving = asyncio.create_task(metrics.serve(sockets=[place.metrics_socket]))
        await server.serve(sockets=[place.main_socket])
        gateway.queue.close()  # lines of batches begin no more
        if place.metrics_socket is not None:
            metrics.should_exit = True
            await serving
    finally:
        loop.remove_reader(place.lifeline)
        beating.cancel()
        writing.cancel()
        if bulk is not None:
            await bulk.aclose()
        await gateway.aclose()


def _open_bulk_proxy(path: Path, settings: ServerSettings) -> BulkProxy:
    return BulkProxy(
        path,
        least_bytes=settings.bulk_kib << 10,
        most_bytes=settings.body_mib << 20,
        # The process ends each call by its deadline, so that this time passes only if it hangs.
        read_timeout_s=settings.max_deadline_s + settings.drain_s,
    )


async def _write_snapshots(gateway: Gateway, place: WorkerPlace) -> None:
    """Share the statistics with the other workers."""
    while True:
        gateway.report_queue()
        with contextlib.suppress(OSError):
            await asyncio.to_thread(write_snapshot, place.folder, snapshot_of(gateway, place.number))
        await asyncio.sleep(WRITE_S)
