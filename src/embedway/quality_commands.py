"""Commands that messages name, complete with their model and route."""

from __future__ import annotations

import shlex

from embedway.text import printable


def command(name: str, model: str, *options: str, route: str = "") -> str:
    """Return a command of `embedway quality` for a model, and for one of its routes, to be copied into a shell."""
    words = ["embedway", "quality", name, "--model", shlex.quote(printable(model))]
    words += ["--route", shlex.quote(printable(route))] if route else []
    return f"`{' '.join((*words, *options))}`"
