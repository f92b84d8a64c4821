"""Lines of input files: the check, parts, and lines of results."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_gateway import request_line
from embedway.server.batches.lines import (
    InputCheck,
    InvalidLineError,
    answer_line,
    cut,
    failure_line,
    parse_line,
    split,
)
from embedway.server.batches.values import BatchLimits

LIMITS = BatchLimits(lines=8, inputs=20, line_bytes=300)


def check(data, sizes=(), limits=LIMITS):
    found = InputCheck(limits)
    at = 0
    for size in sizes:
        found.feed(data[at : at + size])
        at += size
    found.feed(data[at:])
    found.finish()
    return found


LINES = st.one_of(
    st.integers(0, 12).map(request_line),
    st.integers(0, 12).map(lambda n: request_line(n, "x" * (n * 40))),
    st.integers(0, 12).map(lambda n: request_line(n, body={"model": "m", "input": ["x"] * n})),
    st.integers(0, 12).map(lambda n: request_line(n, body={"input": list(range(n))})),
    st.sampled_from([b"\n", b" \r\n", b"{}\n", b"null\n", b'"x"\n', b"\x00\n", request_line(1)[:-1] + b"\r\n"]),
    st.binary(max_size=20).map(lambda data: data + b"\n"),
)
FILES = st.tuples(st.lists(LINES, max_size=12).map(b"".join), st.binary(max_size=10)).map(b"".join)


@given(FILES, st.lists(st.integers(0, 200), max_size=20))
def test_a_check_does_not_depend_on_the_chunks(data, sizes):
    whole, parts = check(data), check(data, sizes)
    assert (whole.total, whole.model, whole.errors) == (parts.total, parts.model, parts.errors)


@given(FILES)
def test_a_valid_file_has_only_lines_that_can_be_computed(data):
    found = check(data)
    lines = [line for line in split(data) if line.strip()]
    if not found.errors:
        assert 0 < len(lines) == found.total <= 8
        parsed = [parse_line(line) for line in lines]
        assert len({line.custom_id for line in parsed}) == len(parsed)
        assert len({orjson.dumps(line.body.get("model")) for line in parsed}) == 1
        assert sum(line.inputs for line in parsed) <= 20


@given(FILES, st.integers(1, 5), st.integers(1, 10), st.integers(1, 400))
def test_parts_are_all_lines_once(data, most_lines, most_inputs, window):
    at, found, count = 0, [], 0
    while at < len(data):
        wanted, size = window, 0
        while not size:
            read = data[at : at + wanted]
            is_end = at + len(read) >= len(data)
            size, lines = cut(read, is_end=is_end, most_lines=most_lines, most_inputs=most_inputs)
            assert size or not is_end
            wanted *= 2
        part = split(data[at : at + size])
        assert len(part) == lines <= most_lines
        inputs = [inputs_of(line) for line in part]
        assert len(part) == 1 or sum(inputs) <= most_inputs
        found += part
        count += lines
        at += size
    assert found == split(data)
    assert count == len(split(data))


def inputs_of(line):
    try:
        return parse_line(line).inputs
    except InvalidLineError:
        return 0


@given(st.binary(max_size=300))
def test_bytes_are_an_error_of_ours(data):
    assert all(codes_of(data))


def codes_of(data):
    try:
        line = parse_line(data)
    except InvalidLineError as error:
        return [error.code]
    assert isinstance(line.custom_id, str)
    assert isinstance(line.body, dict)
    assert line.inputs >= 0
    return []


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=3), one, max_size=3),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("custom_id", "method", "url", "body", "other"), JSON)))
def test_any_json_is_a_line_or_an_error_of_ours(fields):
    for changed in (fields, {**json.loads(request_line(1)), **fields}):
        assert all(codes_of(json.dumps(changed).encode()))


@pytest.mark.parametrize(
    ("given_input", "inputs"), [("x", 1), (["x", "y"], 2), ([1, 2, 3], 1), ([[1], [2]], 2), ([], 0), (None, 1)]
)
def test_inputs_are_counted(given_input, inputs):
    assert parse_line(request_line(1, body={"input": given_input})).inputs == inputs


def test_deep_json_is_an_error():
    with pytest.raises(InvalidLineError):
        parse_line(b'{"custom_id": ' + b"[" * 100_000)


@given(st.text(min_size=1), JSON)
def test_result_lines_are_single_lines_with_the_answer(custom_id, value):
    value = json.loads(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)) if is_orjson(value) else None
    if not is_orjson(custom_id):
        return
    for body in (orjson.dumps(value), json.dumps(value, indent=1).encode()):
        line = answer_line(custom_id, 200, body)
        assert line.count(b"\n") == 1
        assert line.endswith(b"\n")
        read = json.loads(line)
        assert read["custom_id"] == custom_id
        assert read["response"]["body"] == json.loads(body)
    read = json.loads(failure_line(custom_id, "batch_expired", "Too late."))
    assert read["response"] is None
    assert read["error"] == {"code": "batch_expired", "message": "Too late."}


def is_orjson(value):
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


def test_an_answer_is_copied_byte_by_byte():
    body = b'{"b":1.50,  "a":1e0}'
    assert body in answer_line("x", 200, body)
