"""Entry point of `python -m embedway`, the same as the command `embedway`.

Python puts the working directory first on the module path before this file runs. This file removes it before any other
import, so that no file or folder there is imported in place of an installed package. Modules that Python itself needs
for `-m` (runpy, `functools` and some others) are searched there earlier: the command `embedway` and
`python -P -m embedway` never search there.
"""

import os
import sys


def _is_working_directory(path: str) -> bool:
    try:
        return path in {"", os.getcwd()}  # noqa: PTH109  pathlib would be imported
    except FileNotFoundError:
        return False  # the working directory was deleted


if __name__ == "__main__":
    if not sys.flags.safe_path and sys.path and _is_working_directory(sys.path[0]):
        del sys.path[0]

    from embedway.cli import main

    main()
