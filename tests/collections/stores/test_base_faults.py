"""Collections of other programs, and damaged ones: every error is ours, and no vector belongs to another row."""

import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedway.collections.documents import ByteCounter, ReadOptions
from embedway.collections.readers import find_sources, read_files
from embedway.collections.stores import open_store
from embedway.collections.stores.records import sidecar_path
from embedway.errors import EmbedwayError, SinkError

GOOD = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
LISTS = pa.list_(pa.float32())
#: Names, vectors of three rows, of which the second is invalid, and the error.
BAD_ROWS = {
    "null": (pa.array([GOOD, None, GOOD], LISTS), "row 2 is missing"),
    "null in a list of fixed size": (pa.array([GOOD, None, GOOD], pa.list_(pa.float32(), 6)), "row 2 is missing"),
    "short": (pa.array([GOOD, GOOD[:5], GOOD], LISTS), "row 2 does not have 6 numbers"),
    "ragged": (pa.array([GOOD, GOOD[:5], [*GOOD, 7.0]], LISTS), "row 2 does not have 6 numbers"),
    "empty": (pa.array([GOOD, [], GOOD], LISTS), "row 2 does not have 6 numbers"),
    "a missing number": (pa.array([GOOD, [None, *GOOD[1:]], GOOD], LISTS), "row 2 has a number that is missing"),
    "NaN": (pa.array([GOOD, [float("nan"), *GOOD[1:]], GOOD], LISTS), "row 2 has a number"),
    "infinite": (pa.array([GOOD, [float("inf"), *GOOD[1:]], GOOD], LISTS), "row 2 has a number"),
    "too large": (pa.array([GOOD, [1e300, *GOOD[1:]], GOOD], pa.list_(pa.float64())), "row 2 has a number"),
    "strings": (pa.array([["1"] * 6] * 3), "'vector' must contain lists of 6 floating-point numbers, not list<"),
    "booleans": (pa.array([[True] * 6] * 3), "'vector' must contain lists of 6"),
    "integers": (pa.array([[1] * 6] * 3), "'vector' must contain lists of 6"),
    "decimals": (pa.array([[1] * 6] * 3, pa.list_(pa.decimal128(5, 2))), "'vector' must contain lists of 6"),
    "nested": (pa.array([[[1.0] * 6]] * 3), "'vector' must contain lists of 6"),
    "no list": (pa.array([1.0, 2.0, 3.0]), "'vector' must contain lists of 6"),
    "another size": (pa.array([GOOD[:5]] * 3, pa.list_(pa.float32(), 5)), "'vector' must contain lists of 6"),
}
GOOD_TYPES = [
    pa.list_(pa.float16()),
    pa.list_(pa.float64()),
    pa.large_list(pa.float32()),
    pa.list_(pa.float32(), 6),
]


@pytest.fixture
def parquet(tmp_path, write):
    """Return the path of a collection of three rows, and a function that replaces or adds a column."""
    path = tmp_path / "out.parquet"
    write(str(path), (3,))

    def change(name, column):
        table = pq.read_table(path)
        at = table.schema.get_field_index(name)
        table = table.append_column(name, column) if at < 0 else table.set_column(at, name, column)
        pq.write_table(table, path)

    return path, change


@pytest.mark.parametrize(("column", "reason"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_an_invalid_vector_is_named(parquet, column, reason):
    path, change = parquet
    change("vector", column)
    for use in (lambda store: store.search(np.ones(6, np.float32), 3), lambda store: list(store.read())):
        with pytest.raises(SinkError) as caught:
            use(open_store(str(path)))
        assert str(path) in str(caught.value)
        assert reason in str(caught.value)


@pytest.mark.parametrize("kind", GOOD_TYPES, ids=str)
def test_other_lists_of_floating_point_numbers_are_read(parquet, kind):
    path, change = parquet
    vectors = [GOOD, [-number for number in GOOD], GOOD[::-1]]
    values = np.array(vectors, np.float16) if kind.value_type == pa.float16() else vectors
    change("vector", pa.chunked_array([pa.array(list(values[:1]), kind), pa.array(list(values[1:]), kind)]))
    hit = open_store(str(path)).search(np.array(vectors[1], np.float32), 1)[0]
    assert (hit.id, hit.score) == ("d1#0", pytest.approx(1.0))
    assert np.array_equal(np.concatenate([rows.vectors for rows in open_store(str(path)).read()]), vectors)


@pytest.mark.parametrize(
    ("name", "column", "reason"),
    [
        ("text", pa.array([1, 2, 3]), "'text' must contain strings, not int64"),
        ("start_line", pa.array(["1", "2", "3"]), "'start_line' must contain integers, not string"),
        ("text", pa.array(["a", None, "c"]), "row 2: 'text' is missing"),
        ("id", pa.array([b"a", b"\xff", b"c"], pa.binary()).view(pa.string()), "failed: UnicodeDecodeError"),
    ],
)
def test_an_invalid_column_is_named(parquet, name, column, reason):
    path, change = parquet
    change(name, column)
    with pytest.raises(SinkError, match=reason):
        open_store(str(path)).search(np.ones(6, np.float32), 3)


def test_columns_that_are_missing_or_occur_twice(parquet):
    path, _ = parquet
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["source"]), path)
    with pytest.raises(SinkError, match="has 0 columns named 'source'"):
        open_store(str(path))
    pq.write_table(table.append_column("text", pa.array(["a"] * 3)), path)
    with pytest.raises(SinkError, match="has 2 columns named 'text'"):
        open_store(str(path))


@pytest.mark.parametrize(
    "record",
    [b"", b"{", b"[1]", b"\xff", b"[" * 100_000, b"1" * 5000, b'{"dimensions": true}', b'{"version": 1e400}'],
)
@pytest.mark.parametrize("key", [b"embedway.space", b"embedway.format"])
def test_a_foreign_record(parquet, key, record):
    path, _ = parquet
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, key: record}), path)
    with pytest.raises(SinkError):
        open_store(str(path))


@pytest.mark.parametrize(
    "vector",
    [
        '["1","2","3","4","5","6"]',
        "[true,1,2,3,4,5]",
        "[null,1,2,3,4,5]",
        "[[1],1,2,3,4,5]",
        "[NaN,1,2,3,4,5]",
        "[Infinity,1,2,3,4,5]",
        "[1e300,1,2,3,4,5]",
        "[1" + "0" * 400 + ",1,2,3,4,5]",
        '"123456"',
        '{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1}',
        "[1,2]",
        "[]",
        "null",
        "[" * 100000,
        "[1" + "0" * 5000 + "]",
    ],
)
def test_an_invalid_vector_of_a_line_is_named(tmp_path, write, vector):
    path = tmp_path / "out.jsonl"
    write(str(path), (3,))
    lines = path.read_text().split("\n")
    lines[1] = lines[1][: lines[1].index('"vector":')] + f'"vector":{vector}}}'
    path.write_text("\n".join(lines))
    sidecar = json.loads(sidecar_path(path).read_text())
    sidecar["collections"][0]["bytes"] = path.stat().st_size
    sidecar_path(path).write_text(json.dumps(sidecar))
    with pytest.raises(SinkError, match="line 2"):
        open_store(str(path)).search(np.ones(6, np.float32), 3)


def test_a_line_without_a_column_is_named(tmp_path, write):
    path = tmp_path / "out.jsonl"
    write(str(path), (3,))
    path.write_bytes(path.read_bytes().replace(b'"title"', b'"tiXle"', 1))
    with pytest.raises(SinkError, match="row 1: 'title' is missing"):
        open_store(str(path)).search(np.ones(6, np.float32), 3)


def test_a_lancedb_table_with_other_columns(tmp_path, write):
    import lancedb

    destination = f"lancedb:{tmp_path}#rows"
    write(destination, (3,))
    table = lancedb.connect(str(tmp_path)).open_table("rows").to_arrow()
    metadata = table.schema.metadata
    for name, column in (("vector", pa.array([[1.0] * 3] * 3, pa.list_(pa.float32(), 3))), ("text", pa.array([1] * 3))):
        other = table.set_column(table.schema.get_field_index(name), name, column).replace_schema_metadata(metadata)
        lancedb.connect(str(tmp_path)).create_table("other", other, mode="overwrite")
        with pytest.raises(SinkError, match=f"'{name}' must contain"):
            open_store(f"lancedb:{tmp_path}#other")


def mutated(data, chances):
    """Return data with some bytes replaced, removed or repeated."""
    data = bytearray(data)
    for _ in range(chances.randint(1, 4)):
        if not data:
            break
        at = chances.randrange(len(data))
        match chances.randrange(4):
            case 0:
                data[at] ^= 1 << chances.randrange(8)
            case 1:
                data[at] = chances.choice(b'\x00\xff"[{}],:\n\\09-')
            case 2:
                del data[at : at + chances.randint(1, 40)]
            case 3:
                data[at:at] = data[at : at + chances.randint(1, 40)]
    return bytes(data)


def read_everything(path):
    """Read a file as a collection and as a source; raise anything that is not our error."""
    store = None
    try:
        store = open_store(str(path))
        list(store.documents())
        store.fetch(["d0#0", "x"])
        for _ in range(2):
            store.search(np.ones(store.space.dimensions, np.float32), 2)
        list(store.read())
        store.begin_update(store.record)
        store.remove({("a/b.md", "d1")})
        store.commit()
    except EmbedwayError:
        if store is not None:
            store.abort()
    options = ReadOptions(keep=("topic",))
    try:
        files = find_sources([str(path)], options)
        for document in read_files(files, options, on_bad_row=lambda fault: None, counter=ByteCounter()):
            document.text.encode()
    except EmbedwayError:
        pass


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
@pytest.mark.parametrize("seed", range(4))
def test_changed_bytes_raise_only_our_errors(tmp_path, write, form, seed):
    path = tmp_path / f"out.{form}"
    write(str(path), (3, 2))
    chances = random.Random(seed)
    originals = {one: one.read_bytes() for one in (path, sidecar_path(path)) if one.exists()}
    for _ in range(100):
        for one, data in originals.items():
            one.write_bytes(mutated(data, chances) if one == path or chances.random() < 0.3 else data)
        if form == "jsonl" and chances.random() < 0.7:
            # Most changes also change the size, which the sidecar must have.
            sidecar = json.loads(originals[sidecar_path(path)])
            sidecar["collections"][0]["bytes"] = path.stat().st_size
            sidecar_path(path).write_text(json.dumps(sidecar))
        read_everything(path)
