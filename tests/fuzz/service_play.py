"""Play a mix: the public API on one side, the odd server on the other. What was seen is one value for the judge."""

import asyncio
import contextlib
import gc
import importlib.util
import logging
import os
import secrets
import sqlite3
import time
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from service_server import WIDTH, Bill

from embedway import AsyncEmbedder, Config

MODEL = "acme/m"
#: Nano-dollars of a token.
PRICE = 1000
#: Time after which a mix hangs, in seconds. Its waits are milliseconds.
HANG_S = 45.0
_LEDGER = "SELECT id, spent, estimated, unsure, tokens, reserved, sent, state FROM entries"


@dataclass
class Outcome:
    """One call: its result or its error."""

    call: object
    result: object = None
    error: BaseException | None = None
    seconds: float = 0.0


@dataclass
class Observation:
    """Everything that a mix showed."""

    mix: object
    bill: Bill
    outcomes: list[Outcome] = field(default_factory=list)
    #: Entries of the ledger, by ID.
    ledger: dict[str, dict] = field(default_factory=dict)
    #: Texts that a user may see, by the place, and secrets by kind, which none of them may contain.
    shown: list[tuple[str, str]] = field(default_factory=list)
    secrets: dict[str, list[str]] = field(default_factory=dict)
    leaks: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Seen(logging.Handler):
    """Collects log records and warnings of one mix."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.lines = []
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))

    def emit(self, record):
        self.lines.append(self.format(record))


class Player:
    """Plays mixes one after the other on one event loop, with one server."""

    def __init__(self, server, folder):
        self._server = server
        self._folder = Path(folder)
        self._seen = Seen()
        self._leaks = []
        self._played = 0

    @contextlib.contextmanager
    def watching(self):
        """Collect log records, warnings, and errors that no task retrieved."""
        loop = asyncio.get_running_loop()
        root = logging.getLogger()
        level, handlers = root.level, root.handlers
        root.handlers = [self._seen]
        root.setLevel(logging.DEBUG)
        logging.getLogger("asyncio").setLevel(logging.WARNING)
        loop.set_exception_handler(
            lambda _, context: self._leaks.append(str(context.get("exception") or context["message"]))
        )
        with warnings.catch_warnings(), _short_polls():
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, kind, *_: self._leaks.append(f"{kind.__name__}: {message}")
            try:
                yield
            finally:
                root.handlers = handlers
                root.setLevel(level)
                loop.set_exception_handler(None)

    async def play(self, mix):
        """Play a mix and return what was seen."""
        self._played += 1
        folder = self._folder / str(self._played)
        folder.mkdir()
        self._seen.lines.clear()
        self._leaks.clear()
        keys = {route.name: f"sk-{secrets.token_hex(10)}" for route in mix.routes}
        hidden = {"key": list(keys.values()), "text": [mix.marker], "words of the server": [mix.word]}
        hidden["header"] = [secrets.token_hex(10)]
        hidden["proxy password"] = [secrets.token_hex(10)]
        config, rotated = self._config(mix, folder, keys, hidden)
        self._server.play(mix, keys | rotated)
        self._server.on_refused_key = lambda route: self._rotate(folder, rotated, route)
        hidden["key"] += rotated.values()
        seen = Observation(mix, self._server.bill, secrets=hidden)
        tasks = asyncio.all_tasks()
        started = time.monotonic()
        with _proxy(mix, self._server.port, hidden["proxy password"][0]):
            try:
                async with asyncio.timeout(HANG_S):
                    async with AsyncEmbedder(config=config) as embedder:
                        for round_ in mix.rounds:
                            seen.outcomes += await self._round(embedder, mix, round_)
                        if any(outcome.error is not None for outcome in seen.outcomes):
                            await asyncio.sleep(0.003)  # connections of cancelled requests end before the others
                        self._server.close()
                    seen.shown.append(("repr of the embedder", repr(embedder)))
            except TimeoutError:
                seen.leaks.append(f"hang: it did not end within {HANG_S} s")
        seen.seconds = time.monotonic() - started
        await self._look_for_leaks(seen, tasks)
        self._collect(seen, config, folder)
        return seen

    def _config(self, mix, folder, keys, hidden):
        task = {"models.m.dimensions": WIDTH} if mix.task == "embed" else {"models.m.task": "rerank"}
        settings = {
            "models.m.name": MODEL,
            "models.m.max_tokens": 512,
            "models.m.price_usd_per_million_tokens": "1",
            **task,
            "cache.backend": mix.cache,
            "cache.path": str(folder / "cache.sqlite"),
            "ledger.path": str(folder / "ledger.sqlite"),
            "pins.path": str(folder / "pins.sqlite"),
            "upstream.first_wait_s": 0.001,
            "upstream.longest_wait_s": 0.004,
            "upstream.deadline_s": 20.0,
        }
        if mix.budget is not None:
            settings["budgets.all.usd"] = f"{mix.budget / 10**9:.9f}"
        rotated = {}
        for route in mix.routes:
            name = f"routes.{route.name}"
            settings |= {f"{name}.model": MODEL, f"{name}.provider": mix.provider}
            settings[f"{name}.base_url"] = self._server.url(route)
            # Without a declaration, the second route is not used while the first one is down and nothing is proved.
            settings[f"{name}.same_space"] = all(one.space == "right" for one in mix.routes)
            if route.key_rotates:
                rotated[route.name] = f"sk-{secrets.token_hex(10)}"
                file = folder / f"key-{route.name}"
                file.write_text(keys[route.name])
                file.chmod(0o600)
                settings[f"{name}.api_key_file"] = str(file)
            else:
                settings[f"{name}.api_key"] = keys[route.name]
            if route.base64 and mix.task == "embed" and mix.provider == "openai-compatible":
                settings[f"{name}.options.encoding"] = "base64"
        headers = {f"routes.{route.name}.headers": {"X-Tenant-Token": hidden["header"][0]} for route in mix.routes}
        return Config.load(environ={}, overrides=settings | (headers if mix.headers else {})), rotated

    def _rotate(self, folder, rotated, route):
        if route in rotated:
            new = folder / f"key-{route}.new"
            new.write_text(rotated[route] + "\n")
            new.chmod(0o600)
            new.replace(folder / f"key-{route}")

    async def _round(self, embedder, mix, round_):
        tasks = [asyncio.create_task(self._call(embedder, mix, call)) for call in round_]
        cancels = [
            (call.cancel_at, task) for call, task in zip(round_, tasks, strict=True) if call.cancel_at is not None
        ]
        before = len(self._server.bill.served)

        def on_request(number):
            for at, task in cancels:
                if number - before == at:
                    task.cancel()

        self._server.on_request = on_request
        return await asyncio.gather(*tasks)

    async def _call(self, embedder, mix, call):
        outcome, started = Outcome(call), time.monotonic()
        texts = [mix.texts[row] for row in call.rows]
        try:
            if mix.task == "embed":
                outcome.result = await embedder.embed(texts, model=MODEL, partial=call.partial)
            else:
                outcome.result = await embedder.rerank(mix.query, texts, model=MODEL, partial=call.partial)
        except asyncio.CancelledError as error:
            if call.cancel_at is None:
                raise
            outcome.error = error
        except Exception as error:
            outcome.error = error
        outcome.seconds = time.monotonic() - started
        return outcome

    async def _look_for_leaks(self, seen, tasks):
        for _ in range(50):
            left = [task for task in asyncio.all_tasks() - tasks if task not in self._server.connections]
            if not left and not self._server.connections:
                break
            await asyncio.sleep(0.001)
        seen.leaks += [f"task: {task.get_coro().__qualname__}" for task in left]
        if self._server.connections:
            await asyncio.sleep(0.2)
            seen.leaks += ["connection" for _ in self._server.connections]
        if self._played % 20 == 0:
            gc.collect()
            await asyncio.sleep(0)
        seen.leaks += self._leaks

    def _collect(self, seen, config, folder):
        seen.shown += [("log", line) for line in self._seen.lines]
        seen.shown.append(("repr of the settings", repr(config)))
        for outcome in seen.outcomes:
            if outcome.error is not None:
                seen.shown.append(("error", text_of(outcome.error)))
            if outcome.result is not None:
                seen.shown.append(("receipt", repr(outcome.result) + repr(outcome.result.receipt)))
                seen.shown += [("row's error", text_of(error)) for error in set(outcome.result.errors.values())]
        for file in folder.iterdir():
            if not file.name.startswith("key-"):
                seen.shown.append((f"file {file.name}", file.read_bytes().decode("latin-1")))
        with contextlib.closing(sqlite3.connect(f"file:{folder / 'ledger.sqlite'}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            with contextlib.suppress(sqlite3.OperationalError):  # nothing was booked
                seen.ledger = {row["id"]: dict(row) for row in connection.execute(_LEDGER)}
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def text_of(error):
    """Return everything that an error and its chain show."""
    chain, parts = [error], []
    while chain:
        one = chain.pop()
        parts += [repr(one), str(one), repr(vars(one)), repr(one.args), *getattr(one, "__notes__", ())]
        chain += [other for other in (one.__cause__, one.__context__) if other is not None]
    return "\n".join(["".join(traceback.format_exception_only(error)), *parts])


@contextlib.contextmanager
def _short_polls():
    """Ask a service that loads its model again after milliseconds instead of seconds."""
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("embedway.dispatch.waits") is None:
            yield
            return
        for name in ("_FIRST_POLL_S", "_LONGEST_POLL_S"):
            patch.setattr(f"embedway.dispatch.waits.{name}", 0.004)
        yield


@contextlib.contextmanager
def _proxy(mix, port, password):
    names = ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    if any(route.unreachable.startswith("proxy") for route in mix.routes):
        os.environ["HTTPS_PROXY"] = f"http://user:{password}@127.0.0.1:{port}"
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ |= before
