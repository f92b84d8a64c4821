"""Statistics of all workers of a gateway: each writes its own to a file every two seconds, and reads those of all."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

import orjson

from embedway.money import usd
from embedway.server.route_health import merged_routes, route_health
from embedway.server.stats import PERIOD_S, PERIODS, upper_bound_s

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from embedway.server.gateway import Gateway
    from embedway.server.stats import Period

#: Time between two writes, in seconds, and age of a snapshot whose worker has ended.
WRITE_S, _OLD_S = 2.0, 10.0
#: Maximum size of a snapshot, in bytes.
_MOST_BYTES = 4 << 20
#: Slow and failed requests that are shown.
_SHOWN = 50


def snapshot_of(gateway: Gateway, number: int = 0) -> dict[str, Any]:
    """Return the statistics, the queue and the routes of a worker as JSON types."""
    stats, queue = gateway.stats, gateway.queue.state()
    return {
        "worker": number,
        "pid": os.getpid(),
        "written": time.time(),
        "started": stats.started,
        "requests": stats.requests,
        "failed": stats.failed,
        "running": queue.running,
        "waiting": queue.waiting,
        "routes": route_health(gateway.engines.engine),
        "models": {
            name: {
                "requests": one.requests,
                "texts": one.texts,
                "tokens": one.tokens,
                "hits": one.hits,
                "cost_nanousd": one.cost_nanousd,
                "saved_nanousd": one.saved_nanousd,
            }
            for name, one in stats.models.items()
        },
        "history": [_period(one) for one in stats.history],
        "remembered": list(stats.remembered),
    }


def _period(one: Period) -> dict[str, Any]:
    times = {str(number): count for number, count in enumerate(one.times) if count}
    return {
        "start": one.start,
        "requests": one.requests,
        "failed": one.failed,
        "texts": one.texts,
        "hits": one.hits,
        "times": times,
    }


def write_snapshot(folder: Path, snapshot: Mapping[str, Any]) -> None:
    """Write a snapshot atomically. Blocking."""
    path = folder / f"stats-{snapshot['worker']}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(orjson.dumps(snapshot))
    temporary.replace(path)


def read_snapshots(folder: Path) -> list[dict[str, Any]]:
    """Return the snapshots of the workers that run now. Blocking."""
    found, now = [], time.time()
    for path in sorted(folder.glob("stats-*.json")):
        with contextlib.suppress(OSError, orjson.JSONDecodeError):
            with path.open("rb") as file:
                snapshot = orjson.loads(file.read(_MOST_BYTES))
            if now - snapshot["written"] < _OLD_S:
                found.append(snapshot)
    return found


def merged(snapshots: Sequence[Mapping[str, Any]], *, now: float) -> dict[str, Any]:
    """Return the sums of all workers. `recent` is that of the last ten minutes."""
    models: dict[str, dict[str, int]] = {}
    for one in snapshots:
        for name, counts in one["models"].items():
            sums = models.setdefault(name, dict.fromkeys(counts, 0))
            for key, value in counts.items():
                sums[key] += value
    periods = [period for one in snapshots for period in one["history"]]
    history, recent = _history(periods, now)
    remembered = sorted((row for one in snapshots for row in one["remembered"]), key=lambda row: row["time"])
    return {
        "workers": len(snapshots),
        "started": min((one["started"] for one in snapshots), default=None),
        "requests": sum(one["requests"] for one in snapshots),
        "failed": sum(one["failed"] for one in snapshots),
        "running": sum(one["running"] for one in snapshots),
        "waiting": sum(one["waiting"] for one in snapshots),
        "models": [_model(name, counts) for name, counts in sorted(models.items())],
        "routes": merged_routes(route for one in snapshots for route in one["routes"]),
        "recent": recent,
        "history": history,
        "remembered": remembered[: -_SHOWN - 1 : -1],
    }


def _model(name: str, counts: Mapping[str, int]) -> dict[str, Any]:
    return {
        "model": name,
        "requests": counts["requests"],
        "texts": counts["texts"],
        "tokens": counts["tokens"],
        "hits": counts["hits"],
        "cost_usd": usd(counts["cost_nanousd"]),
        "saved_usd": usd(counts["saved_nanousd"]),
    }


def _history(periods: Iterable[Mapping[str, Any]], now: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a row for each of the last periods, oldest first, also for those without requests, and their sum."""
    last = int(now) // PERIOD_S * PERIOD_S
    starts = range(last - (PERIODS - 1) * PERIOD_S, last + 1, PERIOD_S)
    rows: dict[int, dict[str, Any]] = {
        start: {"start": start, "requests": 0, "failed": 0, "texts": 0, "hits": 0, "times": {}} for start in starts
    }
    for period in periods:
        row = rows.get(period["start"])
        if row is None:
            continue
        for key in ("requests", "failed", "texts", "hits"):
            row[key] += period[key]
        for number, count in period["times"].items():
            row["times"][int(number)] = row["times"].get(int(number), 0) + count
    sums = _sum(rows.values())
    for row in (*rows.values(), sums):
        times = row.pop("times")
        row["p50_ms"], row["p99_ms"] = _quantile_ms(times, 0.5), _quantile_ms(times, 0.99)
    return list(rows.values()), sums


def _sum(rows: Collection[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sum of periods."""
    times: dict[int, int] = {}
    for row in rows:
        for number, count in row["times"].items():
            times[number] = times.get(number, 0) + count
    counts = {key: sum(row[key] for row in rows) for key in ("requests", "failed", "texts", "hits")}
    return {"seconds": len(rows) * PERIOD_S, **counts, "times": times}


def _quantile_ms(times: Mapping[int, int], share: float) -> float | None:
    """Return the upper bound of the class with a quantile, in milliseconds; None without requests."""
    total, passed = sum(times.values()), 0
    for number in sorted(times):
        passed += times[number]
        if passed >= share * total:
            return round(upper_bound_s(number) * 1000, 3)
    return None
