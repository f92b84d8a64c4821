"""Frames between the inference process and its clients, and bytes that are none."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.server.inference import frames
from embedway.server.inference.frames import FrameError, FrameReader, Job, Kind
from embedway.types import Batch, TokenizedTexts
from embedway.urgency import Urgency


def job(*texts, types=(), rows=None, shared=False):
    ids = tuple(np.array(text, np.int32) for text in texts)
    lengths = np.array([len(text) for text in ids], np.int32)
    rows = np.arange(len(ids)) if rows is None else np.array(rows)
    tokenized = TokenizedTexts(ids, lengths, types=tuple(np.array(one, np.int32) for one in types))
    batch = Batch(rows.astype(np.int64), int(lengths[rows].max()), shared=shared)
    return Job(7, tokenized, batch, Urgency(3, query=True), 0.25)


def body_of(parts):
    ((_, _, body),) = FrameReader().feed(b"".join(parts))
    return body


def test_a_job_is_received_as_it_was_sent():
    sent = job([1, 2, 3], [4], [5, 6], types=[[0, 0, 1], [0], [1, 1]], rows=[2, 0], shared=True)
    received = frames.unpack_job(body_of(frames.pack_job(1, sent)))
    assert (received.model, received.urgency, received.behind_s) == (7, Urgency(3, query=True), 0.25)
    assert [row.tolist() for row in received.tokenized.ids] == [[5, 6], [1, 2, 3]]
    assert [row.tolist() for row in received.tokenized.types] == [[1, 1], [0, 0, 1]]
    assert received.tokenized.lengths.tolist() == [2, 3]
    assert (received.batch.rows.tolist(), received.batch.width, received.batch.shared) == ([0, 1], 3, True)


def test_negative_priorities_are_kept():
    sent = Job(1, job([1]).tokenized, job([1]).batch, Urgency(-45), 0.0)
    assert frames.unpack_job(body_of(frames.pack_job(1, sent))).urgency == Urgency(-45)


def test_vectors_are_received_with_the_same_bits_and_may_be_written_to():
    vectors = np.array([[1.5, -0.0], [np.inf, 3e-45]], np.float32)
    received = frames.unpack_rows(body_of(frames.pack_rows(9, vectors)))
    assert received.tobytes() == vectors.tobytes()
    received[0] = np.nan


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(1, 9))
def test_frames_are_found_in_any_parts_of_a_stream(bodies, step):
    stream = b"".join(b"".join(frames.pack(Kind.PING, number, body)) for number, body in enumerate(bodies))
    reader, found = FrameReader(), []
    for start in range(0, len(stream), step):
        found += reader.feed(stream[start : start + step])
    assert found == [(Kind.PING, number, body) for number, body in enumerate(bodies)]


def test_a_huge_frame_is_refused_by_its_header():
    header = struct.pack("<3sBIQ", b"EW1", Kind.JOB, frames.MOST_BYTES + 1, 1)
    with pytest.raises(FrameError, match="larger than"):
        list(FrameReader().feed(header))


def test_other_data_is_refused_by_its_first_bytes():
    with pytest.raises(FrameError, match="does not begin"):
        list(FrameReader().feed(b"GET / HTTP/1.1\r\n\r\n"))


@given(st.binary(max_size=120))
def test_a_random_job_is_refused_or_consistent(body):
    try:
        found = frames.unpack_job(body)
    except FrameError:
        return
    assert found.tokenized.lengths.tolist() == [len(row) for row in found.tokenized.ids]
    assert 0 < len(found.batch.rows) <= len(body)


@pytest.mark.parametrize("change", [{"texts": 0}, {"texts": 2**31}, {"behind": float("nan")}, {"lengths": [2, -1]}])
def test_jobs_whose_numbers_do_not_add_up_are_refused(change):
    texts, behind, lengths = change.get("texts", 2), change.get("behind", 0.0), change.get("lengths", [1, 1])
    body = struct.pack("<IBxhfI", 1, 0, 0, behind, texts) + np.array([*lengths, 5, 6], np.int32).tobytes()
    with pytest.raises(FrameError):
        frames.unpack_job(body)


@given(st.binary(max_size=60))
def test_random_vectors_are_refused_or_have_their_size(body):
    try:
        found = frames.unpack_rows(body)
    except FrameError:
        return
    assert found.size * 4 == len(body) - 8


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff", b" " * (1 << 20) + b"1"])
def test_bodies_that_are_no_json_are_refused(body):
    with pytest.raises(FrameError):
        frames.unpack_json(body)
