"""Random mixes of odd behaviours of services, over real HTTP: `python tests/fuzz/services.py --mixes 10000 --seed 1`.

Each mix is one or two routes, some calls in rounds, a cache and a budget. Prints the rate, the faults by kind with the
first mixes that show them, and exits with 1 if there are any. `--first NUMBER --mixes 1` plays one mix again, and
`--shrink` simplifies the first mix of each kind. `--each` plays each behaviour alone.
"""

import argparse
import asyncio
import collections
import multiprocessing
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [path for path in (str(HERE), str(HERE.parent / "support")) if path not in sys.path]

from service_judge import judge  # noqa: E402
from service_mixes import draw, shrink, singles  # noqa: E402
from service_play import Player  # noqa: E402
from service_server import OddServer  # noqa: E402


@dataclass
class Report:
    """Mixes, requests and faults of a run: pairs of the number of a mix and its finding."""

    mixes: int = 0
    requests: int = 0
    rows: int = 0
    failed_calls: int = 0
    faults: list = field(default_factory=list)

    def __add__(self, other):
        return Report(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def fuzz(seed, numbers, judge_=judge):
    """Play mixes and return the report."""
    return asyncio.run(_fuzz(seed, numbers, judge_))


async def _fuzz(seed, numbers, judge_):
    report = Report()
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        async with OddServer().running() as server:
            player = Player(server, folder)
            with player.watching():
                for number in numbers:
                    seen = await player.play(draw(seed, number))
                    report.mixes += 1
                    report.requests += len(seen.bill.served)
                    report.failed_calls += sum(outcome.error is not None for outcome in seen.outcomes)
                    report.rows += sum(len(one.result) - len(one.result.errors) for one in seen.outcomes if one.result)
                    report.faults += [(number, finding) for finding in dict.fromkeys(judge_(seen))]
    return report


def _memory():
    """Return a folder in memory, or None: the ledger waits for the disk at each commit."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  a new folder of our own is made in it


async def _sweep():
    """Play each behaviour alone, and return the kinds of faults of each."""
    found = {}
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        async with OddServer().running() as server:
            player = Player(server, folder)
            with player.watching():
                for name, mix in singles():
                    found.setdefault(name, {}).update({one.kind: one.what for one in judge(await player.play(mix))})
    return found


async def _smallest(seed, number, kind):
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        async with OddServer().running() as server:
            player = Player(server, folder)
            found = {}
            with player.watching():
                loop_mix = draw(seed, number)

                async def fails(mix):
                    findings = [one for one in judge(await player.play(mix)) if one.kind == kind]
                    found[mix] = findings
                    return bool(findings)

                mix = await shrink(loop_mix, fails)
            return mix, found.get(mix, [])


def show(report, seconds, *, seed, shrinks):
    """Print the report."""
    print(
        f"{report.mixes:,} mixes, {report.requests:,} requests, {report.rows:,} rows, "
        f"{report.failed_calls:,} failed calls, {report.mixes / seconds:.0f} mixes/s"
    )
    kinds = collections.defaultdict(list)
    for number, finding in report.faults:
        kinds[finding.kind].append((number, finding.what))
    for kind, found in sorted(kinds.items()):
        numbers = list(dict.fromkeys(number for number, _ in found))
        print(f"\n{kind}: {len(numbers)} mixes, such as {numbers[:5]}")
        for what, count in collections.Counter(what for _, what in found).most_common(8):
            print(f"  {count:5} x {what}")
        if shrinks:
            mix, findings = asyncio.run(_smallest(seed, numbers[0], kind))
            print("  smallest: " + mix.to_text().replace("\n", "\n  "))
            print("  " + "\n  ".join(f"{one.kind}: {one.what}" for one in findings))
    print(f"\n{len(report.faults)} faults")


def main():
    """Run the mixes, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mixes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first mix")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--shrink", action="store_true", help="simplify the first mix of each kind of fault")
    parser.add_argument(
        "--each", action="store_true", help="play each behaviour alone instead, and list those with faults"
    )
    chosen = parser.parse_args()
    if chosen.each:
        found = asyncio.run(_sweep())
        for name, kinds in found.items():
            if kinds:
                print(f"{name}: " + "; ".join(f"{kind} ({what})" for kind, what in sorted(kinds.items())))
        print(f"{sum(map(bool, found.values()))} of {len(found)} behaviours with faults")
        return 1 if any(found.values()) else 0
    numbers = range(chosen.first, chosen.first + chosen.mixes)
    started = time.monotonic()
    if chosen.jobs == 1:
        report = fuzz(chosen.seed, numbers)
    else:
        parts = [(chosen.seed, numbers[job :: chosen.jobs]) for job in range(chosen.jobs)]
        with multiprocessing.get_context("spawn").Pool(chosen.jobs) as pool:
            report = sum(pool.starmap(fuzz, parts), Report())
    show(report, time.monotonic() - started, seed=chosen.seed, shrinks=chosen.shrink)
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
