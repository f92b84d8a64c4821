"""JSON form of records."""

import json

import pytest

from embedway.collections.record import ChunkSettings, MadeBy, ReadRecord, Record, SourceRecord
from embedway.types import Space

SPACE = Space("tiny", "cd" * 32, 6, "mean", normalized=True)


def test_a_record_comes_back_from_its_json():
    record = Record(
        SPACE,
        ChunkSettings(chunk_tokens=64, overlap_tokens=8, context="{title}", max_tokens=256),
        {"year": "int", "tags": "list"},
        (SourceRecord("docs", "/a/docs"),),
        ReadRecord(include=("*.md",), encoding="latin-1", keep_types={"year": "int"}),
        MadeBy("1", "onnx", {"onnxruntime": "1.20"}, "cpu"),
        "float16",
        {"license": "MIT"},
        "ab12",
    )
    assert Record.from_json(json.loads(json.dumps(record.to_json())), SPACE) == record


@pytest.mark.parametrize(
    "change",
    [
        {"keep": {"x": "tensor"}},
        {"keep": ["x"]},
        {"vector_type": "float8"},
        {"vector_type": []},
        {"sources": [{"name": "docs"}]},
        {"chunking": {"chunk": 1}},
        {"reading": {"include": [1]}},
        {"reading": {"keep_types": {"x": "tensor"}}},
        {"reading": {"keep_types": ["x"]}},
        {"made_by": {"libraries": {"x": 1}}},
        {"revision": None},
        {"facts": []},
    ],
    ids=str,
)
def test_anything_else_is_refused(change):
    with pytest.raises(ValueError, match="is not a record"):
        Record.from_json(Record(SPACE).to_json() | change, SPACE)


def test_settings_of_older_versions_are_read():
    record = Record.of_settings(SPACE, {"chunk": True, "chunk_tokens": 64, "runtime": "onnx"}, {"topic": "text"}, 2)
    assert (record.chunking.chunk_tokens, record.made_by.runtime, record.format_version) == (64, "onnx", 2)
