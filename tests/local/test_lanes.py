"""Choice of the session that computes a batch."""

import os
import sys

import numpy as np
import pytest

from embedway.batching.batches import fill_batches
from embedway.local.backend import SessionOptions
from embedway.local.lanes import Lanes
from embedway.local.runtime_choice import RuntimeChoice
from embedway.types import Batch, TokenizedTexts

BULK, SINGLE = SessionOptions("onnxruntime", "f32", 2, 2), SessionOptions("onnxruntime", "f32", 1, 2)


@pytest.fixture
def lanes():
    return Lanes(RuntimeChoice(BULK, SINGLE, 2048))


def request(*lengths, budget=2048):
    lengths = np.array(lengths, np.int32)
    tokenized = TokenizedTexts(tuple(np.zeros(length, np.int32) for length in lengths), lengths)
    return tokenized, fill_batches(lengths, token_budget=budget)


@pytest.mark.parametrize("lengths", [(186,), (186,) * 4, (186,) * 9, (12,) * 9, (12,), (250, 200, 90, 40, 9), (3000,)])
def test_a_small_request_has_all_threads(lanes, lengths):
    tokenized, batches = request(*lengths)
    for batch in batches:
        lane, small = lanes.choose(tokenized, batch)
        assert lane is lanes.single
        lane.occupied(tokenized if small else None).__enter__()


def test_a_large_request_has_the_streams(lanes):
    tokenized, batches = request(*[186] * 40)
    assert {lanes.choose(tokenized, batch)[0] for batch in batches} == {lanes.bulk}


def test_while_others_compute_a_small_request_has_a_stream(lanes):
    tokenized, batches = request(*[186] * 9)
    for busy in (lanes.bulk, lanes.single):
        with busy.occupied(None):
            assert lanes.choose(tokenized, batches[0]) == (lanes.bulk, False)
    assert lanes.choose(tokenized, batches[0]) == (lanes.single, True)


def test_texts_of_several_callers_have_a_stream(lanes):
    tokenized, _ = request(12, 12, 12)
    assert lanes.choose(tokenized, Batch(np.arange(3), 12, shared=True)) == (lanes.bulk, False)


def test_a_query_waits_for_no_document_while_a_stream_is_free(lanes):
    query, batches = request(12)
    small, _ = request(*[186] * 9)
    with lanes.bulk.occupied(None), lanes.bulk.occupied(None):
        assert lanes.choose(query, batches[0])[0] is lanes.single
        with lanes.single.occupied(small):
            assert lanes.choose(query, batches[0])[0] is lanes.single
    with lanes.single.occupied(small):
        assert lanes.choose(query, batches[0])[0] is lanes.bulk
    with lanes.single.occupied(None):
        assert lanes.choose(query, batches[0])[0] is lanes.single


def test_the_lane_is_free_again_after_the_last_batch(lanes):
    small, _ = request(*[186] * 9)
    with lanes.single.occupied(small):
        with lanes.single.occupied(small):
            pass
        assert lanes.single.request is small
    assert (lanes.single.batches, lanes.single.request) == (0, None)


@pytest.mark.parametrize("options", [BULK, SINGLE], ids=["streams set", "large model"])
def test_one_session_for_both_keeps_queries_apart_from_bulk_work(options):
    lanes = Lanes(RuntimeChoice(options, options, 2048))
    assert lanes.whole_tokens == 0
    documents, batches = request(*[186] * 9)
    query, alone = request(12)
    assert lanes.choose(documents, batches[0]) == (lanes.bulk, False)
    assert lanes.choose(query, alone[0]) == (lanes.single, False)
    assert lanes.bulk.threads is not lanes.single.threads


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, a nice value belongs to the process")
def test_threads_of_bulk_have_a_lower_priority():
    def nice_of(lane):
        return lane.threads.submit(os.getpriority, os.PRIO_PROCESS, 0).result()

    own = os.getpriority(os.PRIO_PROCESS, 0)
    lanes = Lanes(RuntimeChoice(BULK, SINGLE, 2048), bulk_nice=3)
    assert (nice_of(lanes.bulk), nice_of(lanes.single)) == (min(own + 3, 19), own)
    shared = Lanes(RuntimeChoice(BULK, BULK, 2048), bulk_nice=3)
    assert nice_of(shared.bulk) == own
