"""Replacement of encoded data in texts: data URIs, and long runs of base64 or hexadecimal digits.

Encoded data has no meaning for a model, and a picture of 100 kB would become dozens of chunks. The number of lines does
not change, so that line numbers of the result are those of the source. Time is linear in the text's length.
"""

from __future__ import annotations

import re

IMAGE = "[image]"
DATA = "[data]"

#: Data URI: its media type and its payload. No part can contain the colon of a later beginning, except for the payload,
#: which ends the match. Shorter payloads are examples, which a reader can read.
_DATA_URI = re.compile(r"data:([a-z]+)/[\w.+-]+(?:;[\w.+=\"-]+)*,([\w+/=%.~!*$&;:@?-]{32,})", re.IGNORECASE | re.ASCII)
#: Characters without a space that are data if they look like it. The longest usual hash, SHA-512, has 128 hexadecimal
#: digits, and 88 characters in base64.
_RUN = re.compile(r"[A-Za-z0-9+/_-]{129,}={0,2}", re.ASCII)
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]+", re.ASCII)
#: Run that is data whatever its characters are, for example zeros in base64. It has no hyphen, as words in a URL do.
_ANY_DATA = re.compile(r"[A-Za-z0-9+/]{512,}", re.ASCII)
#: Lines of base64, as in PEM files and mail: at least two full ones, and a shorter one.
_LINES = re.compile(
    r"^(?P<indent>[ \t>]*+)[A-Za-z0-9+/]{60,128}(?:\n[ \t>]*+[A-Za-z0-9+/]{60,128}={0,2}[ \t]*+$)+"
    r"(?:\n[ \t>]*+[A-Za-z0-9+/]{1,128}={0,2}[ \t]*+$)?",
    re.ASCII | re.MULTILINE,
)
#: Minimum share of digits, and of letters of each case, in base64. Random data has 16 %, 41 % and 41 %. Words and
#: names of files have hardly any digits or capitals.
_DIGITS_SHARE = 0.03
_CASE_SHARE = 0.1


def without_data_uris(text: str) -> str:
    """Return a text whose encoded data is replaced with `[image]` or `[data]`. Its number of lines is unchanged."""
    if "data:" in text or "DATA:" in text:
        text = _DATA_URI.sub(_media_placeholder, text)
    text = _RUN.sub(_run_placeholder, text)
    return _LINES.sub(_lines_placeholder, text)


def _media_placeholder(found: re.Match[str]) -> str:
    return IMAGE if found[1].lower() == "image" else DATA


def _run_placeholder(found: re.Match[str]) -> str:
    return DATA if _is_data(found[0]) else found[0]


def _lines_placeholder(found: re.Match[str]) -> str:
    if not _is_base64(found[0]):
        return found[0]
    return found["indent"] + DATA + "\n" * found[0].count("\n")


def _is_data(run: str) -> bool:
    run = run.rstrip("=")
    return bool(_HEXADECIMAL.fullmatch(run) or _ANY_DATA.fullmatch(run)) or _is_base64(run)


def _is_base64(run: str) -> bool:
    """Return whether digits, capitals and small letters are mixed as in encoded data."""
    digits = capitals = small = 0
    for character in run:
        if character.isdigit():
            digits += 1
        elif character.isupper():
            capitals += 1
        elif character.islower():
            small += 1
    share = len(run) * _CASE_SHARE
    return digits >= len(run) * _DIGITS_SHARE and capitals >= share and small >= share
