"""The options that come before a command."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from embedway.config import Config


@dataclass(slots=True)
class Invocation:
    """One start of the program. The only state of the command line; set before the command runs."""

    files: tuple[Path, ...] = ()
    quiet: bool = False
    traceback: bool = False

    @classmethod
    def of(cls, context: typer.Context) -> "Invocation":
        """The invocation that a command runs in."""
        return context.ensure_object(cls)

    def config(self, overrides: Mapping[str, Any] | None = None) -> "Config":
        """All settings, with the flags that were given on top; a flag that is None was not given.

        Raises ConfigError.
        """
        from embedway.config import Config

        given = {key: value for key, value in (overrides or {}).items() if value is not None}
        return Config.load(self.files, overrides=given)
