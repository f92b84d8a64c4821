"""Log of a command. Without a handler, Python prints warnings and errors on standard error."""

import logging
from collections.abc import Callable


def show_log(*, verbose: bool) -> Callable[[], None]:
    """Print lines of level INFO if `verbose`; return the function that restores the loggers.

    The log of failed rows is hidden otherwise, because commands report them with their lines or files.
    """
    library, rows = logging.getLogger("embedway"), logging.getLogger("embedway.rows")
    levels = (library, library.level), (rows, rows.level)
    handler = logging.StreamHandler()
    if verbose:
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        library.addHandler(handler)
        library.setLevel(logging.INFO)
    else:
        rows.setLevel(logging.ERROR)

    def end() -> None:
        library.removeHandler(handler)
        for logger, level in levels:
            logger.setLevel(level)

    return end
