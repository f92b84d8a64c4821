"""A server with a model of the user's own, and a call with settings whose route leads to it."""

from api_servers import OpenAIServer
from embedway import AsyncEmbedder, Config


class OwnServer(OpenAIServer):
    width = 1024
    models = frozenset({"my-model"})

    def refusal(self, request, body):
        return self.refusal_of_body(body)  # it needs no key


async def embed_with(settings, model="my-model"):
    """Embed a text with these settings; the URL of their route is replaced by that of a server on this machine."""
    server = OwnServer()
    async with server.running():
        settings["routes"]["my-model"]["base_url"] = f"{server.url}/v1"
        config = Config.load(environ={}, overrides={**settings, "cache.backend": "none", "ledger.backend": "none"})
        async with AsyncEmbedder(config=config) as embedder:
            return await embedder.embed(["a text"], model=model)
