"""Compare the behaviour of two checkouts of embedway for the same requests.

`python tests/differential/compare.py BEFORE AFTER` runs the scenarios of `scenarios.py` through both, each in its own
processes, and prints every difference. It exits with 1 if one is not listed in the file given by `--meant`.
"""

import argparse
import collections
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import scenarios

CHILD = Path(__file__).with_name("child.py")
#: Minimum counts for 20,000 requests. With fewer requests, they are lower in proportion.
LEAST = {
    "hits": 3000,
    "lossy hits": 100,
    "saved money": 300,
    "texts from another caller's request": 100,
    "requests merged from several callers": 60,
    "failovers": 200,
    "retries": 500,
    "refused requests that were halved": 100,
    "refused rows": 100,
    "truncations": 500,
    "averaged": 300,
    "rows with errors": 500,
    "estimated bills": 200,
    "unsure money": 50,
    "cancellations": 100,
    "cancelled upstream": 100,
    "pins": 100,
    "reranked": 500,
    "planned": 300,
    "selected": 50,
    "matryoshka sizes": 500,
    "errors: BudgetExceededError": 300,
    "errors: DeadlineError": 100,
    "errors: SpaceMismatchError": 50,
    "errors: TextTooLongError": 200,
    "errors: NoRouteError": 50,
    "errors: BadVectorsError": 20,
    "errors: RefusedInputError": 50,
    "errors: RateLimitedError": 5,
    "errors: UnavailableError": 50,
    "errors: AuthenticationError": 20,
    "errors: QuotaExceededError": 20,
    "errors: ProtocolError": 5,
    "errors: UpstreamError": 20,
    "errors: InputError": 200,
    "errors: DimensionsError": 50,
    "errors: UsageError": 100,
    "errors: UnknownModelError": 50,
    "errors: ConfigError": 10,
    "errors: CancelledError": 100,
}


@dataclass(frozen=True)
class Difference:
    """Difference in one value of one scenario."""

    scenario: int
    path: str
    before: object
    after: object

    @property
    def kind(self) -> str:
        """Path without its numbers, by which differences are grouped."""
        return re.sub(r"\[\d+\]|\.\d+(?=\.|$)", "[]", self.path)


@dataclass(frozen=True)
class Meant:
    """Intended differences: `path` is a pattern of the complete kind, `before` and `after` of the values."""

    name: str
    reason: str
    path: str
    before: str = ""
    after: str = ""

    def explains(self, one: Difference) -> bool:
        """Return whether this entry covers a difference."""
        return (
            re.fullmatch(self.path, one.kind) is not None
            and re.search(self.before, _shown(one.before)) is not None
            and re.search(self.after, _shown(one.after)) is not None
        )


def read_meant(path: Path | None) -> list[Meant]:
    """Read the intended differences of a TOML file: tables `[[meant]]` of name, reason and path."""
    return [] if path is None else [Meant(**table) for table in tomllib.loads(path.read_text("utf-8"))["meant"]]


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def differences(before: object, after: object, path: str = "") -> Iterator[tuple[str, object, object]]:
    """Yield the innermost paths at which two JSON values differ."""
    if before is after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            place = f"{path}.{key}" if path else key
            if key in before and key in after:
                yield from differences(before[key], after[key], place)
            else:
                yield place, before.get(key, "absent"), after.get(key, "absent")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from differences(one, other, f"{path}[{place}]")
    elif type(before) is not type(after) or before != after:
        yield path, before, after


def run_child(checkout: Path, arguments: list[str], *, hash_seed: str = "0") -> Iterator[str]:
    """Start a child for a checkout; return the lines of JSON that it prints. Raises RuntimeError if it fails."""
    source = checkout.resolve() / "src"
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108  a RAM disk: commits do not wait
    scratch = tempfile.TemporaryDirectory(dir=base)
    environ = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    environ |= dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"), scratch.name)
    environ |= {"PYTHONPATH": str(source), "PYTHONHASHSEED": hash_seed, "PYTHONDONTWRITEBYTECODE": "1"}
    environ |= {"OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(CHILD), "--scratch", scratch.name, "--source", str(source), *arguments]
    child = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True, encoding="utf-8")

    def lines() -> Iterator[str]:
        with scratch, child:
            try:
                assert child.stdout is not None
                yield from child.stdout
                if child.wait():
                    raise RuntimeError(f"the child for {checkout} exited with {child.returncode}")
            finally:
                if child.poll() is None:
                    child.kill()

    return lines()


@dataclass
class Comparison:
    """Counts and differences of a comparison."""

    counts: collections.Counter
    found: list[Difference]

    def __init__(self) -> None:
        self.counts, self.found = collections.Counter(), []


def span(seed: int, first: int, last: int, calls: int = scenarios.CALLS) -> list[str]:
    """Return the arguments of a child that runs the scenarios from `first` up to, not including, `last`."""
    return ["--seed", str(seed), "--first", str(first), "--last", str(last), "--calls", str(calls)]


def compare_lines(
    before: Iterable[str], after: Iterable[str], *, seed: int, calls: int = scenarios.CALLS
) -> Comparison:
    """Compare the output of two children for the same scenarios."""
    comparison = Comparison()
    ended = False
    for line, its in zip(before, after, strict=True):
        left = json.loads(line)
        # Equal lines need no parsing: their keys are sorted.
        right = left if line == its else json.loads(its)
        if left.get("end"):
            ended = bool(right.get("end"))
            for side, told in (("before", left), ("after", right)):
                comparison.counts[f"seconds {side}"] += told["wall_s"]
            continue
        count(comparison.counts, left, scenarios.scenario(seed, left["number"], calls))
        comparison.found += [Difference(left["number"], *place) for place in differences(left, right)]
    if not ended:
        raise RuntimeError("a child ended early")
    return comparison


def count(counts: collections.Counter, line: dict, scenario: dict) -> None:
    """Count what a scenario reached."""
    counts["scenarios"] += 1
    counts["stuck"] += bool(line["stuck"])
    counts["requests"] += len(line["calls"])
    for call in line["calls"]:
        _count_call(counts, call)
    _count_requests(counts, line, scenario)
    kept = line["kept"]
    counts["ledger rows"] += len(kept["ledger"].get("entries", ()))
    counts["pins"] += len(kept["pins"].get("pins", ()))
    counts["cache entries in files"] += len(kept["cache"].get("entries", ()))
    counts["cache entries in memory"] += len(line["puts"])


def _count_call(counts: collections.Counter, call: dict) -> None:
    if "raised" in call:
        counts[f"errors: {call['raised']['type']}"] += 1
        counts["cancellations"] += call["raised"]["type"] == "CancelledError"
    counts["never ended"] += "never" in call
    counts["planned"] += "plan" in call
    receipt = call.get("receipt")
    if receipt is None:
        return
    counts["receipts"] += 1
    counts["vectors" if call["call"] == "embed" else "scores"] += len(call["rows"])
    counts["reranked"] += call["call"] == "rerank"
    counts["hits"] += receipt["cache_hits"]
    counts["lossy hits"] += receipt["lossy_hits"]
    counts["saved money"] += receipt["saved_nanousd"] > 0
    counts["unsure money"] += receipt["unsure_nanousd"] > 0
    counts["estimated bills"] += receipt["estimated"]
    counts["truncations"] += len(receipt["truncations"])
    counts["averaged"] += len(receipt["averaged"])
    counts["selected"] += receipt["selected"] is not None
    counts["rows with errors"] += len(call["errors"])
    counts["matryoshka sizes"] += call["call"] == "embed" and call["shape"][1] in {4, 6, 8, 512}
    counts["failovers"] += any(not route.startswith(("routes.r0", "cache")) for route in receipt["routes"])
    answered = receipt["unique_texts"] - receipt["cache_hits"] - len(call["errors"])
    counts["texts from another caller's request"] += max(0, answered) if receipt["route"] == "cache" else 0
    for error in call["errors"].values():
        counts[f"errors: {error['type']}"] += 1
        counts["refused rows"] += error["type"] == "RefusedInputError"


def _count_requests(counts: collections.Counter, line: dict, scenario: dict) -> None:
    asked = [{text for text in call["texts"] if isinstance(text, str)} for call in scenario["calls"]]
    for request in line["requests"]:
        if request["what"] == "closed":
            continue
        counts["upstream requests"] += 1
        counts[f"upstream: {request['what']}"] += 1
        counts["retries"] += request["try"] > 0
        counts["cancelled upstream"] += "cancelled" in request
        texts = request["texts"]
        counts["refused requests that were halved"] += request["what"] == "refused" and len(texts) > 1
        bare = {re.sub("^(query: |passage: |ask )", "", text) for text in texts}
        whole = all(any(text in call for call in asked) for text in bare)
        counts["requests merged from several callers"] += whole and not any(bare <= call for call in asked)


def exchanged(before: Path, after: Path) -> list[str]:
    """Return the entries that one side misses in caches of the other; empty if there are none."""
    problems: list[str] = []
    found = 0
    for writer, reader, way in ((before, after, "AFTER reads BEFORE's"), (after, before, "BEFORE reads AFTER's")):
        with tempfile.TemporaryDirectory() as folder:
            caches = Path(folder, "caches")
            caches.mkdir()
            arguments = ["--exchange", str(caches)]
            list(run_child(writer, arguments))
            copied = Path(folder, "copied")
            shutil.copytree(caches, copied)
            own = json.loads("".join(run_child(writer, arguments)))
            others = json.loads("".join(run_child(reader, ["--exchange", str(copied)])))
        for one, other in zip(own, others, strict=True):
            where = f"{way} cache, {json.dumps(one['case'])}"
            if other["requests"] or one["requests"]:
                problems.append(
                    f"{where}: {other['requests']} requests were sent upstream ({one['requests']} by itself)"
                )
            for left, right in zip(one["calls"], other["calls"], strict=True):
                found += right["hits"] or 0
                if right["hits"] is None or right["hits"] != right["unique"]:
                    problems.append(f"{where}: {right['hits']} hits of {right['unique']} texts {right['raised'] or ''}")
                if left["rows"] != right["rows"]:
                    problems.append(f"{where}: the vectors differ")
    print(f"caches written by one side and read by the other: {found:,} hits, {len(problems)} problems")
    return problems


def compare(before: Path, after: Path, *, requests: int, seed: int, jobs: int, seeds: str = "0 1") -> Comparison:
    """Compare this many requests, in several processes."""
    scenarios_ = -(-requests // scenarios.CALLS)
    bounds = [scenarios_ * part // jobs for part in range(jobs + 1)]
    one, other = seeds.split()

    def part(first: int, last: int) -> Comparison:
        played = span(seed, first, last)
        lines = run_child(before, played, hash_seed=one), run_child(after, played, hash_seed=other)
        return compare_lines(*lines, seed=seed)

    with ThreadPoolExecutor(jobs) as pool:
        parts = pool.map(part, bounds[:-1], bounds[1:])
        total = Comparison()
        for one_part in parts:
            total.counts.update(one_part.counts)
            total.found += one_part.found
    return total


def shortfalls(counts: collections.Counter) -> list[str]:
    """Return the behaviours that the requests did not reach often enough."""
    share = counts["requests"] / 20_000
    wanted = {name: max(1, int(least * share * 0.7)) for name, least in LEAST.items()}
    few = [f"{name}: {counts[name]} of at least {least}" for name, least in wanted.items() if counts[name] < least]
    lost = sum(counts[f"errors: {name}"] for name in ("AttributeError", "NameError", "TypeError", "RuntimeError"))
    stuck = counts["stuck"]
    return [*few, f"{lost} calls and {stuck} scenarios ended in errors of the harness"] if lost or stuck else few


def report(comparison: Comparison, meant: list[Meant], *, shown: int = 5) -> bool:
    """Print the counts and differences; return whether all differences are intended."""
    for name, number in sorted(comparison.counts.items()):
        print(f"{name:>42}  {number:,.0f}" if not isinstance(number, float) else f"{name:>42}  {number:.1f}")
    explained: collections.Counter = collections.Counter()
    groups: dict[str, list[Difference]] = {}
    for one in comparison.found:
        name = next((each.name for each in meant if each.explains(one)), None)
        if name is None:
            groups.setdefault(one.kind, []).append(one)
        else:
            explained[name] += 1
    for each in meant:
        print(f"intended: {each.name}: {explained[each.name]} differences ({each.reason})")
    for kind, members in sorted(groups.items(), key=lambda group: -len(group[1])):
        print(f"\n{len(members)} differences of {kind}, in {len({one.scenario for one in members})} scenarios")
        for one in members[:shown]:
            print(f"  scenario {one.scenario} {one.path}\n    before {_shown(one.before)[:300]}")
            print(f"    after  {_shown(one.after)[:300]}")
    unmeant = sum(map(len, groups.values()))
    print(f"\n{unmeant} unintended differences, {sum(explained.values())} intended")
    return not unmeant


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="a checkout")
    parser.add_argument("after", type=Path, help="a checkout")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--meant", type=Path, help="TOML file of intended differences")
    parser.add_argument("--hash-seeds", default="0 1", help="PYTHONHASHSEED of the two sides")
    parser.add_argument("--no-caches", action="store_true", help="do not read the caches of one side with the other")
    parser.add_argument("--quick", action="store_true", help="do not check minimum counts")
    arguments = parser.parse_args()
    began = time.monotonic()
    comparison = compare(
        arguments.before,
        arguments.after,
        requests=arguments.requests,
        seed=arguments.seed,
        jobs=arguments.jobs,
        seeds=arguments.hash_seeds,
    )
    good = report(comparison, read_meant(arguments.meant))
    if not arguments.no_caches:
        problems = exchanged(arguments.before, arguments.after)
        print(*problems[:20], sep="\n")
        good = good and not problems
    missed = [] if arguments.quick else shortfalls(comparison.counts)
    for line in missed:
        print(f"too few to be conclusive: {line}")
    print(f"{time.monotonic() - began:.0f} s")
    return 0 if good and not missed else 1


if __name__ == "__main__":
    sys.exit(main())
