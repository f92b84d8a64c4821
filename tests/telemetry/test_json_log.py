"""Log lines as JSON: one valid document a line, whatever a record contains."""

import json
import logging
import logging.handlers
import queue
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.telemetry.hooks import BaseHook, Hooks
from embedway.telemetry.json_log import FIELDS, JsonFormatter, json_line, timestamp
from embedway.telemetry.operations import BatchDetails, RequestDetails
from embedway.telemetry.request_ids import request_id

REQUEST = RequestDetails, "embed", "acme/m", 1
#: Characters that end a line for some reader, or that a terminal executes.
BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def record(message, *arguments, error=None):
    info = None if error is None else (type(error), error, None)
    made = logging.LogRecord("embedway.x", logging.WARNING, __file__, 1, message, arguments, info)
    made.created = 1_795_745_076.1234
    return made


def formatted(made):
    return json.loads(JsonFormatter().format(made))


def test_a_line_has_time_level_logger_and_message():
    assert formatted(record("%d of %s", 3, "x")) == {
        "time": "2026-11-27T02:04:36.123Z",
        "level": "WARNING",
        "logger": "embedway.x",
        "message": "3 of x",
    }


def test_an_exception_is_its_class_only():
    line = JsonFormatter().format(record("failed", error=ValueError("a secret text")))
    assert json.loads(line)["error"] == "ValueError"
    assert "secret" not in line


def test_wrong_arguments_do_not_lose_the_line():
    assert formatted(record("%d", "x"))["message"] == "%d (TypeError in its arguments)"


class Operating(BaseHook):
    def begin(self, operation):
        self.last = operation


def test_a_line_inside_a_call_has_its_id():
    hook = Operating()
    hooks = Hooks([hook])
    with hooks.operation(*REQUEST):
        outer = hook.last.id
        assert formatted(record("x"))["request_id"] == request_id(outer)
        with hooks.operation(*REQUEST):
            inner = hook.last.id
            assert formatted(record("x"))["request_id"] == request_id(inner) != request_id(outer)
        with hooks.merged_operation([outer, inner], BatchDetails, "acme/m", "local", 2, 2):
            assert formatted(record("x"))["request_ids"] == [request_id(outer), request_id(inner)]
        assert formatted(record("x"))["request_id"] == request_id(outer)
    assert "request_id" not in formatted(record("x"))


def test_a_queue_keeps_the_fields_of_a_call():
    """`logging.handlers.QueueHandler` copies the record, and may send it to another process."""
    waiting = queue.SimpleQueue()
    made = record('{"texts": 1}')
    made.embedway_fields = {"texts": 1}
    logging.handlers.QueueHandler(waiting).handle(made)
    assert formatted(waiting.get())["texts"] == 1


@given(st.text(), st.text(), st.floats(), st.integers())
@pytest.mark.parametrize(
    "hostile", ["\n", "\r", "\x1b[31m", "\x7f", "\x9b", "\u2028", "\ud800", "\ud83d\ude00", '"', "\\"]
)
def test_every_line_is_one_valid_document(hostile, text, key, number, count):
    text += hostile
    made = record("%s", text)
    made.embedway_fields = {"text": text, key + hostile: [number, {"n": count}], "route": (text,), "thing": object}
    for line in (JsonFormatter().format(record("%s", text)), JsonFormatter().format(made)):
        assert line.isascii()
        assert not BREAKS.search(line)
        assert json.loads(line, parse_constant=pytest.fail)["logger"] == "embedway.x"
        line.encode()
        assert not any(0xD800 <= ord(char) < 0xE000 for char in str(json.loads(line)))


class Unprintable:
    """An object without a text."""

    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __str__


def endless():
    found = {}
    found["again"] = found
    return found


def deep():
    found = []
    for _ in range(5000):
        found = [found]
    return found


@pytest.mark.parametrize(
    "value",
    [endless(), {"a": deep()}, {"a": 10**5000}, {Unprintable(): Unprintable()}],
    ids=["endless", "deep", "huge", "text"],
)
def test_fields_that_json_cannot_represent_do_not_raise(value):
    made = record("m")
    setattr(made, FIELDS, value)
    assert formatted(made)["logger"] == "embedway.x"


@pytest.mark.parametrize("created", [float("nan"), 1e20, -1e20])
@pytest.mark.parametrize(("message", "arguments"), [(Unprintable(), ()), ("%s", (Unprintable(),))])
def test_a_record_that_cannot_be_printed_does_not_raise(created, message, arguments):
    made = record(message, *arguments)
    made.created, made.exc_info = created, True
    document = formatted(made)
    assert document["message"].endswith("(RuntimeError in its arguments)")
    assert document["time"].endswith("Z")


def test_numbers_that_json_does_not_have_are_null():
    document = {"a": float("nan"), "b": float("inf"), "c": [float("-inf")], "d": 1e300, "e": 10**400}
    assert json.loads(json_line(document)) == {"a": None, "b": None, "c": [None], "d": 1e300, "e": 10**400}


def test_characters_beyond_the_basic_plane_are_kept():
    assert json.loads(json_line({"a": "😀"})) == {"a": "😀"}


def test_a_time_is_in_utc():
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"


def test_only_the_formatter_is_imported():
    """Programs that only format log lines load no library of metrics."""
    libraries = {"opentelemetry", "prometheus_client", "aiohttp"}
    source = f"import sys, embedway.telemetry.json_log; print({libraries} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
