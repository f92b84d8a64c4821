"""The documentation's own examples run."""

import asyncio
import re
from pathlib import Path

from api_servers import KEY, IndexedServer, one_of
from embedway.config import Config
from embedway.providers.base import Endpoint

DOCS = Path(__file__).parents[1] / "docs"


class AcmeServer(IndexedServer):
    path = "/embed"
    most = 64

    def fields(self):
        return {"model": one_of("m"), "texts": self.texts, "kind": one_of("query", "document")}

    def answer(self, body):
        return self.listed(body["texts"], self.vectors(body["texts"], None))


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / "providers.md").read_text("utf-8"), re.DOTALL)


def test_the_provider_of_your_own():
    names = {}
    exec(blocks("python")[0], names)  # noqa: S102 - our own page
    server = AcmeServer()

    async def main():
        async with server.running():
            provider = names["Acme"](Endpoint("r", "m", server.url, secret=KEY))
            try:
                return await provider.embed(["a", "b"], input_type="query", dimensions=None)
            finally:
                await provider.aclose()

    assert asyncio.run(main()).vectors.shape == (2, 16)


def test_the_settings_of_a_route(tmp_path):
    path = tmp_path / "embedway.toml"
    path.write_text(blocks("toml")[0])
    config = Config.load([path], environ={"AZURE_OPENAI_API_KEY": KEY})
    route = config.routes["azure"]
    assert config.key_for("azure-openai", route) == KEY
    assert (route.tokens_per_minute, config.upstream.concurrency) == (350_000, 8)
