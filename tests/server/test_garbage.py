"""Garbage collection in a process of the gateway."""

import subprocess
import sys

PROGRAM = """
import asyncio, gc, weakref
from embedway.server.garbage import freeze_loaded_objects

class Node: pass

def garbage():
    node = Node()
    node.own = node
    return weakref.ref(node)

async def main():
    loop, later = asyncio.get_running_loop(), []
    loop.call_later = lambda delay, function, *rest: later.append(function)
    old = garbage()
    kept = [[number] for number in range(1_000)]
    freeze_loaded_objects()
    assert old() is None
    first = gc.get_freeze_count()
    assert first > 1_000
    assert not any(one is kept for one in gc.get_objects())
    kept_later = [[number] for number in range(1_000)]
    new = garbage()
    gc.collect()
    assert new() is None
    later[0]()
    assert gc.get_freeze_count() >= first + 1_000
    print("frozen")

asyncio.run(main())
"""


def test_what_is_loaded_is_not_inspected_again_and_garbage_is_freed():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == "frozen\n", done.stderr
