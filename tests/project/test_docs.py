"""The examples in the documentation run."""

import asyncio
import functools
import json
import os
import re
import runpy
import sys
import tomllib
from pathlib import Path

import pytest

from api_servers import KEY, IndexedServer, one_of
from embedway.config import Config
from embedway.config.known_services import SERVICES
from embedway.config.load import KEYS
from embedway.providers.base import Endpoint
from own_model import embed_with

DOCS = Path(__file__).parents[2] / "docs"


class AcmeServer(IndexedServer):
    path = "/embed"
    most = 64

    def fields(self):
        return {"model": one_of("m"), "texts": self.texts, "kind": one_of("query", "document")}

    def answer(self, body):
        return self.listed(body["texts"], self.vectors(body["texts"], None))


def blocks(language, page="providers.md"):
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", [*DOCS.glob("*.md"), *DOCS.parent.glob("*.md")], ids=lambda page: page.name)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_provider_of_your_own():
    names = {}
    exec(next(block for block in blocks("python") if "class Acme" in block), names)  # noqa: S102 - our own page
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
    assert config.key_for("azure-openai", "azure") == KEY
    assert (route.tokens_per_minute, config.upstream.concurrency) == (350_000, 8)


def test_all_settings_of_the_page_are_settings(tmp_path):
    for number, block in enumerate(blocks("toml")):
        if "[project" in block or 'provider = "custom"' in block:  # a test installs that provider
            continue
        path = tmp_path / f"{number}.toml"
        path.write_text(block)
        assert Config.load([path], environ={}).sources


@pytest.mark.parametrize("page", ["cache.md", "selection.md", "budgets.md", "settings.md"])
def test_all_settings_of_other_pages_are_settings(tmp_path, page):
    for number, block in enumerate(blocks("toml", page)):
        path = tmp_path / f"{number}.toml"
        path.write_text(block)
        assert Config.load([path], environ={}).sources


def test_the_page_of_settings_names_every_host_and_variable_of_the_services():
    page = (DOCS / "settings.md").read_text("utf-8")
    for service in SERVICES.values():
        named = (*service.keys, *service.hosts, *service.headers, service.address, service.version)
        assert [name for name in named if name.lstrip(".") not in page] == []


def test_the_selection_of_the_page(default_model_directory, monkeypatch):
    monkeypatch.setenv("EMBEDWAY_WEIGHTS__DIRECTORY", str(default_model_directory))
    monkeypatch.setenv("EMBEDWAY_WEIGHTS__OFFLINE", "1")
    names = {}
    exec(blocks("python", "selection.md")[0], names)  # noqa: S102  our own page
    assert names["result"].receipt.selected.model == names["result"].receipt.model


@pytest.mark.parametrize("example", ["english.txt", "code.py", "mix"])
def test_the_selections_of_the_page_are_what_the_command_prints(example):
    names = runpy.run_path(str(DOCS / "examples" / "print_selections.py"))
    assert set(names["EXAMPLES"]) == {"english.txt", "code.py", "mix"}
    assert names["printed"](example) in (DOCS / "selection.md").read_text("utf-8")


def test_the_page_says_whose_the_shipped_speeds_are():
    names = runpy.run_path(str(DOCS / "examples" / "print_selections.py"))
    assert names["speeds"]() in (DOCS / "selection.md").read_text("utf-8")


def test_the_reranking_of_the_page(tmp_path, default_model_directory, monkeypatch):
    from embedway import Embedder
    from embedway.catalog import DEFAULT_MODEL, default_catalog
    from embedway.weights.store import StoreSettings, WeightsStore
    from tiny_models import tiny_reranker

    folder = WeightsStore(StoreSettings(root=default_model_directory)).find(
        default_catalog().get(DEFAULT_MODEL).weights
    )
    reranker = tiny_reranker(tmp_path / "reranker", folder.path / "tokenizer.json")
    block = next(block for block in blocks("python") if "rerank" in block)
    names = {"passages": ["one", "two", "three", "four"]}
    assert "BAAI/bge-reranker-v2-m3" in block
    monkeypatch.setattr(Embedder, "__init__", functools.partialmethod(Embedder.__init__, config=Config()))
    exec(block.replace("BAAI/bge-reranker-v2-m3", str(reranker)), names)  # noqa: S102 - our own page
    assert len(names["result"].order) == 3


def test_the_hook_of_the_page(caplog):
    from embedway import AsyncEmbedder

    names = {}
    exec(blocks("python", "hooks.md")[0], names)  # noqa: S102  our own page
    settings = {
        "models.m": {"name": "acme/m", "dimensions": 16, "max_tokens": 50, "price_usd_per_million_tokens": "1"},
        "routes.q": {"model": "acme/m", "provider": "fake"},
        "cache.backend": "none",
    }

    async def main():
        config = Config.load(environ={}, overrides=settings)
        async with AsyncEmbedder(config=config, hooks=[names["SlowHook"](limit_s=0)]) as embedder:
            await embedder.embed(["a text"], model="acme/m")

    asyncio.run(main())
    lines = [record.getMessage() for record in caplog.records if record.name == "slow"]
    assert any(re.fullmatch(r"ReservationDetails\(model='acme/m', .* s: done", line) for line in lines)


def test_the_page_of_commands_is_their_help():
    made = runpy.run_path(str(DOCS / "examples" / "print_commands.py"))["page"]()
    assert (DOCS / "command-line.md").read_text("utf-8") == made, "run python docs/examples/print_commands.py"


def test_the_model_of_your_own_on_the_page_of_selection_runs():
    texts = [
        next(block for block in blocks(kind, "selection.md") if "models.my-model]" in block or '"models"' in block)
        for kind in ("toml", "json")
    ]
    settings = tomllib.loads(texts[0])
    assert settings == json.loads(texts[1])
    assert asyncio.run(embed_with(settings)).vectors.shape == (1, 1024)


def install(folder):
    """Install the package of the page into a folder, as pip does: its module and its entry points."""
    project = tomllib.loads(next(block for block in blocks("toml") if "entry-points" in block))["project"]
    (folder / "acme_embedway.py").write_text(next(block for block in blocks("python") if "class Acme" in block))
    info = folder / f"acme_embedway-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))


class OwnAcmeServer(AcmeServer):
    width = 1024

    def fields(self):
        return {**super().fields(), "model": one_of("acme-embed")}


def test_the_provider_of_your_own_is_installed_and_used(tmp_path):
    install(tmp_path)
    settings = tmp_path / "embedway.toml"
    text = next(block for block in blocks("toml") if 'provider = "custom"' in block)
    server = OwnAcmeServer()

    async def main():
        async with server.running():
            settings.write_text(text.replace("https://api.acme.example/v1", server.url))
            environ = {**os.environ, "PYTHONPATH": str(tmp_path), "ACME_API_KEY": KEY}
            command = ("-m", "embedway", "--config", str(settings), "embed", "a text", "-m", "acme-embed")
            process = await asyncio.create_subprocess_exec(sys.executable, *command, env=environ, stdout=-1, stderr=-1)
            return process, await process.communicate()

    process, (printed, told) = asyncio.run(main())
    assert (process.returncode, told.decode()) == (0, "")
    assert len(json.loads(printed)["embedding"]) == 1024


def test_the_page_lists_all_metrics():
    page = (DOCS / "monitoring.md").read_text("utf-8")
    names = runpy.run_path(str(DOCS / "examples" / "print_metrics.py"))
    assert page == names["page"](), "run python docs/examples/print_metrics.py"


def test_the_page_of_settings_lists_every_setting():
    names = runpy.run_path(str(DOCS / "examples" / "print_settings.py"))
    page = (DOCS / "settings.md").read_text("utf-8")
    assert page == names["page"](), "run python docs/examples/print_settings.py"
    assert [key for key in KEYS.all if f"`{key.replace('*', 'NAME')}`" not in page] == []
