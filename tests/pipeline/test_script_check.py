"""Warnings about texts in a script that the model does not know, in receipts, the log and events."""

# ruff: noqa: RUF001 - texts in other scripts

import asyncio
import logging

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from api_servers import KEY, CompatibleServer
from embedway import AsyncEmbedder, BaseHook, Config, Embedder, ModelSelectionCriteria, NoModelError
from embedway.selection.selector import ModelSelector
from tiny_models import tiny_encoder

THAI = [
    "ปัญญาประดิษฐ์ช่วยแพทย์วินิจฉัยโรคได้อย่างรวดเร็ว",
    "วันนี้อากาศดีมากเหมาะกับการเดินเล่นในสวนสาธารณะ",
    "ราคาน้ำมันดิบในตลาดโลกปรับตัวสูงขึ้นเมื่อสัปดาห์ก่อน",
]
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
NOTE = f"{MODEL} does not know the Thai script of some texts, so search finds little in them"
WARNED = ("script",)


@pytest.fixture
def settings(default_model_directory, tmp_path):
    """Return a function that returns settings with an empty cache in memory."""

    def make(**more):
        overrides = {"weights.directory": str(default_model_directory), "tune.directory": str(tmp_path / "tune")}
        return Config.load(environ={}, overrides={**overrides, "cache.backend": "memory", **more})

    return make


@pytest.fixture
def lines(caplog):
    """Return a function that returns the messages of this check so far."""
    caplog.set_level(logging.INFO, "embedway")
    return lambda: [one.getMessage() for one in caplog.records if one.name == "embedway.quality.scripts"]


class Events(BaseHook):
    def __init__(self):
        self.found = []

    def event(self, operation):
        if operation.details.kind == "vector_check":
            self.found.append(operation.details)


def warnings_of(result):
    return () if result.receipt.checks is None else result.receipt.checks.warnings


def test_thai_texts_of_the_english_model(settings, lines):
    events = Events()
    with Embedder(config=settings(), hooks=[events]) as embedder:
        result = embedder.embed([*THAI, "an English text"])
    [note] = result.receipt.notes
    assert note.startswith(NOTE)
    assert note.endswith("`embedway select --language th --anywhere`")
    assert warnings_of(result) == WARNED
    assert lines() == [f"{note} (3 texts in this call). This is logged once"]
    [event] = events.found
    assert (event.model, event.check, event.level, event.texts) == (MODEL, "script", "warned", 3)
    assert not [text for text in THAI if text[:8] in f"{note} {event}"]


def test_the_advice_is_what_the_selection_returns(settings):
    with Embedder(config=settings()) as embedder:
        note = embedder.embed(THAI).receipt.notes[0]
        criteria = ModelSelectionCriteria(languages=("th",))
        with pytest.raises(NoModelError):
            embedder.select([], criteria)
        best = embedder.select([], criteria, anywhere=True)
    assert f"the best model for th is {best.model}, not usable now: `embedway select" in note


def test_cache_hits_warn_too_and_the_log_once(settings, lines):
    with Embedder(config=settings()) as embedder:
        first, hit = embedder.embed(THAI), embedder.embed(THAI[:1])
        query = embedder.embed(["สวัสดีครับเพื่อน"], input_type="query")
    assert hit.receipt.cache_hits == 1
    assert hit.receipt.notes == first.receipt.notes != ()
    assert "its collection must be embedded again with another model" in query.receipt.notes[0]
    assert "its collection" not in hit.receipt.notes[0]
    assert warnings_of(hit) == warnings_of(query) == WARNED
    assert len(lines()) == 1


def test_concurrent_calls_log_once(settings, lines):
    async def main():
        async with AsyncEmbedder(config=settings()) as embedder:
            return await asyncio.gather(*(embedder.embed([text]) for text in THAI))

    results = asyncio.run(main())
    assert len({result.receipt.notes for result in results}) == 1
    assert len(lines()) == 1


def test_each_script_has_its_warning(settings, lines):
    with Embedder(config=settings()) as embedder:
        result = embedder.embed([THAI[0], "Привет, как у вас дела сегодня?", "今天天气很好，我们去公园散步。"])
    assert [note.split(" script of")[0].rpartition(" ")[2] for note in result.receipt.notes] == [
        "Thai",
        "Cyrillic",
        "Chinese",
    ]
    assert "--language ru" in result.receipt.notes[1]
    assert warnings_of(result) == WARNED
    assert len(lines()) == 3


def test_the_language_of_a_shared_script_is_detected(settings):
    text = "Усі люди народжуються вільними і рівними у своїй гідності та правах. Вони наділені розумом і совістю."
    with Embedder(config=settings()) as embedder:
        assert "--language uk" in embedder.embed([text]).receipt.notes[0]


@pytest.mark.parametrize(
    "text",
    [
        "The word λόγος has many meanings in philosophy.",
        "Zürich liegt am See, und überall hört man Glocken.",
        "Tôi muốn tìm hiểu về cơ sở dữ liệu",
        "🎉🚀 shipped it",
        "def f():\n    # 打开文件\n    return open(path).read()",
    ],
)
def test_mixed_texts_do_not_warn(settings, lines, text):
    with Embedder(config=settings()) as embedder:
        result = embedder.embed([text])
    assert result.receipt.notes == ()
    assert warnings_of(result) == ()
    assert lines() == []


def test_the_setting_switches_it_off(settings, lines):
    with Embedder(config=settings(**{"quality.check_scripts": False})) as embedder:
        result = embedder.embed(THAI)
    assert (result.receipt.notes, warnings_of(result), lines()) == ((), (), [])


def test_a_model_whose_tokenizer_knows_thai(settings, lines, tmp_path):
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))  # noqa: S106 - no password
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=["[PAD]", "[UNK]"])
    tokenizer.train_from_iterator(THAI * 5, trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    folder = tiny_encoder(tmp_path / "model", tmp_path / "tokenizer.json")
    with Embedder(config=settings(), model=str(folder)) as embedder:
        results = [embedder.embed(texts) for texts in (THAI, THAI[:1])]
        greek = embedder.embed(["Καλημέρα σε όλους τους φίλους"])
    assert [result.receipt.notes for result in results] == [(), ()]
    assert "does not know the Greek script" in greek.receipt.notes[0]
    assert len(lines()) == 1


@pytest.mark.parametrize(
    ("model", "width", "warns"),
    [("embed-english-v3.0", 1024, True), ("embed-multilingual-v3.0", 1024, False), ("acme/m", 16, False)],
    ids=["english", "multilingual", "of unknown languages"],
)
def test_facts_decide_for_services(settings, model, width, warns):
    class Service(CompatibleServer):
        models = frozenset({model})

    Service.width = width
    # Nothing is known about a model of the user's own.
    own = {"models.m": {"name": model, "dimensions": 16, "max_tokens": 512}} if model == "acme/m" else {}

    async def main():
        server = Service()
        route = {"model": model, "provider": "openai-compatible", "api_key": KEY}
        async with server.running():
            route["base_url"] = f"{server.url}/v1"
            config = settings(**own, **{"routes.r": route, "ledger.backend": "none"})
            async with AsyncEmbedder(config=config, model=model) as embedder:
                return await embedder.embed(THAI)

    result = asyncio.run(main())
    assert warnings_of(result) == (WARNED if warns else ())
    assert any("Thai script" in note for note in result.receipt.notes) == warns


def test_a_better_model_that_runs_here_is_named(settings):
    class Service(CompatibleServer):
        models = frozenset({"text-embedding-3-small"})
        width = 1536

    async def main():
        server = Service()
        async with server.running():
            route = {"model": "text-embedding-3-small", "provider": "openai", "base_url": f"{server.url}/v1"}
            config = settings(**{"routes.r": {**route, "api_key": KEY}, "ledger.backend": "none"})
            async with AsyncEmbedder(config=config, model="all-MiniLM-L6-v2") as embedder:
                return await embedder.embed(THAI)

    [note] = asyncio.run(main()).receipt.notes
    assert note.endswith("the best model for th here is text-embedding-3-small: `embedway select --language th`")


def test_settings_that_no_model_meets(settings):
    config = settings(**{"selection.licences": ["Zlib"]})
    with Embedder(config=config, model="all-MiniLM-L6-v2") as embedder:
        [note] = embedder.embed(THAI).receipt.notes
    assert note.endswith("`embedway select --language th --anywhere` lists the models for th")


def test_the_model_itself_is_not_its_better_model(settings):
    selector = ModelSelector(settings())
    best = asyncio.run(selector.best_for_language("en", excluded=""))
    assert best == (MODEL, "")
    assert asyncio.run(selector.best_for_language("en", excluded=MODEL))[0] != MODEL


def test_advice_that_takes_long_fails_no_call_with_a_deadline(settings, monkeypatch):
    async def never(self, language, *, excluded):
        await asyncio.Event().wait()

    monkeypatch.setattr(ModelSelector, "best_for_language", never)
    with Embedder(config=settings()) as embedder:
        embedder.embed(["load the model"])
        [note] = embedder.embed(THAI, deadline_s=5).receipt.notes
    assert note.endswith("lists the models for th")
