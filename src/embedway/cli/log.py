"""Log of a command. Without a handler, Python prints warnings and errors on standard error."""

import logging
from collections.abc import Callable

from embedway.cli.output import LogHandler

#: Loggers that are hidden otherwise: commands report failed texts with their lines or files.
_REPORTED = ("embedway.rows",)


def show_log(*, verbose: bool) -> Callable[[], None]:
    """Print lines of level INFO if `verbose`; return the function that restores the loggers."""
    library, reported = logging.getLogger("embedway"), [logging.getLogger(name) for name in _REPORTED]
    levels = [(logger, logger.level) for logger in (library, *reported)]
    handler = LogHandler()
    if verbose:
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        library.addHandler(handler)
        library.setLevel(logging.INFO)
    else:
        for logger in reported:
            logger.setLevel(logging.ERROR)

    def end() -> None:
        library.removeHandler(handler)
        for logger, level in levels:
            logger.setLevel(level)

    return end
