"""Other gateways before the loopback service, each at the settings that its documentation recommends for production.

- LiteLLM: one worker, no database, no callbacks, no cache, errors alone in the log.
- Portkey: the published build on Node; the route is in headers of each request. It answers 500 with the newest
  `@hono/node-server`, so the folder has a `package.json` that pins 1.13.8 before the installation (`gateways.py`).
- Ferro (`ferrogw`): a compiled gateway (Go). It asks the service for floats even if the caller asks for base64.
- SMG (`smg`): a compiled router (Rust) that passes requests on, and counts and prices nothing.

These were tried and are not here: `@maximhq/bifrost` (npm) downloads its program from its own site when it starts,
and `tensorzero` (PyPI) contains the client alone.
"""

import shutil
from pathlib import Path

from gateways import HOST, Server, free_port

_LITELLM = """
model_list:
  - model_name: text-embedding-3-small
    litellm_params:
      model: openai/text-embedding-3-small
      api_base: http://{host}:{port}/v1
      api_key: sk-none
litellm_settings:
  cache: false
  telemetry: false
  set_verbose: false
  request_timeout: 60
general_settings:
  disable_spend_logs: true
"""
_FERRO = """
strategy: {mode: fallback}
targets:
  - virtual_key: openai
"""
_QUIET = {"DO_NOT_TRACK": "1", "NO_COLOR": "1"}


def litellm(peers, folder, upstream):
    program = peers / "litellm/bin/litellm"
    file = folder / "litellm.yaml"
    file.write_text(_LITELLM.format(host=HOST, port=upstream), encoding="utf-8")
    port = free_port()
    command = [program, "--config", file, "--host", HOST, "--port", port, "--num_workers", 1, "--telemetry", "False"]
    environment = {
        **_QUIET,
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        # No contestant checks keys; without this variable it does not start.
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    return program, Server("litellm", command, port, "/health/readiness", environment=environment)


def portkey(peers, folder, upstream):
    del folder
    program = peers / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js"
    port, host = free_port(), f"http://{HOST}:{upstream}/v1"
    headers = (("x-portkey-provider", "openai"), ("x-portkey-custom-host", host), ("authorization", "Bearer sk-none"))
    environment = {**_QUIET, "TRUSTED_CUSTOM_HOSTS": HOST, "NODE_ENV": "production"}
    command = [shutil.which("node") or "node", program, f"--port={port}", "--headless"]
    return program, Server("portkey", command, port, "/", headers, environment=environment)


def ferro(peers, folder, upstream):
    program = peers / "ferro/bin/ferrogw"
    file = folder / "ferro.yaml"
    file.write_text(_FERRO, encoding="utf-8")
    port = free_port()
    environment = {
        **_QUIET,
        "GATEWAY_CONFIG": str(file),
        "PORT": str(port),
        "HOST": HOST,
        "MASTER_KEY": "fgw_" + "0" * 32,
        "ALLOW_UNAUTHENTICATED_PROXY": "true",
        "OPENAI_API_KEY": "sk-none",
        "OPENAI_BASE_URL": f"http://{HOST}:{upstream}",
        "LOG_LEVEL": "error",
        "RATE_LIMIT_RPS": "1000000",
        "RATE_LIMIT_BURST": "1000000",
    }
    return program, Server("ferro", [program, "serve"], port, "/readyz", environment=environment)


def smg(peers, folder, upstream):
    del folder
    program = peers / "smg/bin/smg"
    port, metrics = free_port(), free_port()
    command = [program, "launch", "--host", HOST, "--port", port, "--worker-urls", f"http://{HOST}:{upstream}"]
    command += ["--prometheus-host", HOST, "--prometheus-port", metrics, "--log-level", "error"]
    return program, Server("smg", command, port, "/health", environment=_QUIET)


PEERS = {"litellm": litellm, "portkey": portkey, "ferro": ferro, "smg": smg}


def peer(name, peers, folder, upstream):
    """Return a gateway before the service on this port, or None if it is not installed."""
    program, server = PEERS[name](Path(peers).absolute(), Path(folder), upstream)
    if Path(program).exists():
        return server
    print(f"{name} is left out: there is no {program}")
    return None
