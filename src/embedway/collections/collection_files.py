"""Files and folders of collections, which are not read as documents of a folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

from embedway.collections.rejects import is_rejects_file
from embedway.collections.stores.records import SPACE_KEY, sidecar_path
from embedway.files import open_regular

_SIDECAR = ".embedway.json"
_LANCE = ".lance"
#: Database of a folder of Chroma, beside one folder with a UUID as its name for each index.
_CHROMA_DATABASE = "chroma.sqlite3"
_CHROMA_INDEX = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: The last bytes of a Parquet file: the length of its footer, and a mark. A longer footer is not searched.
_PARQUET_END, _PARQUET_MARK = 8, b"PAR1"
_MAX_FOOTER_BYTES = 1 << 24
#: Beginning of a line that embedway writes; ids are short, so the bytes read from a file suffice.
_TEXT = rb'"(?:[^"\\]|\\.)*+"'
_LINE = re.compile(
    rb'\{"id":%b,"document_id":%b,"source":%b,"number":\d+,"total":\d+,"fingerprint":"[0-9a-f]*","start_line":'
    % (_TEXT, _TEXT, _TEXT)
)
_HEAD_BYTES = 1 << 16


def is_collection_folder(name: str, beside: frozenset[str]) -> bool:
    """Return whether a folder contains a table of LanceDB or an index of Chroma; `beside` are the names beside it."""
    return name.endswith(_LANCE) or (_CHROMA_DATABASE in beside and bool(_CHROMA_INDEX.fullmatch(name)))


def is_collection_name(name: str) -> bool:
    """Return whether a file is part of a collection by its name alone."""
    return name == _CHROMA_DATABASE or name.endswith(_SIDECAR)


def is_collection_file(path: str) -> bool:
    """Return whether a regular file is a collection, or lists the rejected rows of one. Raises nothing."""
    name = os.path.basename(path).lower()  # noqa: PTH119  a Path for each of many files takes long
    if name.endswith(".parquet"):
        return SPACE_KEY.encode() in _footer(path)
    if name.endswith(".jsonl"):
        found = Path(path)
        return os.path.lexists(sidecar_path(found)) or bool(_LINE.match(_head(path))) or is_rejects_file(found)
    return False


def _head(path: str) -> bytes:
    try:
        with os.fdopen(open_regular(Path(path)), "rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError:
        return b""  # the reader tells it


def _footer(path: str) -> bytes:
    """Return the footer of a Parquet file, with its metadata; nothing for another file."""
    try:
        with os.fdopen(open_regular(Path(path)), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _PARQUET_END))
            end = file.read(_PARQUET_END)
            length = int.from_bytes(end[:4], "little")
            if not end.endswith(_PARQUET_MARK) or length > min(size, _MAX_FOOTER_BYTES):
                return b""
            file.seek(max(0, size - _PARQUET_END - length))
            return file.read(length)
    except OSError:
        return b""
