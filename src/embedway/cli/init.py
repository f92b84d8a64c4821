"""`embedway init`: a first settings file, and trust in it."""

import contextlib
import uuid
from pathlib import Path
from typing import Annotated

import typer

from embedway.cli.output import one_line, print_line
from embedway.errors import UsageError
from embedway.files import put_in_place

TEMPLATE = """\
# Settings of embedway for this folder. What is commented out shows a setting and, where it has one, its default.
# `embedway doctor` shows what is set and by what. After a change: `embedway trust`.

[embedding]
# The model that is used where none is named: a name of `embedway models list`, or "auto".
default_model = "auto"
# What happens to a text over the model's limit: "truncate", "error" or "mean".
# on_overflow = "truncate"

[run]
# Tokens of a chunk, and tokens that neighbouring chunks share.
# chunk_tokens = 256
# overlap = 32

[cache]
# Where vectors are kept: "sqlite", "memory", "redis" or "none".
# backend = "sqlite"

# The most that services may cost, by month: refused before anything is sent.
# [budgets.everything]
# usd = "10"
# period = "month"

# A way to a model beside the catalog's. The key is in a variable of the environment, which is named beside the address.
# [routes.mine]
# model = "text-embedding-3-small"
# provider = "openai"
# base_url = "https://gateway.example.com/v1"
# api_key_env = "OPENAI_API_KEY"
"""


def init(*, force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False) -> None:
    """Write a first embedway.toml into the working directory, and trust it."""
    from embedway.config.discovered_file import DEFAULT_FILE
    from embedway.config.trust import add_trust, check_writable_trust, content_sha256, file_location

    check_writable_trust()
    path = Path(DEFAULT_FILE)
    data = TEMPLATE.encode()
    _write(path, data, replace=force)
    place = file_location(path)
    add_trust(place, content_sha256(data))
    print_line(f"wrote {one_line(place)} and trusted it")
    print_line("next: change it, run `embedway trust`, and see with `embedway doctor` what is set")


def _write(path: Path, data: bytes, *, replace: bool) -> None:
    """Write a file whole or not at all. Raises UsageError where there is one that must not be replaced."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
        put_in_place(temporary, path, overwrite=replace)
    except FileExistsError:
        raise UsageError(f"{path} is there already; --force replaces it") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
