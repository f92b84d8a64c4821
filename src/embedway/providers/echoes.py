"""Messages of services' errors without the request's own strings, which many services repeat.

A repeated text may contain the phrases that errors are known by. It may be quoted, escaped, or cut off at either end.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Minimum letters and digits of a string, and of a part at its start or end, that are removed from a message.
_LEAST, _LEAST_PART = 8, 16
#: Stands for a repeated string. It is no space, because phrases have models' names without spaces.
_PLACEHOLDER = "…"
_NO_LETTERS = re.compile(r"[\W_]+")
#: Letters and digits of a message as it is, and of one in which strings are escaped, as in JSON, Python or HTML.
_LETTERS = re.compile(r"(?P<letter>[^\W_])")
_ESCAPED = re.compile(r"\\(?:u(?P<code>[0-9a-f]{4})|.)|&#?\w{1,6};|(?P<letter>[^\W_])", re.DOTALL)


class Message:
    """Message of an error, in lower case, and the body of the request."""

    def __init__(self, text: str, body: bytes) -> None:
        self._text = text
        self._body = body

    def search(self, phrase: str) -> re.Match[str] | None:
        """Return the first match of a phrase that the message does not repeat from the request."""
        pattern = re.compile(phrase, re.MULTILINE)
        if not self._text or pattern.search(self._text) is None:
            return None
        matches = pattern.finditer(self._own_text)
        return next((found for found in matches if _letters_of(found.group(0)) not in self._joined), None)

    @cached_property
    def _sent(self) -> tuple[str, ...]:
        """The strings of the request, by their letters and digits."""
        try:
            value = orjson.loads(self._body)
        except orjson.JSONDecodeError:
            value = self._body.decode("utf-8", "replace")
        return tuple(dict.fromkeys(map(_letters_of, _strings(value))))

    @cached_property
    def _joined(self) -> str:
        return "\n".join(self._sent)

    @cached_property
    def _own_text(self) -> str:
        """The message with a placeholder for each string that it repeats."""
        text = self._text
        for pattern in (_LETTERS, _ESCAPED):
            places, letters = [], []
            for found in pattern.finditer(text):
                groups = found.groupdict()
                letter = chr(int(groups["code"], 16)).lower() if groups.get("code") else groups["letter"]
                if letter and letter.isalnum():
                    places.append(found.span())
                    letters.append(letter[0])
            spans = [span for sent in self._sent for span in _repeated("".join(letters), sent)]
            end = len(text) + 1
            for first, last in sorted(spans, key=lambda span: -span[1]):
                start, stop = places[first][0], min(places[last - 1][1], end)
                if start < stop:
                    text = f"{text[:start]}{_PLACEHOLDER}{text[stop:]}"
                    end = start
        return text


def _letters_of(text: str) -> str:
    return _NO_LETTERS.sub("", text.lower())


def _strings(value: object) -> Iterator[str]:
    """Yield the strings of a JSON value."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, (list, dict)):
            left += item.values() if isinstance(item, dict) else item


def _repeated(letters: str, sent: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of a message's letters that are a string of the request, or its start or end."""
    size = min(len(sent), _LEAST_PART)
    if size < _LEAST:
        return
    for part, step in ((sent[:size], 1), (sent[-size:], -1)):
        at = letters.find(part)
        while at >= 0:
            first, last = at, at + size
            if step == 1:
                while last < len(letters) and last - at < len(sent) and letters[last] == sent[last - at]:
                    last += 1
            else:
                while first and at + size - first < len(sent) and letters[first - 1] == sent[first - at - size - 1]:
                    first -= 1
            yield first, last
            at = letters.find(part, last)
