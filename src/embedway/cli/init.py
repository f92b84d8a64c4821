"""`embedway init`: create a settings file and trust it."""

import contextlib
import uuid
from pathlib import Path
from typing import Annotated

import typer

from embedway import unfinished
from embedway.cli.options import Invocation
from embedway.cli.output import one_line, print_line, report_of_work
from embedway.errors import UsageError
from embedway.files import put_in_place

TEMPLATE = """\
# Settings of embedway for this folder. Commented lines show more settings, with their defaults if they have one.
# `embedway doctor` shows which settings are set, and where. After a change, run `embedway trust`.

[embedding]
# Model for calls that name none: a name from `embedway models list`, or "auto".
default_model = "auto"
# Handling of texts over the model's limit: "truncate", "error" or "mean".
# on_overflow = "truncate"

[run]
# Maximum tokens of a chunk, and maximum tokens that neighbouring chunks share.
# chunk_tokens = 256
# overlap = 32

[cache]
# Storage of cached vectors: "sqlite", "memory", "redis" or "none".
# backend = "sqlite"

# Maximum cost of services per month. A call over it is refused before anything is sent.
# [budgets.everything]
# usd = "10"
# period = "month"

# Alerts on routes that fail: on standard error, and as JSON to a webhook if one is set.
# [alerts]
# error_rate = 0.2
# window_s = 300
# min_requests = 10

# A route to a model, tried before the catalog's routes. The environment variable `api_key_env` contains the key.
# [routes.mine]
# model = "text-embedding-3-small"
# provider = "openai"
# base_url = "https://gateway.example.com/v1"
# api_key_env = "OPENAI_API_KEY"
# headers = { X-Team = "search" }
# ca_file = "example-ca.pem"
"""


def init(
    context: typer.Context,
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Create an embedway.toml in the working directory and trust it."""
    from embedway.config.discovered_file import DEFAULT_FILE
    from embedway.config.trust import add_trust, check_writable_trust, content_sha256, file_location

    check_writable_trust()
    path = Path(DEFAULT_FILE)
    data = TEMPLATE.encode()
    _write(path, data, replace=force)
    place = file_location(path)
    add_trust(place, content_sha256(data))
    with report_of_work(Invocation.of(context)):
        print_line(f"wrote {one_line(place)} and trusted it")
        print_line("next: edit it, run `embedway trust`, and check the settings with `embedway doctor`")


def _write(path: Path, data: bytes, *, replace: bool) -> None:
    """Write a file atomically. Raises UsageError if it exists and must not be replaced."""
    temporary = unfinished.track(path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}"))
    try:
        with temporary.open("xb") as file:
            file.write(data)
        put_in_place(temporary, path, overwrite=replace)
    except FileExistsError:
        raise UsageError(f"{path} already exists; use --force to replace it") from None
    finally:
        with contextlib.suppress(OSError):
            unfinished.remove(temporary)
