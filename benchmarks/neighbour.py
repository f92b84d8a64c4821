"""Latency of single queries with one API key, alone and while another key sends 50,000 texts.

    python benchmarks/neighbour.py [--model local|route] [--texts 50000] [--rate 20] [--seconds 15]

The queries arrive at a fixed rate, and are measured from the moment each is due. The other key sends requests of 1,000
texts, four of them under way, from another process. All texts are new and have 20 tokens. `local` is All-MiniLM-L6-v2
on this machine; `route` is a service on loopback that answers after 5 ms and 0.2 ms for each text of a request.
"""

import argparse
import collections
import json
import multiprocessing
import os
import tempfile
from pathlib import Path

import load
from contestants import MODEL, THREADS
from gateway import cell, table
from gateways import create_key, embedway, loopback, machine_line, post, route_settings, running
from serving import SETTINGS

#: Seconds of one window of queries beside the bulk.
WINDOW = 5
AUTH = '[server]\nauth = "keys"\n'


def send_bulk(target, contents, connections, sender):
    """Send all requests and report the statuses of the answers and the seconds."""
    sent = load.closed_loop(target, contents, connections, drain_s=600)
    answers, seconds = load.run(sent)
    sender.send((sorted({answer.status for answer in answers}), seconds))


def queries(target, rate, seconds):
    answers = load.run(load.open_loop(target, load.requests(target), rate, seconds))
    refused = collections.Counter(answer.status for answer in answers if answer.status != 200)
    if refused:
        print("queries without vectors, by status:", dict(refused))
    return [answer.seconds for answer in answers if answer.status == 200], len(answers)


def beside(options, query, bulk):
    """Return the queries' times in the windows that lie in the bulk, and the bulk's statuses and seconds."""
    supply = load.texts()
    parts = [
        [next(supply) for _ in range(min(options.batch, options.texts - done))]
        for done in range(0, options.texts, options.batch)
    ]
    contents = list(load.requests(bulk, parts))
    receiver, sender = multiprocessing.Pipe()
    process = multiprocessing.Process(target=send_bulk, args=(bulk, contents, options.clients, sender))
    process.start()
    times, asked, last = [], 0, ()
    while process.is_alive():
        good, count = queries(query, options.rate, WINDOW)
        if receiver.poll():
            last = last or good
            break
        times, asked = times + good, asked + count
    statuses, seconds = receiver.recv()
    process.join()
    return times or list(last), asked, statuses, seconds


def server(options, folder, service):
    if options.model == "local":
        data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
        environment = {"XDG_DATA_HOME": data, "OMP_NUM_THREADS": str(THREADS)}
        made = embedway("gateway", folder, SETTINGS + AUTH, workers=options.workers, model=MODEL)
        made.environment.update(environment)
        return made
    return embedway(
        "gateway", folder, route_settings(service.port, ledger="sqlite", more=AUTH), workers=options.workers
    )


def measure(options):
    service = loopback(delay=0.005, each=0.0002)
    with tempfile.TemporaryDirectory() as place, running([service]):
        gateway = server(options, place, service)
        own, other = (create_key(gateway, name) for name in ("interactive", "bulk"))
        gateway.headers = (("authorization", f"Bearer {own}"),)
        with running([gateway]):
            query = gateway.target()
            bulk = gateway.target()._replace(headers=(("authorization", f"Bearer {other}"),))
            for target in (query, bulk):
                status, _, answer = post(target, load.body("a text", target.model))
                assert status == 200, f"the gateway answers {status}: {answer}"
            queries(query, options.rate, 3)
            alone, asked_alone = queries(query, options.rate, options.seconds)
            times, asked, statuses, seconds = beside(options, query, bulk)
            after, asked_after = queries(query, options.rate, options.seconds)
    return {
        "alone": (alone, asked_alone),
        f"beside {options.texts:,} texts": (times, asked or len(times)),
        "after": (after, asked_after),
    }, (statuses, seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("local", "route"), default="local")
    parser.add_argument("--texts", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=1_000, help="texts of a request of the bulk")
    parser.add_argument("--clients", type=int, default=4, help="requests of the bulk under way")
    parser.add_argument("--rate", type=float, default=20, help="queries per second")
    parser.add_argument("--seconds", type=int, default=15, help="of queries alone")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json")
    options = parser.parse_args()
    found, (statuses, seconds) = measure(options)
    print(machine_line() + f"; {options.model} model, {options.rate:g} queries/s; milliseconds\n")
    rows, figures = [], {}
    for name, (times, asked) in found.items():
        p50, p99 = load.percentile(times, 0.5) * 1e3, load.percentile(times, 0.99) * 1e3
        figures[name] = {"p50": p50, "p99": p99, "answered": len(times), "sent": asked}
        rows.append([name, cell(p50, ".1f"), cell(p99, ".1f"), f"{len(times)} of {asked}"])
    table(["queries", "p50", "p99", "answered"], rows)
    alone, crowded = list(figures.values())[:2]
    print(f"p99 beside the bulk is {crowded['p99'] / alone['p99']:.2f}x, p50 {crowded['p50'] / alone['p50']:.2f}x")
    print(f"The bulk had statuses {statuses} and ran at {options.texts / seconds:,.0f} texts/s")
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
