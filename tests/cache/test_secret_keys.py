"""Keyed entries: only holders of the secret can read them."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedway.cache.base import Group
from embedway.cache.codec import HEADER_BYTES, KEYED_HEADER_BYTES, decode, encode, re_sign
from embedway.cache.key import KEY_BYTES
from embedway.cache.secret_keys import SecretKeys
from embedway.types import TextMeta, Truncation

SECRET, OTHER = "correct-horse-battery-staple", "another-horse-battery-staple"
GROUP = Group("m", "m@1/4")
KEYS = [bytes([n]) * KEY_BYTES for n in range(64)]
MAC = SecretKeys(SECRET).mac(GROUP)
METAS = st.one_of(
    st.builds(TextMeta, st.integers(0, 2**31)),
    st.builds(TextMeta, st.integers(0, 2**31), st.none(), st.integers(1, 10_000)),
    st.builds(TextMeta, st.just(9), st.just(Truncation(0, 4, 3, 2, None))),
)
CODECS = st.sampled_from(["f32", "f16", "i8"])


def normalized(count, width, seed=1):
    vectors = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def read(keys, entries, width, **options):
    """Return the facts and vectors of each entry; rows of misses stay unchanged."""
    out = np.full((len(keys), width), 7, np.float32)
    metas = decode(keys, entries, width, out, normalized=True, **options)
    assert all((out[row] == 7).all() for row, meta in enumerate(metas) if meta is None)
    return metas, out


@given(st.lists(METAS, min_size=1, max_size=5), st.integers(1, 70), CODECS, st.booleans(), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_entries_with_and_without_a_secret_hold_the_same(metas, width, codec, zstd, seed):
    vectors, keys = normalized(len(metas), width, seed), KEYS[: len(metas)]
    plain = encode(keys, vectors, metas, codec, zstd=zstd)
    keyed = encode(keys, vectors, metas, codec, zstd=zstd, mac=MAC)
    told, found = read(keys, keyed, width, mac=MAC)
    wanted, expected = read(keys, plain, width)
    assert told == wanted
    np.testing.assert_array_equal(found, expected)
    for one, other in zip(plain, keyed, strict=True):
        assert (one[2], other[2]) == (2, 3)
        assert (one[:2], one[3:32], one[HEADER_BYTES:]) == (other[:2], other[3:32], other[KEYED_HEADER_BYTES:])
    # Neither is valid as the other.
    assert read(keys, plain, width, mac=MAC)[0] == read(keys, keyed, width)[0] == [None] * len(metas)


@given(st.data())
@settings(deadline=None)
def test_a_keyed_entry_with_any_byte_changed_is_a_miss(data):
    count = data.draw(st.integers(1, 3))
    codec, zstd = data.draw(CODECS), data.draw(st.booleans())
    entries = encode(KEYS[:count], normalized(count, 6), [TextMeta(3)] * count, codec, zstd=zstd, mac=MAC)
    row = data.draw(st.integers(0, count - 1))
    bad = bytearray(entries[row])
    bad[data.draw(st.integers(0, len(bad) - 1))] ^= data.draw(st.integers(1, 255))
    entries[row] = bytes(bad)
    metas, _ = read(KEYS[:count], entries, 6, mac=MAC)
    assert [meta is None for meta in metas] == [place == row for place in range(count)]


@given(st.data())
@settings(deadline=None)
def test_another_key_group_or_secret_is_a_miss(data):
    count, codec = data.draw(st.integers(1, 3)), data.draw(CODECS)
    facts = data.draw(st.tuples(*(st.sampled_from(["m", "n", "", "m@1/4"]),) * 3))
    shift = data.draw(st.integers(0, 2))
    secret = data.draw(st.sampled_from([SECRET, OTHER, SECRET + " ", SECRET.upper()]))
    entries = encode(KEYS[:count], normalized(count, 6), [TextMeta(3)] * count, codec, mac=MAC)
    metas, _ = read(KEYS[shift : count + shift], entries, 6, mac=SecretKeys(secret).mac(Group(*facts)))
    same = (Group(*facts), shift, secret) == (GROUP, 0, SECRET)
    assert [meta is not None for meta in metas] == [same] * count


@pytest.mark.parametrize("mac", [None, MAC], ids=["plain", "keyed"])
@pytest.mark.parametrize("codec", ["f32", "f16", "i8"])
@pytest.mark.parametrize("zstd", [False, True])
def test_every_length_but_its_own_is_a_miss(mac, codec, zstd):
    key = KEYS[:1]
    (entry,) = encode(key, normalized(1, 6), [TextMeta(3)], codec, zstd=zstd, mac=mac)
    assert read(key, [entry], 6, mac=mac)[0] != [None]
    assert all(read(key, [entry[:size]], 6, mac=mac)[0] == [None] for size in range(len(entry)))
    assert read(key, [entry + b"\0"], 6, mac=mac)[0] == [None]
    assert read(key, [entry], 5, mac=mac)[0] == [None]


@given(st.binary(max_size=150))
def test_noise_is_a_miss_under_a_secret_too(noise):
    assert read(KEYS[:2], [noise, b"eW\3" + noise], 6, mac=MAC)[0] == [None, None]


@given(CODECS, st.booleans())
@settings(deadline=None)
def test_an_entry_that_is_signed_again_belongs_to_the_other_secret(codec, zstd):
    vectors, old, new = normalized(2, 6), SecretKeys(OTHER), SecretKeys(SECRET)
    before, after = old.entry_names(KEYS[:2]), new.entry_names(KEYS[:2])
    entries = encode(before, vectors, [TextMeta(3)] * 2, codec, zstd=zstd, mac=old.mac(GROUP))
    signed = [re_sign(entry, name, MAC) for entry, name in zip(entries, after, strict=True)]
    assert read(before, signed, 6, mac=old.mac(GROUP))[0] == [None] * 2
    told, found = read(after, signed, 6, mac=MAC)
    wanted, expected = read(before, entries, 6, mac=old.mac(GROUP))
    assert told == wanted
    np.testing.assert_array_equal(found, expected)


def test_names_are_each_secret_s_own():
    seals = [SecretKeys(SECRET), SecretKeys(OTHER)]
    names = [name for seal in seals for name in seal.entry_names(KEYS)]
    assert len({*names, *KEYS}) == 3 * len(KEYS)
    assert {len(name) for name in names} == {32}
    assert seals[0].entry_names(KEYS) == SecretKeys(SECRET).entry_names(KEYS)


def test_checksums_and_names_are_the_same_in_every_version():
    """Computed by hand. Another result would make all existing keyed caches useless."""
    mac_key = hashlib.blake2b(SECRET.encode(), person=b"embedway.mac.v1").digest()
    name_key = hashlib.blake2b(SECRET.encode(), person=b"embedway.name.v1").digest()
    facts = json.dumps(["m", "m@1/4", ""]).encode()
    group = hashlib.blake2b(facts, digest_size=32, person=b"embedway.group").digest()
    (entry,) = encode(KEYS[:1], np.ones((1, 4), np.float32), [TextMeta(3)], mac=MAC)
    message = group + KEYS[0] + entry[:32] + np.ones(4, "<f4").tobytes()
    checksum = hashlib.blake2b(message, digest_size=16, key=mac_key, person=b"embedway.entry.3").digest()
    assert entry[32:48] == checksum
    assert SecretKeys(SECRET).entry_names(KEYS[:1]) == [hashlib.blake2b(KEYS[0], digest_size=32, key=name_key).digest()]


def test_a_seal_shows_no_secret():
    for shown in (repr(SecretKeys(SECRET)), repr(MAC), str(SecretKeys.__slots__)):
        assert SECRET not in shown
    with pytest.raises(TypeError):
        vars(SecretKeys(SECRET))
