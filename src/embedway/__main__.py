"""`python -m embedway` is `embedway`.

Python puts the working directory first on the module path before this runs. It is taken off before anything else is
imported, so that no file of that folder is taken for a module, nor a folder for an installed package. Modules that
Python itself needs for `-m` (runpy, `functools` and some others) came from there already: the command `embedway` and
`python -P -m embedway` never look there.
"""

import os
import sys

if __name__ == "__main__":
    if not sys.flags.safe_path and sys.path[:1] in ([""], [os.getcwd()]):  # noqa: PTH109  pathlib would be imported
        del sys.path[0]

    from embedway.cli import main

    main()
