"""Statistics of a worker: the log of requests."""

import logging
from types import SimpleNamespace

from embedway.server.caller import Caller
from embedway.server.endpoint import Exchange
from embedway.server.stats import Stats
from embedway.telemetry.json_log import FIELDS

ENDPOINT = SimpleNamespace(path="/v1/embeddings", access="caller")


def test_a_line_of_the_access_log_has_key_model_and_counts_in_both_formats(caplog):
    exchange = Exchange(None, Caller(key_name="web", tenant="acme"), b"", "id-1", model="acme/m", texts=3, tokens=9)
    with caplog.at_level(logging.INFO, "embedway.access"):
        Stats(log_requests=True, metrics=False).end(ENDPOINT, exchange, 200, 0.0123)
    (record,) = caplog.records
    assert record.getMessage() == (
        "/v1/embeddings 200 in 12.3 ms, key web, tenant acme, model acme/m, texts 3, tokens 9, request_id id-1"
    )
    facts = getattr(record, FIELDS)
    assert (facts["key"], facts["model"], facts["texts"], facts["seconds"]) == ("web", "acme/m", 3, 0.0123)
