"""Hashes of all rows of a collection, for comparisons of two collections."""

import hashlib


def row_hashes(store):
    """Return the hash of each row and its vector, by id. The store is opened, and closed."""
    store.open()
    rows = {}
    for some in store.read():
        for fields, vector in zip(some.fields, some.vectors, strict=True):
            rows[fields["id"]] = hashlib.sha256(repr(sorted(fields.items())).encode() + vector.tobytes()).hexdigest()
    assert len(rows) == store.count
    store.close()
    return rows
