"""Requests per second, latency and CPU of gateways before one service on loopback that answers at once.

    python benchmarks/gateway.py --peers FOLDER [--only embedway,litellm] [--rounds 3] [--seconds 3] [--json FILE]

Contestants: the service itself (`direct`), embedway without ledger and cache, with a ledger and a hard budget, with a
cache that misses and with one that hits, and other gateways (`gateway_peers.py`), each with one worker. They take turns
in each round, in the opposite order in every second one. Every text is new, except those of the hits.

Closed loops keep 1, 16 and 64 requests under way (`wrk`, from Debian's package). Open loops send 300 and 500 requests
per second, evenly spaced, and measure from the moment a request is due; a gateway whose closed loops do not reach the
rate is left out there. *Added* is the difference to `direct` of the same round. CPU is that of all processes of the
contestant, without the service and the load. Figures are medians over the rounds.
"""

import argparse
import json
import resource
import statistics
import tempfile
from pathlib import Path

import load
from gateway_peers import PEERS, peer
from gateways import embedway, loopback, machine_line, post, route_settings, running, vectors

CONNECTIONS, RATES = (1, 16, 64), (300, 500)
#: Texts of the hits.
POOL = 1_000
BUDGET = '[budgets.all]\nusd = "1000000"\nperiod = "month"\n'
OURS = {
    "embedway": {},
    "embedway-ledger": {"ledger": "sqlite", "more": BUDGET},
    "embedway-cache": {"cache": "sqlite"},
    "embedway-hits": {"cache": "sqlite"},
}


def contestants(options, folder, service):
    """Return the servers to measure, the service first."""
    made = [service]
    for name in options.only.split(","):
        if name in OURS:
            made.append(embedway(name, folder, route_settings(service.port, **OURS[name]), workers=options.workers))
        elif name in PEERS:
            made.append(peer(name, options.peers, folder, service.port))
        elif name != "direct":
            raise SystemExit(f"unknown contestant {name!r}; choose from {', '.join(['direct', *OURS, *PEERS])}")
    return [server for server in made if server is not None]


def check(server, service):
    """Compare an answer with the service's, and warm up."""
    given = ["a first text", "a second text"]
    status, _, answer = post(server.target(), load.body(given, server.model))
    assert status == 200, f"{server.name} answers {status}: {answer}"
    wanted = vectors(post(service.target(), load.body(given, service.model))[2])
    assert abs(vectors(answer) - wanted).max() < 1e-6, f"{server.name} changes vectors"
    load.wrk(server.target(), 16, 2)


def hits(server):
    """Return the arguments of texts that are in the cache."""
    if server.name != "embedway-hits":
        return {}
    chosen = {"pool": POOL, "start": 1}
    target = server.target()
    every = [load.text(1 + number) for number in range(POOL)]
    for start in range(0, POOL, 100):
        assert post(target, load.body(every[start : start + 100], target.model))[0] == 200
    return chosen


def closed(server, connections, seconds, **more):
    used, own = server.cpu_seconds(), children()
    found = load.wrk(server.target(), connections, seconds, **more)
    good = max(found["answers"] - found["failed"], 1)
    return {
        "rate": good / found["seconds"],
        "p50": found["p50"],
        "p99": found["p99"],
        "failed": found["failed"],
        "cpu": (server.cpu_seconds() - used) / good,
        "wrk_cpu": (children() - own) / good,
    }


def opened(server, rate, seconds, **more):
    target = server.target()
    given = None
    if more:
        given = (load.text(more["start"] + number % POOL) for number in range(rate * seconds + 10))
    sent = load.open_loop(target, load.requests(target, given), rate, seconds)
    answers = load.run(sent)
    times = [answer.seconds for answer in answers if answer.status == 200]
    failed = len(answers) - len(times)
    return {"p50": load.percentile(times, 0.5), "p99": load.percentile(times, 0.99), "failed": failed}


def children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(server, seconds, more):
    found = {f"closed {count}": closed(server, count, seconds, **more) for count in CONNECTIONS}
    reached = max(one["rate"] for one in found.values())
    for rate in RATES:
        if reached > 1.1 * rate:
            found[f"open {rate}"] = opened(server, rate, seconds, **more)
    found["resident_mb"] = server.resident_mb()
    return found


def rounds(options, servers):
    """Return the measurements of each server, in the order of the rounds."""
    service = servers[0]
    for server in servers:
        check(server, service)
    more = {server.name: hits(server) for server in servers}
    found = {server.name: [] for server in servers}
    for number in range(options.rounds):
        for server in servers if number % 2 == 0 else servers[::-1]:
            found[server.name].append(measure(server, options.seconds, more[server.name]))
    return found


def median(rows, part, name, scale=1.0):
    values = [row[part][name] for row in rows if part in row]
    return statistics.median(values) * scale if values else None


def added(rows, direct, part, name):
    """Return the median difference to the service in the same round, in milliseconds."""
    pairs = [(row, own) for row, own in zip(rows, direct, strict=True) if part in row and part in own]
    return statistics.median(1e3 * (row[part][name] - own[part][name]) for row, own in pairs) if pairs else None


def cell(value, form=".2f"):
    return "-" if value is None else format(value, form)


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("| --- |" + " ---: |" * (len(head) - 1))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def report(options, found):
    direct = found["direct"]
    print(machine_line())
    print(f"{options.rounds} rounds of {options.seconds} s, {options.dimensions} dimensions; milliseconds\n")
    head = [""]
    for count in CONNECTIONS:
        head += [f"{count}: requests/s", "p50", "p99"]
    lines = []
    for name, rows in found.items():
        line = [name]
        for part in (f"closed {count}" for count in CONNECTIONS):
            line.append(cell(median(rows, part, "rate"), ",.0f"))
            line += [cell(median(rows, part, "p50", 1e3)), cell(median(rows, part, "p99", 1e3))]
        memory = statistics.median(row["resident_mb"] for row in rows)
        lines.append([*line, cell(median(rows, "closed 16", "cpu", 1e3), ".3f"), f"{memory:.0f}"])
    table([*head, "CPU at 16", "MB"], lines)
    lines = []
    for name, rows in found.items():
        line = [name]
        for part in (f"open {rate}" for rate in RATES):
            line += [cell(median(rows, part, share, 1e3)) for share in ("p50", "p99")]
            line += [cell(added(rows, direct, part, share)) for share in ("p50", "p99")]
        lines.append(line)
    head = [""]
    for rate in RATES:
        head += [f"{rate}/s: p50", "p99", "added p50", "added p99"]
    table(head, lines)
    failed = {
        name: sum(part["failed"] for row in rows for part in row.values() if isinstance(part, dict))
        for name, rows in found.items()
    }
    print("Failed requests:", ", ".join(f"{name} {count}" for name, count in failed.items() if count) or "none")
    load_cpu = median(direct, "closed 16", "wrk_cpu", 1e6)
    print(f"The load takes {load_cpu:.0f} us of CPU per request, the service itself that of `direct`.")
    compare(found)


def compare(found):
    """Print how many times as fast embedway is at 16 connections."""
    rates = {name: median(rows, "closed 16", "rate") for name, rows in found.items()}
    for ours in (name for name in rates if name in OURS):
        ratios = ", ".join(f"{rates[ours] / rates[name]:.1f}x {name}" for name in rates if name in PEERS)
        print(f"{ours} at 16 connections is {ratios}" if ratios else "", end="\n" if ratios else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="peers", help="folder with other gateways, see gateways.py")
    parser.add_argument("--only", default=",".join(["direct", *OURS, *PEERS]), help="contestants, separated by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of each loop")
    parser.add_argument("--workers", type=int, default=1, help="of embedway")
    parser.add_argument("--dimensions", type=int, default=1536)
    parser.add_argument("--json", help="file for all measurements")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        service = loopback(dimensions=options.dimensions)
        with running([service]), running(contestants(options, Path(place), service)[1:]) as others:
            found = rounds(options, [service, *others])
    report(options, found)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
