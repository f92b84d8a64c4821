"""Language tags of BCP 47: their form, and the languages that exist, from `languages.toml`."""

from __future__ import annotations

import difflib
import functools
import re
import tomllib
from importlib import resources

_TAG = re.compile(r"([A-Za-z]{2,3})(?:-[A-Za-z0-9]{1,8})*", re.ASCII)
#: Minimum similarity of a name to a language's.
_SIMILARITY = 0.8


def explain_wrong_tag(tag: str) -> str:
    """Return why a tag is none of BCP 47, with the right one if it is known; empty for a tag of a language."""
    shaped = _TAG.fullmatch(tag)
    codes, names = _languages()
    if shaped and shaped[1].casefold() in codes:
        return ""
    written = tag.strip().replace("_", "-")
    primary, _, rest = written.partition("-")
    known = primary.casefold() if primary.casefold() in codes else names.get(primary.casefold())
    if known is None and len(primary) > 3:
        near = difflib.get_close_matches(primary.casefold(), names, n=1, cutoff=_SIMILARITY)
        known = names[near[0]] if near else None
    right = f"{known}-{rest}" if known and rest else known
    if right and _TAG.fullmatch(right):
        return f"not a BCP 47 tag; write {right}"
    return "not a BCP 47 tag of a language, such as en or pt-BR"


@functools.cache
def _languages() -> tuple[frozenset[str], dict[str, str]]:
    """Return the codes of languages, and the codes by other names of their languages."""
    text = resources.files("embedway.catalog").joinpath("languages.toml").read_text(encoding="utf-8")
    rows = tomllib.loads(text)
    named = rows["two_letters"]
    names = {name: code for code, others in named.items() for name in others}
    return frozenset([*named, *rows["three_letters"]["codes"].split()]), names
