"""Log of a command. Without a handler, Python prints warnings and errors on standard error."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from embedway.cli.output import LogHandler

if TYPE_CHECKING:
    from embedway.config import Config

#: Loggers that are hidden otherwise: commands report failed texts with their lines or files.
_REPORTED = ("embedway.rows",)
_HANDLER = "embedway-command"


def show_log(*, verbose: bool) -> Callable[[], None]:
    """Print lines of level INFO if `verbose`; return the function that restores the loggers."""
    library, reported = logging.getLogger("embedway"), [logging.getLogger(name) for name in _REPORTED]
    levels = [(logger, logger.level) for logger in (library, *reported)]
    if verbose:
        _handler(library).setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        library.setLevel(logging.INFO)
    else:
        for logger in reported:
            logger.setLevel(logging.ERROR)

    def end() -> None:
        for handler in list(library.handlers):
            if handler.name == _HANDLER:
                library.removeHandler(handler)
        for logger, level in levels:
            logger.setLevel(level)

    return end


def apply_settings(config: "Config") -> None:
    """Print the log in the format of `telemetry.log_format` for the rest of a command."""
    if config.telemetry.log_format == "json":
        from embedway.telemetry.json_log import JsonFormatter

        _handler(logging.getLogger("embedway")).setFormatter(JsonFormatter())


def _handler(library: logging.Logger) -> LogHandler:
    """Return the handler of the command, which is created at first."""
    found = next((one for one in library.handlers if isinstance(one, LogHandler)), None)
    if found is None:
        found = LogHandler()
        found.name = _HANDLER
        library.addHandler(found)
    return found
