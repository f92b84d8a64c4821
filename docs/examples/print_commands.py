"""Write docs/command-line.md: the help of every command.

python docs/examples/print_commands.py
"""

import os
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "command-line.md"
HEAD = """# Command line
`embedway COMMAND --help` prints the same. Common options come before the command: `embedway --config F run …`; `-q`,
`-v` and `--traceback` may also follow it.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 over budget, 4 partly failed, 130 stopped by Ctrl-C, 143 by SIGTERM, 129
by SIGHUP. With `--json`, standard output is one JSON document, and nothing else. Progress and notes go to standard
error. What receipts note (`receipt.notes`) is logged there once, and is in the JSON document. A result that
cannot be printed is a failure, and so is a `--metrics-file` that cannot be written after a complete job; a report of
finished work, such as the table of `run`, is not, except with `--json`.

Ctrl-C and SIGTERM end every command within two seconds. A second signal ends it at once. A collection is complete or
unchanged, never half-written; in Qdrant and Chroma, the rows that are written stay. Standard error says what is stored
and how to continue. The same command computes no vector again ([collections.md](collections.md#guarantees)).

An error that stops `run` or `sync` says how many texts are computed and kept, of all texts if all were read, and how
long to wait for a limit if that is known. The same command continues. An error of one text of `embed` says how many of
the other texts are in the cache. A cost is *unsure* if failed requests may be billed, or if the reported usage is
implausible ([budgets.md](budgets.md)).

`embedway doctor` also works if the settings are invalid. Each mistake is then a line of its report, the other checks
use the defaults, and the exit code is 1. Only a wrong option exits with 2. The JSON document contains `works`, which
decides the exit code; `advice`, with the problems first; and a list `checks`. Each check has `section`, `name`,
`status` (`ok`, `warning`, `problem`, `failed` or `skipped`), `detail` and `remedy`.

"""


def page() -> str:
    """Return the page, written by typer from the commands themselves."""
    command = [sys.executable, "-m", "typer", "embedway.cli", "utils", "docs", "--name", "embedway"]
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    text = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=True).stdout
    lines = [line.rstrip() for line in text.strip().splitlines() if "-completion" not in line]
    return HEAD + "\n".join(f"#{line}" if line.startswith("#") else line for line in lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
