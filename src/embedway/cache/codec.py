"""Cache entries as bytes: a fixed header and the numbers, little-endian. Nothing is ever unpickled.

::

    offset 0   2  magic `eW`
           2   1  version 2
           3   1  codec: 1 f32, 2 f16, 3 i8 with one scale per vector; plus 128 if the numbers are compressed with zstd
           4   4  dimension
           8   4  tokens of the text as sent, special tokens included
          12   1  0 not truncated, 1 truncated, 2 averaged
          13   3  zeros
          16   4  truncated: tokens kept; averaged: windows
          20   4  truncated: characters kept
          24   4  truncated: characters lost
          28   4  truncated: tokens lost, 2**32 - 1 if not counted
          32   8  xxh3 of everything before and after this field, and of the entry's key
          40      numbers

If a secret is set, entries have version 3: the same up to offset 32, then

::

          32  16  keyed BLAKE2b of the group, the entry's name, and everything before and after this field
          48      numbers

An entry that differs from this format in any byte is damaged: a miss. So is an entry stored under another key, because
the index of a store may be damaged too. Entries of version 2 are misses if a secret is set, and entries of version 3
are misses if no secret is set.

Settings no longer allow i8 with zstd, because the entries do not get smaller. Such entries of older versions are read.
"""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import xxhash

from embedway.cache.secret_keys import MAC_BYTES
from embedway.errors import RuntimeUnavailableError
from embedway.types import CodecName, TextMeta, Truncation

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from embedway.cache.secret_keys import Mac
    from embedway.types import Vectors

CODECS: tuple[CodecName, ...] = get_args(CodecName)

_HEADER = struct.Struct("<2sBBIIB3sIIII")
_CHECKSUM = struct.Struct("<Q")
HEADER_BYTES = _HEADER.size + _CHECKSUM.size
KEYED_HEADER_BYTES = _HEADER.size + MAC_BYTES
_MAGIC, _VERSION, _KEYED_VERSION, _ZEROS = b"eW", 2, 3, b"\0\0\0"
_CODEC_NUMBERS: dict[CodecName, int] = {"f32": 1, "f16": 2, "i8": 3}
_CODEC_NAMES: dict[int, CodecName] = {number: name for name, number in _CODEC_NUMBERS.items()}
_COMPRESSED = 128
_NOT_COUNTED = 2**32 - 1
#: Maximum width of any model. A header with a larger width is damaged, and nothing is allocated for it.
_MAX_DIMENSIONS = 65_536
_WHOLE, _CUT, _AVERAGED = 0, 1, 2
_F4 = np.dtype("<f4")
#: A lossy codec changes the length of a normalized vector by a few hundredths. Vectors beyond these bounds are damaged.
_SHORTEST, _LONGEST = 0.5, 2.0


@functools.cache
def max_entry_bytes(dimensions: int) -> int:
    """Return the maximum entry size in bytes. zstd makes an incompressible body slightly longer."""
    return KEYED_HEADER_BYTES + 4 * dimensions + dimensions // 16 + 1024


#: Maximum entry size of any model, in bytes.
MAX_ENTRY_BYTES = max_entry_bytes(_MAX_DIMENSIONS)


def encode(
    keys: Sequence[bytes],
    vectors: Vectors,
    metas: Sequence[TextMeta],
    codec: CodecName = "f32",
    *,
    zstd: bool = False,
    mac: Mac | None = None,
) -> list[bytes]:
    """Encode rows, float32 (n, d), as entries for the given keys. A vector that a lossy codec cannot store is f32.

    With `mac`, entries have version 3 and its checksums. Raises RuntimeUnavailableError if zstd is requested but not
    installed.
    """
    compress = import_zstd().ZstdCompressor(level=3).compress if zstd else None
    version = _VERSION if mac is None else _KEYED_VERSION
    entries = []
    for key, (name, body), meta in zip(keys, _encode_bodies(vectors, codec), metas, strict=True):
        packed = compress(body) if compress else body
        number = _CODEC_NUMBERS[name] + (_COMPRESSED if compress else 0)
        head = _HEADER.pack(_MAGIC, version, number, vectors.shape[1], *_pack_meta(meta))
        checksum = _CHECKSUM.pack(_compute_checksum(key, head, packed)) if mac is None else mac(key, head, packed)
        entries.append(head + checksum + packed)
    return entries


def re_sign(entry: bytes, key: bytes, mac: Mac) -> bytes:
    """Re-sign a valid entry of version 3 with the checksum of another secret; `key` is its key under that secret."""
    head, body = entry[: _HEADER.size], entry[KEYED_HEADER_BYTES:]
    return head + mac(key, head, body) + body


def decode(
    keys: Sequence[bytes],
    entries: Sequence[bytes | None],
    dimensions: int,
    out: Vectors,
    *,
    normalized: bool = False,
    mac: Mac | None = None,
) -> list[TextMeta | None]:
    """Decode entries into rows of `out`, float32 (n, d), and return the facts of each text.

    The result is None and the row unchanged if an entry is missing or damaged, or has another key or dimension. With
    `normalized`, vectors of lossy entries are scaled to length 1. With `mac`, only entries that it signed are read;
    without it, only entries without a secret. The numbers are not checked: they may be NaN, or of any length.
    """
    body_at = HEADER_BYTES if mac is None else KEYED_HEADER_BYTES
    plain_bytes, max_bytes = body_at + 4 * dimensions, max_entry_bytes(dimensions)
    if len(entries) > 1 and all(entry is not None and len(entry) == plain_bytes for entry in entries):
        tokens_of = _decode_uniform(keys, entries, dimensions, out, mac)
        if tokens_of is not None:
            return [_meta_of_whole_text(tokens) for tokens in tokens_of]
    metas: list[TextMeta | None] = []
    lossy: list[int] = []
    version = _VERSION if mac is None else _KEYED_VERSION
    unpack, frombuffer = _HEADER.unpack_from, np.frombuffer
    for row, (key, entry) in enumerate(zip(keys, entries, strict=True)):
        if entry is None or not body_at <= len(entry) <= max_bytes:
            metas.append(None)
            continue
        magic, written, number, width, tokens, kind, zeros, *fields = unpack(entry)
        good = (magic, written, zeros, width) == (_MAGIC, version, _ZEROS, dimensions) and kind <= _AVERAGED
        if not good or not _checksum_matches(key, entry, mac):
            metas.append(None)
            continue
        if number == 1 and len(entry) == plain_bytes:
            out[row] = frombuffer(entry, _F4, dimensions, body_at)
        else:
            vector = _decode_body(memoryview(entry)[body_at:], number, dimensions)
            if vector is None:
                metas.append(None)
                continue
            out[row] = vector
            if number & ~_COMPRESSED != _CODEC_NUMBERS["f32"]:
                lossy.append(row)
        metas.append(_unpack_meta(tokens, kind, fields, _CODEC_NAMES[number & ~_COMPRESSED]))
    if lossy and normalized:
        _renormalize(lossy, out)
    return metas


def _renormalize(rows: list[int], out: Vectors) -> None:
    """Divide lossy rows by their lengths. A row far from length 1 is unchanged, and is rejected later."""
    lossy = out[rows]
    with np.errstate(all="ignore"):  # stored numbers may have any value
        lengths = np.linalg.norm(lossy, axis=1, keepdims=True)
        near = (lengths >= _SHORTEST) & (lengths <= _LONGEST)
        out[rows] = lossy / np.where(near, lengths, 1)


def _checksum_matches(key: bytes, entry: bytes, mac: Mac | None) -> bool:
    """Return whether the checksum of an entry is correct."""
    if mac is not None:
        head, checksum = entry[: _HEADER.size], entry[_HEADER.size : KEYED_HEADER_BYTES]
        return mac.verify(key, head, entry[KEYED_HEADER_BYTES:], checksum)
    seed = xxhash.xxh3_64_intdigest(key + entry[: _HEADER.size])
    stored: int = _CHECKSUM.unpack_from(entry, _HEADER.size)[0]
    return stored == xxhash.xxh3_64_intdigest(entry[HEADER_BYTES:], seed)


def _decode_uniform(
    keys: Sequence[bytes], entries: Sequence[bytes | None], dimensions: int, out: Vectors, mac: Mac | None
) -> list[int] | None:
    """Decode all entries at once; None unless all exist, are valid, uncompressed f32, and of untruncated texts."""
    given = [entry for entry in entries if entry is not None]
    version = _VERSION if mac is None else _KEYED_VERSION
    start = struct.pack("<2sBBI", _MAGIC, version, _CODEC_NUMBERS["f32"], dimensions)
    rows = np.frombuffer(b"".join(given), np.uint8).reshape(len(given), -1)
    if any(not entry.startswith(start) for entry in given) or rows[:, len(start) + 4 : _HEADER.size].any():
        return None
    if mac is not None:
        if not all(_checksum_matches(key, entry, mac) for key, entry in zip(keys, given, strict=True)):
            return None
    elif not _checksums_match(keys, given, rows):
        return None
    out[: len(given)] = rows[:, -4 * dimensions :].view("<f4")
    tokens: list[int] = rows[:, len(start) : len(start) + 4].view("<u4")[:, 0].tolist()
    return tokens


def _checksums_match(keys: Sequence[bytes], entries: Sequence[bytes], rows: npt.NDArray[np.uint8]) -> bool:
    """Return whether the checksums of all entries without a secret are correct; `rows` contains their bytes."""
    checksum = xxhash.xxh3_64_intdigest
    pairs = zip(keys, entries, strict=True)
    sums = np.array(
        [checksum(entry[HEADER_BYTES:], checksum(key + entry[: _HEADER.size])) for key, entry in pairs], np.uint64
    )
    return bool((rows[:, _HEADER.size : HEADER_BYTES].view("<u8")[:, 0] == sums).all())


@functools.lru_cache(maxsize=4096)
def _meta_of_whole_text(tokens: int) -> TextMeta:
    """Return the facts of an untruncated text; texts with the same number of tokens share one object."""
    return TextMeta(tokens)


def _decode_body(body: memoryview, number: int, dimensions: int) -> Any:
    """Return the numbers of a body of any codec; None if its length is wrong."""
    name = _CODEC_NAMES.get(number & ~_COMPRESSED)
    if name is None or dimensions > _MAX_DIMENSIONS:
        return None
    wanted = {"f32": 4 * dimensions, "f16": 2 * dimensions, "i8": 4 + dimensions}[name]
    if number & _COMPRESSED:
        body = _decompress(body, wanted)
    if len(body) != wanted:
        return None
    if name == "f32":
        return np.frombuffer(body, "<f4")
    with np.errstate(all="ignore"):  # stored numbers may have any value
        if name == "f16":
            return np.frombuffer(body, "<f2").astype(np.float32)
        (scale,) = struct.unpack_from("<f", body)
        return np.frombuffer(body, np.int8, dimensions, 4).astype(np.float32) * np.float32(scale)


def _decompress(body: memoryview, wanted: int) -> memoryview:
    """Return the decompressed body; empty if its length is wrong or it cannot be decompressed."""
    try:
        library = import_zstd()
    except RuntimeUnavailableError:
        return memoryview(b"")  # written by another process that has zstd
    try:
        # Check before allocating: a few bytes can claim to contain gigabytes.
        if library.frame_content_size(body) != wanted:
            return memoryview(b"")
        return memoryview(library.ZstdDecompressor().decompress(body))
    except library.ZstdError:
        return memoryview(b"")


@np.errstate(all="ignore")  # numbers that do not fit are detected
def _encode_bodies(vectors: Vectors, codec: CodecName) -> list[tuple[CodecName, bytes]]:
    """Return the bytes of each row's numbers, and their codec."""
    exact: list[tuple[CodecName, bytes]] = [("f32", row.tobytes()) for row in np.ascontiguousarray(vectors, "<f4")]
    if codec == "f32":
        return exact
    if codec == "f16":
        halves = vectors.astype("<f2")
        bodies = [row.tobytes() for row in halves]
        fits = np.isfinite(halves).all(axis=1) & halves.any(axis=1)
    else:
        scales = np.maximum(np.abs(vectors).max(axis=1), 1e-30) / 127
        fits = np.isfinite(scales) & vectors.any(axis=1)
        rounded = np.rint(np.where(fits[:, None], vectors, 0) / np.where(fits, scales, 1)[:, None]).astype(np.int8)
        bodies = [struct.pack("<f", scale) + row.tobytes() for scale, row in zip(scales, rounded, strict=True)]
    return [(codec, body) if good else whole for body, good, whole in zip(bodies, fits, exact, strict=True)]


def _compute_checksum(key: bytes, head: bytes, body: bytes) -> int:
    return xxhash.xxh3_64_intdigest(body, xxhash.xxh3_64_intdigest(key + head))


def _pack_meta(meta: TextMeta) -> tuple[int, int, bytes, int, int, int, int]:
    cut = meta.truncation
    if cut is not None:
        lost = _NOT_COUNTED if cut.lost_tokens is None else cut.lost_tokens
        return (meta.tokens, _CUT, _ZEROS, cut.kept_tokens, cut.kept_characters, cut.lost_characters, lost)
    return (meta.tokens, _AVERAGED if meta.windows else _WHOLE, _ZEROS, meta.windows, 0, 0, 0)


def _unpack_meta(tokens: int, kind: int, fields: Sequence[int], codec: CodecName) -> TextMeta:
    if kind == _WHOLE and codec == "f32":
        return _meta_of_whole_text(tokens)
    if kind == _CUT:
        lost = None if fields[3] == _NOT_COUNTED else fields[3]
        return TextMeta(tokens, Truncation(0, fields[0], fields[1], fields[2], lost), codec=codec)
    return TextMeta(tokens, None, fields[0] if kind == _AVERAGED else 0, codec)


def import_zstd() -> Any:
    """Return the zstandard library. Raises RuntimeUnavailableError if it is not installed."""
    try:
        import zstandard  # noqa: PLC0415  an extra
    except ImportError:
        raise RuntimeUnavailableError("cache.zstd needs a library: pip install 'embedway[zstd]'") from None
    return zstandard
