"""Fuzz the endpoints of the gateway: `python tests/fuzz/gateway.py --count 10000 --seed 1 [--dialect cohere]`.

Sends random and mutated bodies to a gateway in this process. Faults: a status of 500 or more, no answer in time, an
answer that is not JSON, a text of another request in an answer, a text in a log. Exits with 1 if there is any.
"""

import argparse
import asyncio
import collections
import io
import logging
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import orjson

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1] / "support")]

from gateway_bodies import MARK, draw, valid_bodies

#: Time limit of an answer, in seconds; requests at the same time.
_ANSWER_S, _AT_ONCE = 60.0, 8
#: Status of a passed deadline, which a body may ask for.
_DEADLINE = 504


@dataclass
class Report:
    """Counts of statuses, and every fault: kind, path, the body's beginning and what was seen."""

    statuses: collections.Counter = field(default_factory=collections.Counter)
    faults: list = field(default_factory=list)

    def add(self, kind, path, body, seen):
        self.faults.append((kind, path, body[:300], seen[:300]))


async def fuzz(url, bodies, *, count, seed):
    """Send `count` bodies to a gateway and return the report."""
    report, numbers = Report(), iter(range(count))
    timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
    with _LogWatch(report):
        async with aiohttp.ClientSession(url, timeout=timeout) as session:

            async def send_all():
                for number in numbers:
                    await _send(session, report, *draw(seed, number, bodies))

            await asyncio.gather(*(send_all() for _ in range(_AT_ONCE)))
            await _check_alive(session, report)
    return report


async def _send(session, report, path, body, mark):
    try:
        async with session.post(path, data=io.BytesIO(body), headers={"content-type": "application/json"}) as answer:
            status, found = answer.status, await answer.read()
    except (TimeoutError, aiohttp.ClientError) as error:
        report.add("no answer", path, body, repr(error))
        return
    report.statuses[status] += 1
    if status >= 500 and not (status == _DEADLINE and b"deadline" in body):
        report.add(f"status {status}", path, body, found.decode("utf-8", "replace"))
    try:
        orjson.loads(found)
    except orjson.JSONDecodeError:
        report.add("not JSON", path, body, found.decode("utf-8", "replace"))
    if foreign := set(MARK.findall(found.decode("utf-8", "replace"))) - {mark}:
        report.add("text of another request", path, body, repr(foreign))


async def _check_alive(session, report):
    async with session.get("/health/live") as answer:
        if answer.status != 200:
            report.add("not live", "/health/live", b"", str(answer.status))


class _LogWatch(logging.Handler):
    """Reports texts of bodies in logs."""

    def __init__(self, report):
        super().__init__(logging.DEBUG)
        self._report = report

    def __enter__(self):
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_):
        logging.getLogger().removeHandler(self)

    def emit(self, record):
        if found := MARK.search(self.format(record)):
            self._report.add("text in a log", record.name, b"", found[0])


def main():
    from served_models import FAKE, fake_settings, running

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dialect")
    parser.add_argument("--model-store", default=".cache/test-store", help="folder with the default model")
    asked = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        settings = fake_settings(Path(asked.model_store).resolve(), Path(folder))
        with running(settings) as url:
            for dialect, bodies in valid_bodies(FAKE, settings["rerank.default_model"]).items():
                if asked.dialect in {None, dialect}:
                    report = asyncio.run(fuzz(url, bodies, count=asked.count, seed=asked.seed))
                    print(dialect, dict(sorted(report.statuses.items())), len(report.faults), "faults", flush=True)
                    for fault in report.faults[:20]:
                        print("  ", *fault)
                    failed = failed or bool(report.faults)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
