"""Program of the inference process: `python -m embedway.server.inference`, started by its supervisor.

Standard input is a pipe of the supervisor. Its first line is JSON: settings files, overrides and the descriptor of the
listening socket. The process ends when the pipe is closed, which happens however the supervisor ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import threading
from typing import Any

from embedway.config import Config
from embedway.errors import EmbedwayError
from embedway.opt_out import opt_out_of_telemetry
from embedway.server.inference.service import InferenceService
from embedway.server.inference.settings import InferenceLimits

_log = logging.getLogger("embedway.server.inference")
#: Maximum size of the first line.
_MOST_BYTES = 1 << 24


def main() -> int:
    """Run the process until SIGTERM, or until its supervisor has ended. Return its exit code."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal sends them to the supervisor, which decides
    opt_out_of_telemetry()
    given = json.loads(sys.stdin.buffer.readline(_MOST_BYTES))
    logging.basicConfig(level=given["log_level"], format="%(levelname)s %(name)s: %(message)s")
    try:
        config = Config.load(given["files"], overrides=given["overrides"])
    except EmbedwayError as error:
        _log.error("%s", error)
        return error.exit_code
    threading.Thread(target=_end_with_supervisor, name="embedway-supervisor", daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        _runner().run(_serve(config, given))
    # Threads of a hanging batch would be joined.
    logging.shutdown()
    os._exit(0)


def _runner() -> asyncio.Runner:
    try:
        import uvloop  # noqa: PLC0415  part of the extra `server`
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def _end_with_supervisor() -> None:
    """End this process at once when the supervisor's pipe is closed."""
    while sys.stdin.buffer.read(1 << 10):
        pass
    os._exit(1)


async def _serve(config: Config, given: dict[str, Any]) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    service = InferenceService(config, InferenceLimits.of(config.server))
    listener = socket.socket(fileno=given["listener"])
    listener.setblocking(False)
    await service.start(listener, warm=given["warm"])
    await ended.wait()
    await service.aclose(drain_s=given["drain_s"])


if __name__ == "__main__":
    sys.exit(main())
