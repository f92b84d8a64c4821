"""Entry point of `python -m embedway`, the same as the command `embedway`.

Python puts the working directory first on the module path before this file runs. This file removes it before any other
import, so that no file or folder there is imported in place of an installed package. Modules that Python itself needs
for `-m` (runpy, `functools` and some others) are searched there earlier: the command `embedway` and
`python -P -m embedway` never search there.
"""

import os
import sys


def program() -> None:
    """Run the command line. Signals are handled from here on, also while modules are imported."""
    import signal  # noqa: PLC0415  see above

    blocking = hasattr(signal, "pthread_sigmask")  # not on Windows
    if blocking:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    from embedway.interrupts import handled  # noqa: PLC0415

    with handled():
        if blocking:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        from embedway.cli import main  # noqa: PLC0415  heavy

        main()


def _is_working_directory(path: str) -> bool:
    try:
        return path in {"", os.getcwd()}  # noqa: PTH109  pathlib would be imported
    except FileNotFoundError:
        return False  # the working directory was deleted


if __name__ == "__main__":
    if not sys.flags.safe_path and sys.path and _is_working_directory(sys.path[0]):
        del sys.path[0]

    program()
