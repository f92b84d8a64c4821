"""Webhooks: a bounded number of posts, and a short end."""

import asyncio
import logging

from embedway.telemetry import webhook
from embedway.telemetry.webhook import Webhook


def test_a_storm_of_documents_is_bounded_and_what_is_lost_is_logged(monkeypatch, caplog):
    monkeypatch.setattr(webhook, "_MAX_POSTING", 5)
    monkeypatch.setattr(webhook, "_FLUSH_S", 0.05)
    begun = []

    async def hangs(_self, document):
        begun.append(document)
        await asyncio.Event().wait()

    monkeypatch.setattr(Webhook, "_post", hangs)

    async def main():
        own = Webhook("http://127.0.0.1:9", "an alert", logging.getLogger("embedway.test"), setting="alerts.webhook")
        for number in range(20):
            own.post({"number": number})
        tasks = len(asyncio.all_tasks())
        await own.flush()
        return tasks, len(asyncio.all_tasks())

    assert asyncio.run(main()) == (6, 1)
    assert begun == [{"number": 0}]
    assert [one.getMessage() for one in caplog.records] == [
        "alerts.webhook: it is too slow: an alert was not sent before the end (20 times)"
    ]
