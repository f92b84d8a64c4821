"""Program with an inference process under a supervisor. Its argument is JSON: settings, path, time without a beat."""

import json
import sys
from pathlib import Path

from embedway import Config
from embedway.server import supervisor
from embedway.server.inference.run import run_inference
from embedway.server.listening import listen_at
from embedway.server.supervisor import Child, Supervisor


def main(settings, path, hang_s):
    supervisor.HANG_S = hang_s
    config = Config.load(environ={}, overrides=settings)
    listener = listen_at(Path(path))
    child = Child(
        "the inference process", lambda heartbeat, lifeline: run_inference(config, listener, heartbeat, lifeline)
    )
    return Supervisor([child], 30.0, lambda: print("ready", flush=True), lambda: None).run()  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(*json.loads(sys.argv[1])))
