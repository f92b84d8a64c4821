"""Run cases of one area in this process, and print a line of JSON before and after each.

`child.py AREA SEED FIRST COUNT SECONDS`: the line before names the case, so that the parent can name one that hangs or
crashes the process.
"""

import dataclasses
import faulthandler
import importlib
import itertools
import json
import logging
import os
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]

from cases import MARKS, LogRecords, judge  # noqa: E402

#: Time after which the stacks of a case are printed for the parent, which ends it soon after, in seconds.
_STACKS_S = 25
#: A case that needs more memory than this raises MemoryError, instead of exhausting the machine.
_MOST_BYTES = 6 * 2**30


def main(area, seed, first, count, seconds):
    """Run the cases `first` to `first + count`, for at most `seconds`."""
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library's prints go where the parent searches for the marks
    warnings.simplefilter("ignore")
    records = LogRecords()
    logging.basicConfig(level=logging.DEBUG, handlers=[records], force=True)

    def say(kind, value):
        print(json.dumps({kind: value}), file=lines, flush=True)

    say("marks", MARKS)
    faulthandler.dump_traceback_later(_STACKS_S)
    with tempfile.TemporaryDirectory() as place:
        os.environ |= {"XDG_CACHE_HOME": f"{place}/home", "XDG_STATE_HOME": f"{place}/home", "HOME": f"{place}/home"}
        end = time.monotonic() + seconds
        for number, case in enumerate(importlib.import_module(area).cases(seed, Path(place))):
            if number < first:
                continue
            if number >= first + count or time.monotonic() > end:
                break
            faulthandler.dump_traceback_later(_STACKS_S)
            say("begin", [number, case.entry, case.name])
            say("verdict", dataclasses.asdict(judge(case, records)))
    say("end", True)
    lines.close()
    os._exit(0)  # threads of cases that were abandoned must not delay the parent


if __name__ == "__main__":
    main(sys.argv[1], *map(int, itertools.islice(sys.argv, 2, 6)))
