"""Cost of the check of scripts for each call, in microseconds: `python benchmarks/scripts.py`."""

import asyncio
import logging
import time
from types import SimpleNamespace

from embedway import Config, Embedder
from embedway.pipeline.script_check import ScriptCheck
from embedway.selection.selector import ModelSelector
from embedway.telemetry.hooks import Hooks

TEXTS = {
    "a short ASCII query": ("what is the capital of france?",),
    "a short German query": ("wo ist das Café in München?",),
    "64 ASCII texts of 1,800 characters": ("hello " * 300,) * 64,
    "64 German texts of 1,800 characters": ("größer " * 257,) * 64,
    "a Thai query, with the warning": ("สวัสดีครับเพื่อน",),
    "64 Thai texts, with the warning": ("สวัสดีครับเพื่อน " * 100,) * 64,
}


async def measure(check, receipt, model):
    for name, texts in TEXTS.items():
        calls = 2000 if len(texts) == 1 else 100
        best = float("inf")
        for _ in range(7):
            began = time.perf_counter()
            for _ in range(calls):
                await check.add_warnings(receipt, model, texts)
            best = min(best, (time.perf_counter() - began) / calls)
        print(f"{name:40} {best * 1e6:8.2f}")


def main():
    logging.getLogger("embedway").setLevel(logging.ERROR)
    config = Config(cache={"backend": "none"})
    with Embedder(config=config, model="all-MiniLM-L6-v2") as embedder:
        receipt, described = embedder.embed(["x"]).receipt, embedder.models.describe()
        profile = SimpleNamespace(route="local", description=described)
        model = SimpleNamespace(name=described.model, space=described.space, profile=profile)
        check = ScriptCheck(config, ModelSelector(config), Hooks())
        asyncio.run(measure(check, receipt, model))


if __name__ == "__main__":
    main()
