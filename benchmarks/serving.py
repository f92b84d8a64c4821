"""A model of this machine behind a server: embedway and Infinity, with the same weights, threads and texts.

    python benchmarks/serving.py --peers FOLDER [--only embedway] [--rounds 3] [--seconds 5] [--bulk-rounds 2]

All-MiniLM-L6-v2, cut at 256 tokens. Contestants are embedway, and Infinity's torch engine in float32 and, with
`--only embedway,infinity,infinity-bf16`, in bfloat16. They take turns; no cache is used.

- Short: each request has one new text of 20 tokens; 16 requests are under way (`wrk`).
- Bulk: 2,048 passages of the Python documentation in requests of 32, four of them under way.

Figures are medians over the rounds. The lowest cosine is relative to Infinity in float32.
"""

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

import numpy as np

import load
from contestants import MODEL, THREADS, model_folder, read_texts
from gateway import cell, table
from gateways import HOST, Server, embedway, free_port, machine_line, post, running, vectors

CONNECTIONS, BATCH, CLIENTS = 16, 32, 4
_THREADS = {
    "OMP_NUM_THREADS": str(THREADS),
    "MKL_NUM_THREADS": str(THREADS),
    "RAYON_NUM_THREADS": str(THREADS),
    "TOKENIZERS_PARALLELISM": "true",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
}
SETTINGS = f"""
[embedding]
default_model = "{MODEL}"
on_overflow = "truncate"
[cache]
backend = "none"
[local]
threads = {THREADS}
"""


def ours(_, folder, workers):
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
    environment = {**_THREADS, "XDG_DATA_HOME": data}
    return embedway("embedway", folder, SETTINGS, workers=workers, model=MODEL, environment=environment)


def infinity(peers, precision):
    program = Path(peers).absolute() / "infinity/bin/infinity_emb"
    if not program.exists():
        print(f"infinity is left out: there is no {program}")
        return None
    port = free_port()
    command = [program, "v2", "--model-id", model_folder(), "--served-model-name", MODEL, "--engine", "torch"]
    command += ["--device", "cpu", "--dtype", precision, "--host", HOST, "--port", port, "--url-prefix", "/v1"]
    command += ["--no-vector-disk-cache", "--log-level", "error"]
    name = "infinity" if precision == "float32" else "infinity-bf16"
    return Server(name, command, port, "/health", model=MODEL, environment=_THREADS)


MAKERS = {
    "embedway": ours,
    "infinity": lambda peers, *_: infinity(peers, "float32"),
    "infinity-bf16": lambda peers, *_: infinity(peers, "bfloat16"),
}


def short(server, seconds):
    used = server.cpu_seconds()
    found = load.wrk(server.target(), CONNECTIONS, seconds)
    good = max(found["answers"] - found["failed"], 1)
    assert not found["failed"], f"{server.name}: {found['failed']} requests failed"
    cpu = (server.cpu_seconds() - used) / good
    return {"rate": good / found["seconds"], "p50": found["p50"], "p99": found["p99"], "cpu": cpu}


def bulk(server, texts):
    """Return the measurement of one pass over all passages, and their vectors."""
    target, kept = server.target(), {}
    parts = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    contents = list(load.requests(target, parts))
    answers, seconds = load.run(load.closed_loop(target, contents, CLIENTS, keep=kept, drain_s=300))
    assert {answer.status for answer in answers} == {200}, f"{server.name}: {answers}"
    rows = np.concatenate([vectors(json.loads(kept[content])) for content in contents])
    times = [answer.seconds for answer in answers]
    figures = {"rate": len(texts) / seconds, "p50": load.percentile(times, 0.5), "p99": load.percentile(times, 0.99)}
    return figures, rows / np.linalg.norm(rows, axis=1, keepdims=True)


def measure(options, servers):
    """Return the measurements and the vectors of each server."""
    texts = read_texts(options.texts)[: options.count]
    found = {server.name: {"short": [], "bulk": [], "resident_mb": []} for server in servers}
    rows = {}
    for server in servers:
        assert post(server.target(), load.body(texts[:BATCH], MODEL))[0] == 200
        load.wrk(server.target(), CONNECTIONS, 2)
    for number in range(max(options.rounds, options.bulk_rounds)):
        for server in servers if number % 2 == 0 else servers[::-1]:
            if number < options.rounds:
                found[server.name]["short"].append(short(server, options.seconds))
            if number < options.bulk_rounds:
                figures, rows[server.name] = bulk(server, texts)
                found[server.name]["bulk"].append(figures)
            found[server.name]["resident_mb"].append(server.resident_mb())
    return found, rows


def middle(rows, name, scale=1.0):
    return statistics.median(row[name] for row in rows) * scale if rows else None


def report(options, found, rows):
    print(machine_line() + f"; {THREADS} threads each")
    print(f"{options.rounds} rounds of {options.seconds} s, {options.bulk_rounds} of {options.count} passages; ms\n")
    head = ["", "short: texts/s", "p50", "p99", "CPU", "bulk: texts/s", "p50", "p99", "lowest cosine", "MB"]
    lines = []
    reference = rows.get("infinity")
    for name, parts in found.items():
        line = [name, cell(middle(parts["short"], "rate"), ",.1f")]
        line += [cell(middle(parts["short"], part, 1e3), ".1f") for part in ("p50", "p99", "cpu")]
        line.append(cell(middle(parts["bulk"], "rate"), ",.1f"))
        line += [cell(middle(parts["bulk"], part, 1e3), ",.0f") for part in ("p50", "p99")]
        known = reference is not None and name in rows
        cosine = float((rows[name] * reference).sum(axis=1).min()) if known else None
        lines.append([*line, cell(cosine, ".6f"), f"{statistics.median(parts['resident_mb']):.0f}"])
    table(head, lines)
    for peer in (name for name in found if name != "embedway" and "embedway" in found):
        for part in ("short", "bulk"):
            own, other = middle(found["embedway"][part], "rate"), middle(found[peer][part], "rate")
            if own and other:
                print(f"embedway is {own / other:.1f}x {peer}, {part}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="peers", help="folder with other servers, see gateways.py")
    parser.add_argument("--only", default="embedway,infinity", help="contestants, separated by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of short texts")
    parser.add_argument("--bulk-rounds", type=int, default=2)
    parser.add_argument("--texts", help="lines of JSON with `text`; without it, the documentation of Python")
    parser.add_argument("--count", type=int, default=2048, help="passages")
    parser.add_argument("--workers", type=int, default=1, help="HTTP workers of embedway")
    parser.add_argument("--json", help="file for all measurements")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        made = [MAKERS[name](options.peers, place, options.workers) for name in options.only.split(",")]
        with running([server for server in made if server is not None]) as servers:
            found, rows = measure(options, servers)
    report(options, found, rows)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
