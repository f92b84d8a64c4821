"""A model is excluded exactly if its longest text is over its limit, by its own tokenizer and prompt."""

import asyncio
import dataclasses

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from embedway import AsyncEmbedder, Config, ModelSelectionCriteria
from embedway.errors import NoModelError, TextTooLongError
from embedway.providers.counting import TiktokenCounter
from embedway.selection.longest import Longest, TextLengths, most_tokens
from inside import engine_of

MINI = "sentence-transformers/all-MiniLM-L6-v2"
OWN, ESTIMATED = "acme/own", "acme/estimated"
PIECES = [
    *("word ", "Antidisestablishmentarianism ", "12345 ", "a b c ", "{};:,.", "   ", "\n\n", "-" * 9),
    *(
        "\u5411\u91cf",
        "\ufdfa",
        "e\u0301",
        "\U0001f468\u200d\U0001f469 ",
        "\u0e01\u0e32\u0e23",
        "\u200b",
        "\u00bd",
        "Stra\u00dfe ",
    ),
]
TEXTS = st.lists(st.tuples(st.sampled_from(PIECES), st.integers(1, 60)), min_size=1, max_size=8).map(
    lambda parts: "x" + "".join(piece * times for piece, times in parts)
)
ANY = ModelSelectionCriteria(min_accuracy=0, match_languages=False)


def own_model(name, tokenizer, **more):
    return {
        f"models.{name.replace('/', '-')}": {
            "name": name,
            "dimensions": 8,
            "max_tokens": 40,
            "tokenizer": tokenizer,
            "query_prompt": "find: ",
            "price_usd_per_million_tokens": "0",
            **more,
        },
        f"routes.{name.replace('/', '-')}": {
            "model": name,
            "provider": "openai-compatible",
            "base_url": "http://127.0.0.1:9/v1",
        },
    }


@pytest.fixture
def loop():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def embedder(config, loop):
    scores = {
        name: {
            "model_name": name,
            "provider": "openai-compatible",
            "quality_score": 60,
            "cost_per_million_tokens": 0,
            "avg_latency_ms": 1,
            "tokens_per_second": 1000,
            "max_context_length": 40,
            "embedding_dimensions": 8,
        }
        for name in (OWN, ESTIMATED)
    }
    overrides = {
        "weights.directory": str(config.weights.directory),
        "weights.offline": True,
        "cache.backend": "none",
        "embedding.model_benchmarks": scores,
        **own_model(OWN, "tiktoken:cl100k_base"),
        **own_model(ESTIMATED, "estimate"),
    }
    embedder = AsyncEmbedder(config=Config.load(environ={}, overrides=overrides))
    yield embedder
    loop.run(embedder.aclose())


async def refuses(embedder, texts, model, input_type="document"):
    try:
        await embedder.plan(texts, model=model, input_type=input_type, on_overflow="error")
    except TextTooLongError:
        return True
    return False


async def check(embedder, texts):
    table = (await embedder.select(texts, ANY, anywhere=True)).table
    out = {row.model: [reason.requirement for reason in row.reasons] for row in table}
    for model in (MINI, OWN, ESTIMATED, "text-embedding-3-small"):
        assert ("require_fit" in out[model]) == await refuses(embedder, texts, model), model


def test_a_model_is_excluded_exactly_if_embedding_refuses_a_text(loop, embedder):
    @given(st.lists(TEXTS, min_size=1, max_size=4))
    @settings(max_examples=60, deadline=None)
    def property_holds(texts):
        loop.run(check(embedder, texts))

    property_holds()


@pytest.mark.parametrize("tokens", [36, 37, 38, 39, 40, 41, 254, 255, 256, 257])
def test_special_tokens_and_prompts_count_at_the_limit(loop, embedder, tokens):
    async def work():
        for text in ("word " * (tokens - 1) + "word", "word " * (tokens - 3) + "word"):
            await check(embedder, ["short", text, "other"])
            for input_type in ("query", "document"):
                refused = await refuses(embedder, [text], OWN, input_type)
                row = {row.model: row for row in (await table([text], input_type))}[OWN]
                assert ("require_fit" in [reason.requirement for reason in row.reasons]) == refused

    async def table(texts, input_type):
        selector = engine_of(embedder).selector
        return (await selector.select(texts, ANY, anywhere=True, input_type=input_type)).table

    loop.run(work())


@pytest.mark.parametrize("long", ["\u5411\u91cf" * 200, "x1y2z3 " * 90, "{};:," * 60])
def test_the_longest_text_is_found_among_all_texts(loop, embedder, long):
    texts = [f"{number} " + "plain words " * 60 for number in range(300)]
    fitting = loop.run(embedder.select(texts, ANY, anywhere=True)).table
    texts[211] = long
    table = loop.run(embedder.select(texts, ANY, anywhere=True)).table
    own, other = ({row.model: row for row in rows}[MINI] for rows in (fitting, table))
    assert not own.reasons
    assert [reason.requirement for reason in other.reasons] == ["require_fit"]
    # White space has no tokens for this model.
    loop.run(check(embedder, ["a" + " " * 5000 + "b"]))


def byte_tokens():
    return [f"<0x{byte:02X}>" for byte in range(256)]


def tokenizers_without_words(mini):
    """The tokenizers with most tokens: every byte or character is one."""
    fallback = models.Unigram([("<unk>", 0.0), ("\u2581", -1.0), *((one, -2.0) for one in byte_tokens())], 0, True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    byte_level = models.BPE({one: number for number, one in enumerate(alphabet)}, [])
    decompose, lower = normalizers.NFKD(), normalizers.Lowercase()
    wordpiece = normalizers.BertNormalizer()
    words = models.WordPiece({"[UNK]": 0}, max_input_chars_per_word=1)
    made = [
        (fallback, normalizers.Sequence([decompose, lower]), pre_tokenizers.Metaspace()),
        (fallback, normalizers.Sequence([lower, normalizers.NFD()]), pre_tokenizers.Metaspace()),
        (byte_level, normalizers.Sequence([lower, decompose]), pre_tokenizers.ByteLevel(add_prefix_space=True)),
        (words, wordpiece, pre_tokenizers.BertPreTokenizer()),
    ]
    own = Tokenizer.from_file(mini)
    own.no_truncation()
    own.no_padding()
    found = [own]
    for model, normalizer, splitter in made:
        one = Tokenizer(model)
        one.normalizer, one.pre_tokenizer = normalizer, splitter
        found.append(one)
    assert len(found[1].encode("\ufdfa").ids) > 30
    return found


def test_no_tokenizer_makes_more_tokens_than_the_bound(config):
    mini = next(config.weights.directory.rglob("*MiniLM*/*/tokenizer.json"))
    tokenizers = tokenizers_without_words(str(mini))
    openai = TiktokenCounter("cl100k_base", max_tokens=1 << 30)
    units = ["a,b,", "x=1;", "a\rb\r", "q\tw\t", "\x00\x01", "\u200b", "\uac01", "\U00012000", "a\u0301", "\u00bd"]
    units += [
        "\u0390",
        "\u0130",
        "\u023a",
        "\u1fb7",
        "\ufdfa",
        "\U0001f468\u200d\U0001f469",
        "\u5411",
        "\u0f56\u0f7c",
        " ",
    ]
    characters = st.characters(blacklist_categories=["Cs"])
    texts = st.text(characters, max_size=40) | st.lists(st.sampled_from(units), max_size=8).map("".join)

    @given(texts, st.integers(1, 60))
    @settings(max_examples=300, deadline=None)
    def property_holds(text, times):
        counts = [len(one.encode(text * times).ids) for one in tokenizers]
        assert max(*counts, *openai.count([text * times]).lengths) <= most_tokens(text * times)

    for unit in units:
        property_holds = example(unit, 500)(property_holds)
    property_holds()


def test_a_short_text_of_many_tokens_excludes_a_model(loop, embedder):
    """Its estimate is below those of the other texts, which fit."""
    texts = [f"{number} " + "word " * 8000 for number in range(40)]
    criteria = dataclasses.replace(ANY, models=["text-embedding-3-small"])
    assert loop.run(embedder.select([*texts, "short"], criteria, anywhere=True)).model
    with pytest.raises(NoModelError, match="require_fit=False"):
        loop.run(embedder.select([*texts, "a\rb\r" * 2200], criteria, anywhere=True))


def test_few_texts_are_counted():
    counted = 0

    def count(texts):
        nonlocal counted
        counted += sum(map(len, texts))
        return [2 + len(text) // 4 for text in texts]

    texts = [f"{number} " + "word " * (number % 40) for number in range(20_000)]
    longest = TextLengths(texts).counted(count, "", limits=(256, 512))
    assert longest == Longest(2 + max(map(len, texts)) // 4)
    assert counted < 20_000
    # Texts that may be over the limit are all counted, unless the characters are limited.
    texts = [f"{number:05} " + "word " * 200 for number in range(5000)]
    counted = 0
    assert TextLengths(texts).counted(count, "", limits=(256, 512)).exact
    assert counted == sum(map(len, texts))
    counted = 0
    TextLengths(texts).counted(count, "", limits=(256, 512), most_characters=1_000_000)
    assert counted < 2_000_000


def test_a_book_is_not_counted_completely():
    counted = 0

    def count(texts):
        nonlocal counted
        counted += sum(map(len, texts))
        return [len(text) // 4 for text in texts]

    longest = TextLengths(["word " * 1_000_000]).counted(count, "", limits=(256, 512))
    assert counted < 100_000
    assert (longest.tokens, longest.exact) == (1_250_000, False)
    # A text of white space, which a model truncates at the largest part that it tokenizes.
    assert TextLengths([" " * 3_000_000]).counted(lambda texts: [2] * len(texts), "", limits=(256, 512)).tokens > 512
