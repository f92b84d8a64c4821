"""Start of a gateway: opens its sockets, and runs its processes under a supervisor."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedway.interrupts import hand_over
from embedway.server.access import is_public, needs_keys
from embedway.server.listening import listen, listen_at
from embedway.server.run_folder import run_folder, short_folder
from embedway.server.start_checks import check_settings
from embedway.server.supervisor import Child, Supervisor
from embedway.telemetry.multiprocess import continue_files, share_in

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from embedway.config import Config

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
        _children(config, sockets, folder),
        settings.drain_s,
        on_ready=lambda: say(f"serving on {address} ({keys}); stop with Ctrl-C"),
        on_end=end,
    ).run()


def _children(config: Config, sockets: _Sockets, folder: Path) -> list[Child]:
    """Return the processes of a gateway in the order of their start."""
    workers, bulk_workers = config.server.workers, config.server.bulk_workers
    children = []
    if sockets.inference is not None:
        children.append(Child("the inference process", _Inference(config, sockets, folder), end_order=2))
    for number in range(workers + bulk_workers):
        is_bulk = number >= workers
        name = f"worker {number}, for bulk requests" if is_bulk else f"worker {number}"
        children.append(Child(name, _Worker(config, number, sockets, folder, is_bulk), end_order=int(is_bulk)))
    return children


@dataclass(frozen=True, slots=True)
class _Sockets:
    """Listening sockets of a gateway, which its processes inherit."""

    #: Sockets of the gateway: one for each worker, or one for all.
    main: tuple[socket.socket, ...]
    #: The same of the port for metrics; empty without one.
    metrics: tuple[socket.socket, ...]
    #: Socket of the inference process; None without one.
    inference: socket.socket | None
    #: Socket that all processes for bulk requests share; None without them.
    bulk: socket.socket | None

    def of(self, number: int) -> tuple[socket.socket, socket.socket | None]:
        """Return the socket of a worker, and that for metrics; None without one."""
        metrics = self.metrics[number % len(self.metrics)] if self.metrics else None
        return self.main[number % len(self.main)], metrics

    def close_others(self, *own: socket.socket | None) -> None:
        """Close all sockets but those of the calling process."""
        for one in (*self.main, *self.metrics, self.inference, self.bulk):
            if one is not None and one not in own:
                one.close()

    def close_workers(self) -> None:
        """Close the sockets of the workers; these still need the other processes."""
        for one in (*self.main, *self.metrics):
            one.close()


@dataclass(frozen=True, slots=True)
class _Inference:
    """The process that computes local models. It is called as a `_Worker`."""

    config: Config
    sockets: _Sockets
    folder: Path

    def __call__(self, heartbeat: int, lifeline: int) -> None:
        from embedway.server.inference.run import run_inference  # noqa: PLC0415  in its own process only

        _count_start(self.config, "inference", self.folder)
        own = self.sockets.inference
        assert own is not None  # noqa: S101  it is started with one
        self.sockets.close_others(own)
        run_inference(self.config, own, heartbeat, lifeline)


@dataclass(frozen=True, slots=True)
class _Worker:
    """An HTTP worker. It is called in its own process, with descriptors for heartbeats and of the lifeline."""

    config: Config
    number: int
    sockets: _Sockets
    folder: Path
    #: Whether it is a process for bulk requests.
    is_bulk: bool

    def __call__(self, heartbeat: int, lifeline: int) -> None:
        from embedway.server.worker import WorkerPlace, run_worker  # noqa: PLC0415  in the worker's process only

        _count_start(self.config, f"worker{self.number}", self.folder)
        # Closed sockets have no path.
        inference, bulk = _path(self.sockets.inference), None if self.is_bulk else _path(self.sockets.bulk)
        own, metrics = (self.sockets.bulk, None) if self.is_bulk else self.sockets.of(self.number)
        assert own is not None  # noqa: S101  as above
        self.sockets.close_others(own, metrics)
        place = WorkerPlace(self.number, own, metrics, self.folder, inference, bulk, self.is_bulk, heartbeat, lifeline)
        run_worker(self.config, place)


def _count_start(config: Config, process: str, folder: Path) -> None:
    """Count the start of a process in its file of metrics, which continues that of the ended one."""
    if config.telemetry.prometheus:
        from embedway.server.stats import count_start  # noqa: PLC0415  not in the supervisor

        continue_files(process, folder / _METRICS)
        count_start(process)


def _path(listening: socket.socket | None) -> Path | None:
    """Return the path of a Unix socket."""
    return None if listening is None else Path(listening.getsockname())
