"""Start of a gateway: checks its settings, opens its sockets, and supervises its processes."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedway.config.local_models import AUTO
from embedway.errors import ConfigError, EmbedwayError, MissingExtraError, UsageError
from embedway.interrupts import hand_over
from embedway.providers.names import full_name
from embedway.server.access import is_public, needs_keys, no_store_of_keys
from embedway.server.listening import listen, listen_at
from embedway.server.run_folder import run_folder, short_folder
from embedway.server.supervisor import Child, Supervisor
from embedway.telemetry.multiprocess import continue_files, share_in

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from embedway.config import Config
    from embedway.config.server import ServerSettings

#: Folder of the files of metrics, in that of the running gateway.
_METRICS = "metrics"
_METRICS_REMEDY = "choose another server.metrics_port or server.metrics_host"


def serve(config: Config, say: Callable[[str], None]) -> int:
    """Run a gateway until a signal ends it, and return the exit code. `say` receives lines for the user.

    Raises UsageError, ConfigError and MissingExtraError before anything is started.
    """
    settings = config.server
    check_settings(config)
    with contextlib.ExitStack() as opened:
        main = listen(settings.host, settings.port, settings.workers)
        opened.callback(_close, main)
        metrics: tuple[socket.socket, ...] = ()
        if settings.metrics_port is not None:
            metrics = listen(settings.metrics_host, settings.metrics_port, settings.workers, _METRICS_REMEDY)
            opened.callback(_close, metrics)
        folder = opened.enter_context(run_folder(settings.run_directory))
        short = opened.enter_context(short_folder(folder))
        inference = listen_at(short / "inference") if settings.inference == "process" else None
        bulk = listen_at(short / "bulk") if settings.bulk_workers else None
        opened.callback(_close, tuple(one for one in (inference, bulk) if one is not None))
        share_in(folder / _METRICS)
        return _supervise(config, _Sockets(main, metrics, inference, bulk), folder, say)


def _close(sockets: tuple[socket.socket, ...]) -> None:
    for one in sockets:
        one.close()


def _supervise(config: Config, sockets: _Sockets, folder: Path, say: Callable[[str], None]) -> int:
    settings = config.server
    children = [
        Child(f"worker {number}", _Worker(config, number, sockets, folder)) for number in range(settings.workers)
    ]
    children += [
        Child(f"worker {number}, for bulk requests", _Worker(config, number, sockets, folder), ends=1)
        for number in range(settings.workers, settings.workers + settings.bulk_workers)
    ]
    if sockets.inference is not None:
        children.insert(0, Child("the inference process", _Inference(config, sockets), ends=2))
    host, port = sockets.main[0].getsockname()[:2]
    scheme = "https" if settings.tls_certificate else "http"
    address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    keys = "API keys are required" if needs_keys(settings) else "no API keys are required"
    say("starting; models that are missing are downloaded first")
    if is_public(settings):
        say("warning: server.auth is 'none', so everyone who can reach this address can use it and spend money")

    def end() -> None:
        sockets.close_workers()
        say("ending; accepted requests are finished")

    hand_over()
    return Supervisor(
        children, settings.drain_s, lambda: say(f"serving on {address} ({keys}); stop with Ctrl-C"), end
    ).run()


@dataclass(frozen=True, slots=True)
class _Sockets:
    """Sockets of the gateway and of its port for metrics, one for each worker, and of processes that workers need.

    The processes for bulk requests share one.
    """

    main: tuple[socket.socket, ...]
    metrics: tuple[socket.socket, ...]
    inference: socket.socket | None
    bulk: socket.socket | None

    def of(self, number: int) -> tuple[socket.socket, socket.socket | None]:
        """Return the sockets of a worker. Called in its process: the others are closed."""
        own = self.main[number % len(self.main)]
        metrics = self.metrics[number % len(self.metrics)] if self.metrics else None
        self.close(keep=(own, metrics))
        return own, metrics

    def for_bulk(self) -> socket.socket:
        """Return the socket of a process for bulk requests. Called in it: the others are closed."""
        assert self.bulk is not None  # noqa: S101  it is started with one
        self.close(keep=(self.bulk,))
        return self.bulk

    def for_inference(self) -> socket.socket:
        """Return the socket of the inference process. Called in it: the others are closed."""
        assert self.inference is not None  # noqa: S101  as above
        self.close(keep=(self.inference,))
        return self.inference

    def close(self, keep: tuple[socket.socket | None, ...] = ()) -> None:
        """Close the sockets."""
        for one in (*self.main, *self.metrics, self.inference, self.bulk):
            if one is not None and one not in keep:
                one.close()

    def close_workers(self) -> None:
        """Close the sockets of the workers; these still need the other processes."""
        for one in (*self.main, *self.metrics):
            one.close()


@dataclass(frozen=True, slots=True)
class _Inference:
    """The process that computes local models, as `_Worker`."""

    config: Config
    sockets: _Sockets

    def __call__(self, heartbeat: int, lifeline: int) -> None:
        from embedway.server.inference.run import run_inference  # noqa: PLC0415  in its own process only

        run_inference(self.config, self.sockets.for_inference(), heartbeat, lifeline)


@dataclass(frozen=True, slots=True)
class _Worker:
    """An HTTP worker, started in its own process with descriptors for heartbeats and of the lifeline.

    Those from `server.workers` on are for bulk requests.
    """

    config: Config
    number: int
    sockets: _Sockets
    folder: Path

    def __call__(self, heartbeat: int, lifeline: int) -> None:
        from embedway.server.worker import WorkerPlace, run_worker  # noqa: PLC0415  in the worker's process only

        if self.config.telemetry.prometheus:
            continue_files(f"worker{self.number}", self.folder / _METRICS)
        is_bulk = self.number >= self.config.server.workers
        inference, bulk = _path(self.sockets.inference), None if is_bulk else _path(self.sockets.bulk)
        own, metrics = (self.sockets.for_bulk(), None) if is_bulk else self.sockets.of(self.number)
        place = WorkerPlace(self.number, own, metrics, self.folder, inference, bulk, is_bulk, heartbeat, lifeline)
        run_worker(self.config, place)


def _path(listening: socket.socket | None) -> Path | None:
    """Return the path of a Unix socket."""
    return None if listening is None else Path(listening.getsockname())


def check_settings(config: Config) -> None:
    """Check whether a gateway can start with its settings on this system. Raises the errors of `serve`."""
    if not hasattr(os, "fork"):
        raise UsageError("embedway serve needs fork, which this system does not have; on Windows, use WSL")
    _check_extra()
    if needs_keys(config.server) and config.ledger.backend == "none":
        raise no_store_of_keys()
    _check_certificate(config.server)
    _check_models(config)


def _check_models(config: Config) -> None:
    """Raise ConfigError if the settings of the gateway name a model that does not exist."""
    named = {"server.models": config.server.models, "server.warm": config.server.warm}
    for key, names in named.items():
        for name in names or ():
            if name == AUTO:
                continue
            try:
                full_name(name, config)
            except EmbedwayError as error:
                raise ConfigError(str(error), key=key) from None


def _check_certificate(settings: ServerSettings) -> None:
    """Raise ConfigError if the certificate and the key cannot be used."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return
    import ssl  # noqa: PLC0415  not needed without TLS

    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(settings.tls_certificate, settings.tls_key)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(
            f"{settings.tls_certificate} and {settings.tls_key} are no certificate chain and its key in PEM, without a "
            f"password: {reason}",
            key="server.tls_certificate",
        ) from None


def _check_extra() -> None:
    from importlib.util import find_spec  # noqa: PLC0415

    for package in ("httptools", "python_multipart", "starlette", "uvicorn", "uvloop"):
        if find_spec(package) is None:
            raise MissingExtraError("embedway serve", extra="server", package=package)
