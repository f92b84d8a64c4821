"""Pictures of the gateway's page under load, light and dark, for docs/gateway.md.

    .venv/bin/python benchmarks/screenshots.py [--seconds 420]

Runs `embedway serve` with two workers, budgets and three models, one of which is out of order; sends requests; and
takes the pictures with Chromium (make install-chromium). The priced model is the provider `fake`, which costs nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import random
import sys
import tempfile
from pathlib import Path

import aiohttp

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from chromium import browser_at, running_chromium  # noqa: E402
from gateways import gateway_process  # noqa: E402

SETTINGS = """
[embedding]
default_model = "all-MiniLM-L6-v2"
[models.large]
name = "acme/embed-large"
dimensions = 16
max_tokens = 500
price_usd_per_million_tokens = "20"
[routes.east]
model = "acme/embed-large"
provider = "fake"
[models.legacy]
name = "acme/embed-legacy"
dimensions = 16
max_tokens = 500
price_usd_per_million_tokens = "50"
[routes.legacy]
model = "acme/embed-legacy"
provider = "openai-compatible"
base_url = "http://127.0.0.1:9/v1"
upstream_model = "legacy"
api_key = "no-server-is-there"
[budgets.all-spending]
usd = "50"
period = "month"
[budgets.large-model]
usd = "6"
period = "day"
model = "acme/embed-large"
[budgets.legacy-model]
usd = "1"
hard = false
model = "acme/embed-legacy"
[upstream]
max_attempts = 1
"""
WORDS = "invoice payment refund parcel delay address login password account order return warranty battery".split()  # noqa: SIM905
_random = random.Random(1)  # noqa: S311  texts need no secret randomness


def text(kinds: int) -> str:
    """Return one of `kinds` texts of twelve words."""
    chance = random.Random(_random.randrange(kinds))  # noqa: S311  as above
    return " ".join(chance.choices(WORDS, k=12))


async def send(url: str, seconds: float) -> None:
    """Send requests of several kinds, each at random times."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    #: Model, texts, number of different texts, and mean pause in seconds.
    kinds = (
        ("all-MiniLM-L6-v2", 1, 1 << 30, 0.12),
        ("all-MiniLM-L6-v2", 1, 3000, 0.1),
        ("all-MiniLM-L6-v2", 256, 1 << 30, 40.0),
        ("acme/embed-large", 6, 4000, 0.12),
        ("acme/embed-legacy", 1, 1 << 30, 9.0),
        ("unknown-model", 1, 1 << 30, 50.0),
    )
    async with aiohttp.ClientSession() as session:

        async def one(model: str, count: int, different: int, pause_s: float) -> None:
            while loop.time() < end:
                await asyncio.sleep(_random.expovariate(1 / pause_s))
                body = {"model": model, "input": [text(different) for _ in range(count)]}
                async with session.post(f"{url}/v1/embeddings", json=body) as answer:
                    await answer.read()

        await asyncio.gather(*(one(*kind) for kind in kinds))


def small(picture: bytes) -> bytes:
    """Return a PNG with a palette of 256 colours: half of the size."""
    from PIL import Image  # python-pptx requires it

    written = io.BytesIO()
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(written, "PNG", optimize=True)
    return written.getvalue()


async def take(url: str, address: str, folder: Path) -> None:
    """Take both pictures after a comparison of the two texts."""
    async with browser_at(address) as browser:
        for scheme in ("light", "dark"):
            async with browser.page(url, scheme=scheme) as page:
                await page.wait("!document.getElementById('data').hidden")
                await page.run("document.getElementById('embed').click()")
                await page.wait("document.querySelector('#compared dl')")
                await page.run("new Promise((resolve) => setTimeout(resolve, 2500))")
                picture = small(await page.screenshot(whole=True))
            (folder / f"gateway-{scheme}.png").write_bytes(picture)
            print(f"gateway-{scheme}.png: {len(picture):,} bytes")


async def shoot(url: str, address: str, folder: Path, seconds: float) -> None:
    """Take the pictures after some seconds of load."""
    load = asyncio.create_task(send(url, seconds + 15))
    await asyncio.sleep(seconds)
    await take(url, address, folder)
    await load


def main(seconds: float) -> None:
    """Run a gateway and a browser, and take the pictures."""
    folder = ROOT / "docs" / "images"
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        settings = Path(home, "settings.toml")
        settings.write_text(SETTINGS, "utf-8")
        environment = {"XDG_STATE_HOME": f"{home}/state", "EMBEDWAY_CACHE__PATH": f"{home}/vectors.sqlite"}
        with (
            gateway_process("--workers", "2", files=[settings], environment=environment) as gateway,
            running_chromium(Path(home, "chromium")) as address,
        ):
            asyncio.run(shoot(gateway.url, address, folder, seconds))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=420, help="time of the load before the pictures")
    main(parser.parse_args().seconds)
