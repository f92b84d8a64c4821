"""Replacement of secrets in texts. This file imports no third-party library, which may be missing or broken."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Iterator

MASK = "***"
#: Minimum length of a secret that is replaced inside words, and of one that is replaced at all. Shorter ones, such as
#: `1`, would make the report unreadable.
ANYWHERE, _LEAST = 8, 4
#: Values that are not secrets, whatever the name of their variable is.
_WORDS = frozenset({"true", "false", "none", "null", "auto", "yes", "no"})
#: Not of `USER:PASSWORD`, which embedway's own advice contains.
_CREDENTIALS = re.compile(r"(\w[\w+.-]*://)(?!USER:PASSWORD@HOST)[^/?#\s]*@")
_QUERY = re.compile(r"(\w[\w+.-]*://[^\s?#]*)[?#][^\s'\",;)]*")
_BEARER = re.compile(r"\b(Bearer|Basic|Token)\s+[\w.~+/=-]{8,}", re.IGNORECASE)

#: Keys of services, by their usual prefixes and a digit: they may be in any setting, such as the name of a variable.
_KEYS = re.compile(r"\b(?:(?:sk|pk|rk|hf|pa|jina|gh[a-z])[-_](?=[\w-]*\d)[\w-]{16,}|AIza[\w-]{20,})")


@dataclass(frozen=True, slots=True)
class Mask:
    """Replacement of secrets in texts and documents."""

    pattern: re.Pattern[str] | None = None

    @classmethod
    def of(cls, secrets: set[str]) -> Mask:
        """Return the mask of secrets, and of their escaped forms in URLs, JSON and reprs."""
        forms = {form for secret in secrets for form in _forms(secret)}
        kept = sorted((form for form in forms if len(form) >= _LEAST and form.lower() not in _WORDS), key=len)
        parts = [
            re.escape(form) if len(form) >= ANYWHERE else rf"(?<!\w){re.escape(form)}(?!\w)" for form in reversed(kept)
        ]
        return cls(re.compile("|".join(parts)) if parts else None)

    def text(self, text: str) -> str:
        """Return a text without secrets."""
        if self.pattern is not None:
            text = self.pattern.sub(MASK, text)
        text = _CREDENTIALS.sub(rf"\1{MASK}@", text)
        text = _QUERY.sub(rf"\1?{MASK}", text)
        text = _KEYS.sub(MASK, text)
        return _BEARER.sub(rf"\1 {MASK}", text)

    def document(self, value: Any) -> Any:
        """Return a document of JSON without secrets in its texts."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.document(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.document(inner) for inner in value]
        return value


def _forms(secret: str) -> Iterator[str]:
    for line in {secret, secret.strip(), *secret.splitlines()}:
        yield line.strip()
        with contextlib.suppress(UnicodeError):
            yield from (unquote(line), quote(line, safe=""), json.dumps(line)[1:-1], repr(line)[1:-1])
