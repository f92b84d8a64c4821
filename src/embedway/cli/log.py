"""Log of a command. Without a handler, Python prints warnings and errors on standard error."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from embedway.cli.output import LogHandler

if TYPE_CHECKING:
    from embedway.config import Config

#: Loggers that are hidden otherwise: commands report failed texts with their lines or files.
_REPORTED = ("embedway.rows",)
#: Loggers of notes on texts, which --quiet hides.
_NOTES = ("embedway.quality.scripts",)
_HANDLER = "embedway-command"


def show_log(*, verbose: bool, quiet: bool = False) -> Callable[[], None]:
    """Print lines of level INFO if `verbose`, and no notes on texts if `quiet`.

    Return the function that restores the loggers.
    """
    library, reported = logging.getLogger("embedway"), [logging.getLogger(name) for name in _REPORTED]
    notes = [logging.getLogger(name) for name in _NOTES]
    levels = [(logger, logger.level) for logger in (library, *reported, *notes)]
    if verbose:
        _handler(library).setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        library.setLevel(logging.INFO)
    else:
        for logger in reported:
            logger.setLevel(logging.ERROR)
        for logger in notes if quiet else ():
            logger.setLevel(logging.ERROR)

    def end() -> None:
        for handler in list(library.handlers):
            if handler.name == _HANDLER:
                library.removeHandler(handler)
        for logger, level in levels:
            logger.setLevel(level)

    return end


@contextmanager
def log_in_report(*names: str) -> Iterator[None]:
    """Hide warnings of loggers whose content is in the report of the command; not if the log is printed."""
    library, loggers = logging.getLogger("embedway"), [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    hidden = library.level != logging.INFO
    for logger in loggers if hidden else ():
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def apply_settings(config: "Config") -> None:
    """Print the log in the format of `telemetry.log_format` for the rest of a command."""
    if config.telemetry.log_format == "json":
        from embedway.telemetry.json_log import JsonFormatter

        _handler(logging.getLogger("embedway")).setFormatter(JsonFormatter())


def show_server_log(config: "Config", *, verbose: bool) -> None:
    """Print the log of a server with times: warnings, and each request if `server.access_log` is set."""
    library = logging.getLogger("embedway")
    handler = _handler(library)
    if config.telemetry.log_format == "text":
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    if verbose:
        library.setLevel(logging.INFO)
    if config.server.access_log:
        logging.getLogger("embedway.access").setLevel(logging.INFO)


def _handler(library: logging.Logger) -> LogHandler:
    """Return the handler of the command, which is created at first."""
    found = next((one for one in library.handlers if isinstance(one, LogHandler)), None)
    if found is None:
        found = LogHandler()
        found.name = _HANDLER
        library.addHandler(found)
    return found
