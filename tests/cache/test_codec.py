"""Keys never collide, and entries come back unchanged or not at all."""

import struct
import sys

import numpy as np
import pytest
import xxhash
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from embedway import Config
from embedway.cache.base import Group
from embedway.cache.codec import HEADER_BYTES, decode, encode
from embedway.cache.key import KEY_BYTES
from embedway.cache.secret_keys import SecretKeys
from embedway.errors import ConfigError
from embedway.types import TextMeta, Truncation

KEYS = [bytes([n]) * KEY_BYTES for n in range(64)]
METAS = st.one_of(
    st.builds(TextMeta, st.integers(0, 2**31)),
    st.builds(TextMeta, st.integers(0, 2**31), st.none(), st.integers(1, 10_000)),
    st.builds(
        TextMeta,
        st.integers(0, 2**31),
        st.builds(
            Truncation,
            st.just(0),
            st.integers(0, 2**31),
            st.integers(0, 2**31),
            st.integers(0, 2**31),
            st.none() | st.integers(0, 2**31),
        ),
    ),
)


@given(st.lists(METAS, min_size=1, max_size=5), st.integers(1, 70), st.booleans(), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_f32_comes_back_bit_exact_with_all_facts_of_its_text(metas, width, zstd, seed):
    vectors = np.random.default_rng(seed).standard_normal((len(metas), width)).astype(np.float32)
    out = np.empty_like(vectors)
    keys = KEYS[: len(metas)]
    assert decode(keys, encode(keys, vectors, metas, zstd=zstd), width, out) == metas
    np.testing.assert_array_equal(out.view(np.uint32), vectors.view(np.uint32))


@pytest.mark.parametrize(("codec", "lost", "bytes_"), [("f16", 1e-6, 1536), ("i8", 2e-4, 772)])
@pytest.mark.parametrize("zstd", [False, True])
def test_lossy_codecs_lose_little_and_take_less(codec, lost, bytes_, zstd):
    vectors = np.random.default_rng(3).standard_normal((50, 768)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    entries = encode(KEYS[:50], vectors, [TextMeta(1)] * 50, codec, zstd=zstd)
    out, normalized = np.empty_like(vectors), np.empty_like(vectors)
    assert decode(KEYS[:50], entries, 768, out) == [TextMeta(1, codec=codec)] * 50
    cosines = np.einsum("ij,ij->i", vectors, out) / np.linalg.norm(out, axis=1)
    assert 1 - cosines.min() < lost
    decode(KEYS[:50], entries, 768, normalized, normalized=True)
    np.testing.assert_allclose(np.linalg.norm(normalized, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(normalized, out, atol=1e-3)
    assert zstd or {len(entry) for entry in entries} == {HEADER_BYTES + bytes_}


@given(st.data())
@settings(deadline=None)
def test_an_entry_with_any_byte_changed_is_a_miss(data):
    codec = data.draw(st.sampled_from(["f32", "f16", "i8"]))
    (entry,) = encode(KEYS[:1], np.ones((1, 6), np.float32), [TextMeta(3)], codec, zstd=data.draw(st.booleans()))
    place, flip = data.draw(st.integers(0, len(entry) - 1)), data.draw(st.integers(1, 255))
    bad = bytearray(entry)
    bad[place] ^= flip
    out = np.full((1, 6), 7, np.float32)
    assert decode(KEYS[:1], [bytes(bad)], 6, out) == [None]
    assert (out == 7).all()


@given(st.binary(max_size=120))
def test_noise_is_a_miss(noise):
    assert decode(KEYS[:2], [noise, None], 6, np.empty((2, 6), np.float32)) == [None, None]


def test_an_entry_cut_short_or_of_another_width_is_a_miss():
    key = KEYS[:1]
    (entry,) = encode(key, np.ones((1, 6), np.float32), [TextMeta(3)])
    out = np.empty((1, 6), np.float32)
    assert all(decode(key, [entry[:size]], 6, out) == [None] for size in range(len(entry)))
    assert decode(key, [entry + b"\0"], 6, out) == [None]
    assert decode(key, [entry], 5, np.empty((1, 5), np.float32)) == [None]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("codec", ["f32", "f16", "i8"])
def test_an_entry_under_another_s_key_is_a_miss(codec, count):
    vectors = np.random.default_rng(5).standard_normal((count, 6)).astype(np.float32)
    entries = encode(KEYS[:count], vectors, [TextMeta(3)] * count, codec)
    out = np.full((count, 6), 7, np.float32)
    assert decode(KEYS[1 : count + 1], entries, 6, out) == [None] * count
    assert (out == 7).all()


@pytest.mark.parametrize(
    ("codec", "row", "exact"),
    [
        ("f16", [70_000, 1, 2], True),
        ("f16", [1e-9, 2e-9, 0], True),
        ("f16", [1, 2, 3], False),
        ("i8", [0, 0, 0], True),
        ("i8", [3e38, 1, -2], False),
    ],
)
def test_what_a_lossy_codec_cannot_hold_is_kept_exactly(codec, row, exact):
    vectors = np.array([row, [1, 0.5, 0.25]], np.float32)
    out = np.empty_like(vectors)
    first, second = decode(KEYS[:2], encode(KEYS[:2], vectors, [TextMeta(1)] * 2, codec), 3, out)
    assert (first.codec, second.codec) == ("f32" if exact else codec, codec)
    assert np.isfinite(out).all()
    if exact:
        np.testing.assert_array_equal(out[0], vectors[0])


def test_a_compressed_entry_is_a_miss_where_the_library_is_missing(monkeypatch):
    entries = encode(KEYS[:2], np.ones((2, 6), np.float32), [TextMeta(3)] * 2, zstd=True)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert decode(KEYS[:2], entries, 6, np.empty((2, 6), np.float32)) == [None, None]


def test_what_claims_to_hold_gigabytes_is_not_decompressed(monkeypatch):
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(200_000_000))
    (entry,) = encode(KEYS[:1], np.ones((1, 6), np.float32), [TextMeta(3)], zstd=True)
    head = entry[:32]
    forged = head + checksum(KEYS[0], head, bomb) + bomb
    monkeypatch.setattr(zstandard.ZstdDecompressor, "decompress", None)
    assert decode(KEYS[:1], [forged], 6, np.empty((1, 6), np.float32)) == [None]


#: Entries of codec i8, compressed with zstd: without a secret, and with one.
COMPRESSED_I8 = bytes.fromhex(
    "6557028306000000070000000000000000000000000000000000000000000000b7a35b900c4e30ae"
    "28b52ffd200a5100000402813b7f817f810000"
)
KEYED_COMPRESSED_I8 = bytes.fromhex(
    "6557038306000000070000000000000000000000000000000000000000000000945c354fc1d1a8557658c3bc5ebe818b"
    "28b52ffd200a5100000402813b7f817f810000"
)


@pytest.mark.parametrize("entry", [COMPRESSED_I8, KEYED_COMPRESSED_I8], ids=["plain", "keyed"])
def test_compressed_i8_entries_of_older_versions_are_read(entry):
    mac = SecretKeys("correct-horse-battery-staple").mac(Group("m", "m@1/4")) if entry[2] == 3 else None
    out = np.empty((1, 6), np.float32)
    assert decode([bytes(range(32))], [entry], 6, out, mac=mac) == [TextMeta(7, codec="i8")]
    np.testing.assert_allclose(out, [[0.5, -0.5, 0.5, -0.5, 0, 0]], atol=1e-6)


def test_i8_with_zstd_is_refused_with_what_to_change():
    with pytest.raises(ConfigError, match=r"cache: zstd must be false if codec is 'i8'.*still read"):
        Config.load(environ={}, overrides={"cache.codec": "i8", "cache.zstd": True})
    for codec, zstd in (("i8", False), ("f16", True), ("f32", True)):
        assert Config.load(environ={}, overrides={"cache.codec": codec, "cache.zstd": zstd}).cache.zstd is zstd


KINDS = ["good", "changed", "short", "missing", "f16", "wide", "of another version", "another's"]


def checksum(key, head, body):
    return struct.pack("<Q", xxhash.xxh3_64_intdigest(body, xxhash.xxh3_64_intdigest(key + head)))


def entry_of(key, kind, vector, meta, data):
    """Return a valid or invalid entry."""
    (entry,) = encode([key], np.zeros((1, 13), np.float32) if kind == "wide" else vector[None], [meta])
    if kind == "changed":
        place = data.draw(st.integers(0, len(entry) - 1))
        return entry[:place] + bytes([entry[place] ^ data.draw(st.integers(1, 255))]) + entry[place + 1 :]
    if kind == "short":
        return entry[: data.draw(st.integers(0, len(entry) - 1))]
    if kind == "f16":
        return encode([key], vector[None], [meta], "f16")[0]
    if kind == "another's":
        return encode([bytes(KEY_BYTES - 1) + b"x"], vector[None], [meta])[0]
    if kind == "of another version":
        head, body = entry[:2] + b"\1" + entry[3 : HEADER_BYTES - 8], entry[HEADER_BYTES:]
        return head + checksum(key, head, body) + body
    return None if kind == "missing" else entry


@given(st.lists(st.tuples(METAS, st.sampled_from(KINDS)), min_size=1, max_size=6), st.integers(0, 2**32 - 1), st.data())
@settings(deadline=None)
def test_entries_together_are_read_as_each_by_itself(kinds, seed, data):
    vectors = np.random.default_rng(seed).standard_normal((len(kinds), 12)).astype(np.float32)
    keys = KEYS[: len(kinds)]
    entries = [
        entry_of(key, kind, vector, meta, data) for key, vector, (meta, kind) in zip(keys, vectors, kinds, strict=True)
    ]
    together = np.full((len(kinds), 12), 7, np.float32)
    metas = decode(keys, entries, 12, together)
    for row, (entry, (meta, kind)) in enumerate(zip(entries, kinds, strict=True)):
        alone = np.full((1, 12), 7, np.float32)
        assert decode([keys[row]], [entry], 12, alone) == [metas[row]]
        if metas[row] is not None:
            np.testing.assert_array_equal(together[row], alone[0])
        if kind == "good":
            assert metas[row] == meta
            np.testing.assert_array_equal(together[row], vectors[row])
        elif kind != "f16":
            assert metas[row] is None


@pytest.mark.parametrize("codec", ["f32", "f16", "i8"])
def test_numpy_settings_of_the_caller_change_nothing(codec):
    vectors = np.array([[1.0, 1e-40, 1e-7, 0.0], [3e38, 1e30, -3e38, 1.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
    keys, metas = [bytes([n]) * KEY_BYTES for n in range(3)], [TextMeta(1)] * 3
    expected = encode(keys, vectors, metas, codec)
    with np.errstate(all="raise"):
        assert encode(keys, vectors, metas, codec) == expected
        decode(keys, expected, 4, np.empty((3, 4), np.float32), normalized=False)
