"""Fuzz the public interface: `python tests/fuzz/run.py --minutes 10 --seed 1 [--area calls] [--entry NAME]`.

Areas: `calls` (odd arguments), `folders` (damaged model folders), `answers` (services and hubs that misbehave) and
`libraries` (hooks, progress and providers that raise). Each area runs in its own process, which is started again after
a case that hangs or crashes. Prints for each entry: cases, exceptions outside `embedway.errors`, hangs, crashes,
secrets and texts seen, and peak memory. Exits with 1 if there is any fault.
"""

import argparse
import collections
import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

CHILD = Path(__file__).with_name("child.py")
AREAS = ("calls", "folders", "answers", "libraries")
KINDS = ("outside", "wrong", "hang", "crash", "secret", "text", "long", "memory")
#: Time limit of one case, and of the start of a process, in seconds.
_CASE_S, _START_S = 30.0, 90.0
#: Growth of peak memory in one case that is a fault.
_MOST_GROWTH_MB = 1500


@dataclass
class Report:
    """Counts by entry, and every fault: kind, case, what was seen."""

    cases: collections.Counter = field(default_factory=collections.Counter)
    outcomes: collections.Counter = field(default_factory=collections.Counter)
    peaks_mb: dict = field(default_factory=dict)
    slowest_s: dict = field(default_factory=dict)
    faults: list = field(default_factory=list)

    def add(self, verdict, peak_before_mb):
        entry = verdict["entry"]
        self.cases[entry] += 1
        self.outcomes[verdict["outcome"]] += 1
        self.peaks_mb[entry] = max(self.peaks_mb.get(entry, 0), verdict["peak_mb"])
        self.slowest_s[entry] = max(self.slowest_s.get(entry, 0), verdict["seconds"])
        for kind, seen in verdict["faults"].items():
            self.faults.append((kind, entry, verdict["name"], seen))
        if verdict["peak_mb"] - peak_before_mb > _MOST_GROWTH_MB:
            seen = f"{verdict['peak_mb'] - peak_before_mb:,.0f} MB more"
            self.faults.append(("memory", entry, verdict["name"], seen))


def fuzz(area, *, seed=1, first=0, count=10**9, seconds=60.0):
    """Run cases of an area and return the report."""
    report = Report()
    end = time.monotonic() + seconds
    while count > 0 and (left := end - time.monotonic()) > 0:
        done = _run_child(report, [area, seed, first, count, int(left) + 1])
        first, count = first + done, count - done
        if done == 0:
            break
    return report


def _run_child(report, arguments):
    """Run a child until it ends or one case fails to; return the number of cases done, that one included."""
    with tempfile.TemporaryFile() as errors:
        command = [sys.executable, str(CHILD), *map(str, arguments)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL)
        lines = queue.SimpleQueue()
        threading.Thread(target=_forward, args=(child.stdout, lines), daemon=True).start()
        done = _read(report, lines, arguments)
        child.kill()
        child.wait()
        child.stdout.close()
        errors.seek(0)
        printed = errors.read().decode(errors="replace")
    for kind, mark in report.marks.items():
        if mark in printed:
            report.faults.append((kind, "printed", "standard error", "a library printed it"))
    if report.tail_wanted:
        report.faults[-1] = (*report.faults[-1][:3], printed[-3000:])
    return done


def _forward(stream, lines):
    """Put each line of a stream into a queue, and None at its end."""
    with contextlib.suppress(ValueError):  # closed by the parent
        for line in stream:
            lines.put(line)
    lines.put(None)


def _read(report, lines, arguments):
    report.marks, report.tail_wanted = {}, False
    done, peak_mb, current = 0, float("inf"), None
    while True:
        try:
            line = lines.get(timeout=_START_S if current is None else _CASE_S)
        except queue.Empty:
            report.tail_wanted = True
            report.faults.append(("hang", *(current or ("start", str(arguments))), ""))
            return done + 1
        if line is None:
            report.tail_wanted = True
            report.faults.append(("crash", *(current or ("start", str(arguments))), ""))
            return done + (current is not None)
        said = json.loads(line)
        if "marks" in said:
            report.marks = said["marks"]
        elif "begin" in said:
            current = tuple(said["begin"][1:])
        elif "verdict" in said:
            report.add(said["verdict"], peak_mb)
            done, peak_mb = done + 1, said["verdict"]["peak_mb"]
        else:
            return 10**9


def show(area, report):
    """Print counts by entry, then one line for each different fault."""
    counts = collections.Counter((kind, entry) for kind, entry, *_ in report.faults)
    print(f"\n{area}: {report.cases.total()} cases")
    print(f"{'entry':44} {'cases':>6} {' '.join(f'{kind:>7}' for kind in KINDS)} {'slowest':>8} {'peak':>8}")
    for entry, cases in sorted(report.cases.items()):
        found = " ".join(f"{counts[kind, entry] or '':>7}" for kind in KINDS)
        print(f"{entry:44} {cases:6} {found} {report.slowest_s[entry]:6.1f} s {report.peaks_mb[entry]:5.0f} MB")
    seen = set()
    for kind, _, name, what in report.faults:
        key = (kind, what) if kind == "outside" else (kind, name)
        if key not in seen:
            seen.add(key)
            print(f"  {kind}: {name}: {what}")


def main():
    """Run the areas in turn, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--area", choices=AREAS, action="append")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--count", type=int, default=10**9, help="maximum cases of each area")
    chosen = parser.parse_args()
    areas = chosen.area or AREAS
    faults = 0
    for area in areas:
        seconds = chosen.minutes * 60 / len(areas)
        report = fuzz(area, seed=chosen.seed, first=chosen.first, count=chosen.count, seconds=seconds)
        show(area, report)
        faults += len(report.faults)
    print(f"\n{faults} faults; outcomes are reproduced with --seed {chosen.seed} --area AREA --first NUMBER --count 1")
    return 1 if faults else 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
