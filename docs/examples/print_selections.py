"""Update the shipped speeds, and the example output of `embedway select`, in docs/selection.md.

    python docs/examples/print_selections.py

The output does not depend on this machine: it has no keys and no weights, and `--anywhere` includes all models.
"""

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "selection.md"
EXAMPLES = ("english.txt", "code.py", "mix")
_KEPT = ("PATH", "SYSTEMROOT", "TIKTOKEN_CACHE_DIR")


def printed(example):
    """Return the command for an example and its output, indented as on the page."""
    arguments = ["select", f"docs/examples/{example}", "--anywhere"]
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        settings = {
            "EMBEDWAY_WEIGHTS__DIRECTORY": folder,
            "EMBEDWAY_WEIGHTS__OFFLINE": "1",
            "PYTHONUTF8": "1",
            "HOME": folder,
        }
        done = subprocess.run(
            [sys.executable, "-m", "embedway", *arguments],
            cwd=ROOT,
            env={**environment, **settings},
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=True,
        )
    lines = [f"$ embedway {' '.join(arguments)}", *done.stdout.splitlines()]
    return "".join(f"    {line.rstrip()}\n" if line.strip() else "\n" for line in lines)


def speeds():
    """Return the table of the shipped speeds, and the list of their sources, which it numbers."""
    file = ROOT / "src" / "embedway" / "catalog" / "benchmarks.toml"
    rows = tomllib.loads(file.read_text(encoding="utf-8"))["speeds"]
    lines = ["| speed | query, ms | tokens/s | source |", "| --- | ---: | ---: | --- |"]
    sources = {}
    for name, row in rows.items():
        by = f"{row['by']}, {row['date']}" if "date" in row else row["by"]
        number = sources.setdefault(by, len(sources) + 1)
        lines.append(f"| `{name}` | {row['avg_latency_ms']:g} | {row['tokens_per_second']:,} | {number} |")
    lines += ["", *(f"{number}. {by}" for by, number in sources.items())]
    return "".join(f"{line}\n" for line in lines)


def main():
    """Update the page."""
    page = PAGE.read_text(encoding="utf-8")
    for example in EXAMPLES:
        block = re.compile(rf"    \$ embedway select docs/examples/{re.escape(example)} .*\n(?:(?:    .*)?\n)*")
        page = block.sub(lambda _, example=example: f"{printed(example)}\n", page)
    page = re.sub(r"\| speed \| query, ms .*\n(?:\|.*\n)*\n(?:\d+\. .*\n)*", lambda _: speeds(), page)
    PAGE.write_text(page.rstrip("\n") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
