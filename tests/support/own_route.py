"""Settings of one model, `acme/m`, with routes to servers on this machine."""

from api_servers import KEY
from embedway import Config


def load_routes(*servers, **overrides):
    """Load settings with the routes `routes.r0`, `routes.r1`, … to these servers, without cache and ledger."""
    routes = {
        f"routes.r{number}": {
            "model": "acme/m",
            "provider": "openai-compatible",
            "base_url": server.url + "/v1",
            "upstream_model": "text-embedding-3-small",
            "api_key": KEY,
            **({"same_space": True} if len(servers) > 1 else {}),
        }
        for number, server in enumerate(servers)
    }
    return Config.load(
        environ={},
        overrides={
            "models.m": {"name": "acme/m", "dimensions": 16, "max_tokens": 50},
            **routes,
            "cache.backend": "none",
            "ledger.backend": "none",
            "upstream.max_attempts": 1,
            **overrides,
        },
    )
