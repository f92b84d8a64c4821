"""Section of the settings for the gateway."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from platformdirs import user_state_path
from pydantic import AfterValidator, Field, model_validator

from embedway.config.addresses import parse_address
from embedway.config.problems import ContradictionError
from embedway.config.types import File, Flag, Folder, NotNegative, Positive, Seconds, Section

Port: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=65_535)]
Mebibytes: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=65_536)]


def _check_origin(origin: str) -> str:
    if origin == "*":
        raise ValueError("must name each origin: any page could use the gateway otherwise")
    parts = parse_address(origin, example="https://search.example.com")
    if parts.path not in {"", "/"}:
        raise ValueError("must be an origin such as https://search.example.com, without a path")
    return origin.rstrip("/")


Origin: TypeAlias = Annotated[str, AfterValidator(_check_origin)]


class ServerSettings(Section):
    """`[server]`: the gateway, `embedway serve`."""

    #: Address to listen on. Any but a loopback address requires keys, unless `auth` is `none`.
    host: str = Field(default="127.0.0.1", min_length=1, max_length=253)
    #: Port; 0 for a free one.
    port: Port = 8080
    #: HTTP worker processes.
    workers: Annotated[int, Field(strict=True, ge=1, le=256)] = 1
    #: Whether requests need an API key: always, never, or (`auto`) on all but loopback addresses.
    auth: Literal["auto", "keys", "none"] = "auto"
    #: Models that are served, by name or alias; unset for all models of the catalog and the settings that can run here.
    models: tuple[str, ...] | None = None
    #: Models to load at the start; unset for the default model if it computes here.
    warm: tuple[str, ...] | None = None
    #: Process that computes local models: one for all workers, or each worker itself. `keep_alive_s`, `models_mib`,
    #: `load_wait_s` and `hang_s` are those of the one process.
    inference: Literal["process", "worker"] = "process"

    #: Maximum size of a request body, in MiB.
    body_mib: Mebibytes = 32
    #: Maximum texts of a request.
    max_inputs: Positive = 20_000
    #: Maximum estimated tokens of a request; a token is estimated as four characters of text.
    max_tokens: Positive = 8_000_000
    #: Maximum time for a client to send the head of a request, and then its body, in seconds.
    read_timeout_s: Seconds = 30.0
    #: Maximum time for a client to read a part of an answer, in seconds.
    write_timeout_s: Seconds = 60.0
    #: Time that an unused connection stays open, in seconds.
    idle_timeout_s: Seconds = 75.0
    #: Maximum connections of a worker.
    max_connections: Positive = 4_096
    #: Deadline of a request that names none, in seconds.
    deadline_s: Seconds = 120.0
    #: Maximum deadline that a request may name, in seconds.
    max_deadline_s: Seconds = 600.0

    #: Processes that answer bulk requests and compute batches, with a lower CPU priority, so that these do not delay
    #: other requests. With 0, the workers do.
    bulk_workers: Annotated[int, Field(strict=True, ge=0, le=256)] = 1
    #: Minimum size of the body of a bulk request, in KiB. POST requests for files and batches are bulk with any body.
    bulk_kib: Positive = 8

    #: Requests of a worker that compute at the same time.
    max_running: Positive = 128
    #: Requests of a worker that wait for their turn; more are refused with the time to come back.
    max_waiting: NotNegative = 2_000
    #: Maximum expected time until the turn of a request, in seconds; with a longer one, it is refused with the time to
    #: come back. The first waiting request of a key is not.
    max_wait_s: Seconds = 1.0
    #: Time for running requests to end after SIGTERM, in seconds.
    drain_s: Seconds = 30.0
    #: Time that known keys are accepted while the store of keys cannot be read, in seconds.
    keys_stale_s: Seconds = 60.0

    #: Time after which an unused local model is unloaded, in seconds, or `never`.
    keep_alive_s: Seconds | Literal["never"] = "never"
    #: Maximum memory of loaded local models, in MiB; the least recently used ones are unloaded. Unset for no limit.
    models_mib: Positive | None = None
    #: Maximum time that a request waits for a model that is being loaded, in seconds.
    load_wait_s: Seconds = 30.0
    #: Time without progress of a batch after which the inference process is restarted, in seconds.
    hang_s: Seconds = 60.0

    #: Certificate chain for TLS, PEM; set it with `tls_key`.
    tls_certificate: File | None = None
    #: Key of the certificate, PEM, without a password.
    tls_key: File | None = None
    #: Origins whose pages may use the gateway in a browser.
    cors_origins: tuple[Origin, ...] = ()
    #: Address of the port for metrics.
    metrics_host: str = Field(default="127.0.0.1", min_length=1, max_length=253)
    #: Port that serves the metrics without a key; unset for `/metrics` with an admin key only.
    metrics_port: Port | None = None
    #: Whether each request is logged as one line to the logger `embedway.access`: names and numbers, no texts.
    access_log: Flag = False

    #: Folder of files and batches, unless the ledger is on a server.
    state_directory: Folder = Field(default_factory=lambda: user_state_path("embedway", appauthor=False) / "server")
    #: Folder of sockets and temporary files of a running gateway.
    run_directory: Folder = Field(default_factory=lambda: Path(tempfile.gettempdir()))

    @property
    def batches_file(self) -> Path:
        """SQLite file of files and batches."""
        return self.state_directory / "batches.sqlite"

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ContradictionError("tls_certificate and tls_key must be set together", "tls_certificate", "tls_key")
        return self

    @model_validator(mode="after")
    def _check_deadlines(self) -> Self:
        if self.deadline_s > self.max_deadline_s:
            raise ContradictionError("deadline_s must not be above max_deadline_s", "deadline_s", "max_deadline_s")
        return self
